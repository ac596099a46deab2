//! Digests over several values that can never be confused with each other.
//!
//! Hashing values one after the other is ambiguous: `"ab", "c"` and `"a", "bc"` are the same bytes.
//! [`Framed`] writes them so that only equal lists of parts are equal bytes:
//!
//! 1. The first part is a domain such as `idempotent/store-key/v2`, so that digests of different kinds or
//!    versions are unrelated even over the same values.
//! 2. Every part is preceded by its length, every list by the number of its entries, every optional value
//!    by a byte that says whether it is there.
//!
//! Stored records are found and compared by these digests. A change to one of them orphans records, so the version
//! at the end of its domain must change too; golden values in the tests detect a change.

use std::fmt;

use hmac::Hmac;
use sha2::{
    Sha256,
    digest::{FixedOutput, Update},
};

use crate::hex::Hex;

/// SHA-256 or HMAC-SHA256, fed with parts instead of bytes.
#[derive(Clone)]
pub(crate) struct Framed(Hash);

#[derive(Clone)]
enum Hash {
    Plain(Sha256),
    Keyed(Hmac<Sha256>),
}

impl Framed {
    /// An unkeyed digest in this domain.
    pub(crate) fn sha256(domain: &str) -> Self {
        Self::begin(Hash::Plain(Sha256::default()), domain)
    }

    /// A digest in this domain that cannot be computed or tested without the secret in `keyed`.
    pub(crate) fn hmac(keyed: Hmac<Sha256>, domain: &str) -> Self {
        Self::begin(Hash::Keyed(keyed), domain)
    }

    fn begin(hash: Hash, domain: &str) -> Self {
        let mut framed = Self(hash);
        framed.part(domain.as_bytes());
        framed
    }

    /// One value: its length, then its bytes.
    pub(crate) fn part(&mut self, bytes: &[u8]) {
        // A short one, as most are, is put together here: to feed the digest costs more than a few bytes.
        const COUNT: usize = size_of::<u64>();
        let mut short = [0; 64];
        let end = COUNT + bytes.len();
        if let Some(value) = short.get_mut(COUNT..end) {
            value.copy_from_slice(bytes);
            short[..COUNT].copy_from_slice(&(bytes.len() as u64).to_be_bytes());
            self.raw(&short[..end]);
        } else {
            self.count(bytes.len());
            self.raw(bytes);
        }
    }

    /// A value that may be absent; absent and empty differ.
    pub(crate) fn optional(&mut self, bytes: Option<&[u8]>) {
        self.tag(u8::from(bytes.is_some()));
        if let Some(bytes) = bytes {
            self.part(bytes);
        }
    }

    /// The number of entries, or of bytes, that follow.
    pub(crate) fn count(&mut self, count: usize) {
        self.raw(&(count as u64).to_be_bytes());
    }

    /// One byte that says what follows.
    pub(crate) fn tag(&mut self, tag: u8) {
        self.raw(&[tag]);
    }

    /// Bytes of a part whose length was written with [`count`](Self::count), or that delimit themselves.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Hash::Plain(hash) => hash.update(bytes),
            Hash::Keyed(hash) => hash.update(bytes),
        }
    }

    /// The digest of everything written.
    pub(crate) fn finish(self) -> [u8; 32] {
        match self.0 {
            Hash::Plain(hash) => hash.finalize_fixed(),
            Hash::Keyed(hash) => hash.finalize_fixed(),
        }
        .into()
    }
}

/// What `Debug` shows of a secret: its type, and enough of an unkeyed digest to distinguish two.
pub(crate) fn debug_secret(f: &mut fmt::Formatter<'_>, name: &str, secret: &[u8]) -> fmt::Result {
    let mut digest = Framed::sha256("idempotent/debug/v1");
    digest.part(secret);
    write!(f, "{name}(#{})", Hex(&digest.finish()[..4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(write: impl FnOnce(&mut Framed)) -> [u8; 32] {
        let mut framed = Framed::sha256("test");
        write(&mut framed);
        framed.finish()
    }

    #[test]
    fn the_border_between_two_parts_counts() {
        let split = |first: &'static [u8], second: &'static [u8]| {
            digest(|d| {
                d.part(first);
                d.part(second);
            })
        };
        assert_ne!(split(b"ab", b"c"), split(b"a", b"bc"));
        assert_ne!(split(b"abc", b""), split(b"", b"abc"));
        assert_eq!(split(b"ab", b"c"), split(b"ab", b"c"));
    }

    #[test]
    fn absent_and_empty_differ() {
        assert_ne!(
            digest(|d| d.optional(None)),
            digest(|d| d.optional(Some(b"")))
        );
    }

    #[test]
    fn domains_are_unrelated() {
        assert_ne!(Framed::sha256("a").finish(), Framed::sha256("b").finish());
    }
}
