//! What the codec, the seal and the keyring share: first bytes, positions, and what can be wrong.

use std::fmt;

use bytes::Bytes;

use crate::{digest::Framed, fingerprint::Fingerprint, scope::StoreKey};

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

/// The record that a sealed response belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    pub(crate) key: StoreKey,
    pub(crate) fingerprint: Fingerprint,
}

impl Binding {
    /// The binding of a message in the outbox: the payload opens only as that of this message.
    pub(crate) fn of_message(id: &str, topic: &str) -> Self {
        let mut digest = Framed::sha256("idempotent/message/v1");
        digest.part(id.as_bytes());
        digest.part(topic.as_bytes());
        let digest = digest.finish();
        Self {
            key: StoreKey::from_bytes(digest),
            fingerprint: Fingerprint::from_bytes(digest),
        }
    }

    /// The binding of a step of this record's execution: what is sealed as a step does not open as the response.
    pub(crate) fn of_steps(&self) -> Self {
        let mut digest = Framed::sha256("idempotent/steps/v1");
        digest.part(self.fingerprint.as_bytes());
        Self {
            key: self.key,
            fingerprint: Fingerprint::from_bytes(digest.finish()),
        }
    }
}

/// What is wrong with the bytes of a stored response.
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

/// Checks the length of a sealed response, which is all that shows before it is opened. `None` if it is not sealed.
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

/// The status, which every form shows, also an encrypted one.
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
        f.write_str(match self {
            Self::Version(version) => {
                return write!(
                    f,
                    "unrecognised version {version} (written by a newer version?)"
                );
            }
            Self::UnknownKey(id) => {
                return write!(
                    f,
                    "it is encrypted with key {id}, which is not in the keyring: add it with \
                     `Keyring::and_old`"
                );
            }
            Self::Sealed => "it is compressed or encrypted and was not opened",
            Self::Encrypted => {
                "it is encrypted, and the engine has no keyring: set one with `Builder::encrypt`"
            }
            Self::Plain => {
                "it is not encrypted, and the keyring does not accept that: see \
                 `Keyring::accept_plain`"
            }
            Self::NotAuthentic => {
                "it was changed, belongs to another record, or was encrypted with another key of \
                 this id"
            }
            Self::Compressed => "its compression is damaged",
            Self::NoCompression => {
                "it is compressed, and support for that is not compiled in: enable the feature \
                 `compression`"
            }
            Self::Truncated => "it ends early",
            Self::Trailing => "there are bytes after its end",
            Self::Status => "its status is not valid",
            Self::Header => "one of its headers is not valid",
        })
    }
}
