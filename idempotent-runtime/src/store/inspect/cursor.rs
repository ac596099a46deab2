//! [`Cursor`]: where the next page begins.

use std::fmt;

use crate::{
    hex::{self, Hex},
    scope::StoreKey,
    store::error::{StoreError, StoreErrorKind},
};

/// Where the next page begins. Opaque: only the store that gave it can read it.
///
/// It is made of visible ASCII characters that need no escape in a URL, so that a program may hand it to its user and take
/// it back. It contains no secret: a digest that logs show in part.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Cursor(Box<str>);

/// What stands before the key in the cursor of a store that pages by keys.
const AFTER: &str = "k1-";

impl Cursor {
    /// A cursor as a store wrote it, or as a user gave it back.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The cursor of a store that pages by keys: the next page begins after this one.
    #[must_use]
    pub fn after(key: &StoreKey) -> Self {
        Self(format!("{AFTER}{}", Hex(key.as_bytes())).into())
    }

    /// The key after which the page begins, if this is a cursor of a store that pages by keys.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::InvalidCursor`] if it is none. `store` is the name of the store.
    pub fn key(&self, store: &'static str) -> Result<StoreKey, StoreError> {
        let digits = self.0.strip_prefix(AFTER);
        let bytes = digits.and_then(|digits| hex::decode(digits.as_bytes()));
        bytes
            .map(StoreKey::from_bytes)
            .ok_or_else(|| self.refused(store))
    }

    /// The error of a store that gave no such cursor.
    #[must_use]
    pub fn refused(&self, store: &'static str) -> StoreError {
        let begin = &self.0[..self.0.floor_char_boundary(80)];
        StoreError::new(store, StoreErrorKind::InvalidCursor)
            .with_source(format!("{begin:?} is not a cursor of this store"))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({:?})", self.0)
    }
}

/// The share of all possible keys that lie behind `after` (`None`: from the first one) and up to `last` (`None`: to the
/// end). Keys are digests, and so spread evenly: it is about the share of the records, for [`Stats::share`](super::Stats).
#[must_use]
pub fn share_of_keys(after: Option<&StoreKey>, last: Option<&StoreKey>) -> f64 {
    let position = |key: &StoreKey| {
        let mut first = [0; 8];
        first.copy_from_slice(&key.as_bytes()[..8]);
        #[expect(
            clippy::cast_precision_loss,
            reason = "53 bits of a digest are enough of it"
        )]
        let position = u64::from_be_bytes(first) as f64 / 2_f64.powi(64);
        position
    };
    (last.map_or(1.0, position) - after.map_or(0.0, position)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_the_key_that_it_was_made_of() {
        let key = StoreKey::from_bytes(std::array::from_fn(|n| u8::try_from(n * 7).unwrap()));
        let text = Cursor::after(&key).to_string();
        assert!(
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        );
        assert_eq!(Cursor::new(text).key("memory").unwrap(), key);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let key = "ab".repeat(32);
        for nonsense in [
            "",
            "k1-",
            "k1-zz",
            &key,
            &format!("k2-{key}"),
            &format!("k1-{key}0"),
        ] {
            let error = Cursor::new(nonsense).key("memory").unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::InvalidCursor, "{nonsense}");
        }
        let error = Cursor::new("ö".repeat(99)).key("memory").unwrap_err();
        assert!(error.to_string().contains("the memory store"), "{error}");
    }

    #[test]
    fn a_share_of_keys_is_what_lies_between_two() {
        let key = |first| StoreKey::from_bytes([first; 32]);
        let share = |after: Option<u8>, last: Option<u8>| {
            share_of_keys(after.map(key).as_ref(), last.map(key).as_ref())
        };
        assert!((share(None, None) - 1.0).abs() < 1e-9);
        assert!((share(None, Some(0x40)) - 0.25).abs() < 0.01);
        assert!((share(Some(0x40), Some(0xc0)) - 0.5).abs() < 0.01);
        assert!((share(Some(0x40), None) - 0.75).abs() < 0.01);
        assert!(share(Some(0xc0), Some(0x40)) <= 0.0);
    }
}
