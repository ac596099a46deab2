//! What every part of the stored form has in common: first bytes, positions, and what can be wrong.

use std::fmt;

use bytes::Bytes;

use crate::{fingerprint::Fingerprint, scope::StoreKey};

/// First byte of a response that is neither compressed nor encrypted.
pub(super) const PLAIN: u8 = 1;
/// First byte of a compressed response.
pub(super) const COMPRESSED: u8 = 2;
/// First byte of an encrypted response.
pub(super) const ENCRYPTED: u8 = 3;
/// Where the status is, also in a compressed response.
pub(super) const STATUS: std::ops::Range<usize> = 1..3;
/// Version, status and length.
pub(super) const COMPRESSED_HEAD: usize = STATUS.end + 4;
/// Version, key id, nonce and status.
pub(super) const ENCRYPTED_HEAD: usize = 1 + 4 + 24 + 2;
/// The authentication tag.
pub(super) const TAG: usize = 16;

/// What a record's sealed response belongs to.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(feature = "encryption"),
    expect(dead_code, reason = "only encryption binds")
)]
pub(crate) struct Binding {
    pub(crate) key: StoreKey,
    pub(crate) fingerprint: Fingerprint,
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "which of them can happen depends on the features")]
pub(super) enum Flaw {
    Version(u8),
    Sealed,
    Encrypted,
    Plain,
    UnknownKey(u32),
    NotAuthentic,
    Compressed,
    NoCompression,
    Truncated,
    Trailing,
    Status,
    Header,
}

/// Whether these are the bytes of a sealed response, as far as can be told without opening it.
pub(super) fn check(bytes: &Bytes) -> Option<Result<(), Flaw>> {
    let least = match *bytes.first()? {
        COMPRESSED => COMPRESSED_HEAD + 1,
        ENCRYPTED => ENCRYPTED_HEAD + TAG,
        _ => return None,
    };
    Some(if bytes.len() < least {
        Err(Flaw::Truncated)
    } else {
        Ok(())
    })
}

/// The status, which is in the open in every form.
pub(super) fn status(bytes: &Bytes) -> Option<u16> {
    let at = match *bytes.first()? {
        ENCRYPTED => ENCRYPTED_HEAD - 2..ENCRYPTED_HEAD,
        _ => STATUS,
    };
    Some(
        bytes
            .get(at)?
            .iter()
            .fold(0, |status, byte| status << 8 | u16::from(*byte)),
    )
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(f, "its version {version} is not known"),
            Self::Sealed => f.write_str("it is compressed or encrypted and was not opened"),
            Self::Encrypted => f.write_str("it is encrypted, and the engine was given no keyring"),
            Self::Plain => f.write_str(
                "it is not encrypted, and the keyring accepts only what is (see `Keyring::accept_plain`)",
            ),
            Self::UnknownKey(id) => write!(f, "it is encrypted with key {id}, which the keyring lacks"),
            Self::NotAuthentic => f.write_str(
                "it was changed, belongs to another record, or was encrypted with another key of this id",
            ),
            Self::Compressed => f.write_str("its compression is damaged"),
            Self::NoCompression => {
                f.write_str("it is compressed, and the crate was built without the `compression` feature")
            }
            Self::Truncated => f.write_str("it ends early"),
            Self::Trailing => f.write_str("it goes on after its end"),
            Self::Status => f.write_str("its status is none"),
            Self::Header => f.write_str("one of its headers is none"),
        }
    }
}
