//! [`Place`]: where a walk goes on, as its cursor says it.

use std::fmt::Write as _;

use super::NAME;
use crate::{
    hex::{self, Hex},
    scope::StoreKey,
    store::{error::StoreError, inspect::Cursor, redis::topology::SLOTS},
};

/// What a cursor of this store begins with.
const AFTER: &str = "r1-";

/// Where a walk goes on.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Place {
    /// The lowest slot of the primary, or the number of all slots at the end.
    pub(super) slot: u16,
    /// Where its `SCAN` goes on.
    pub(super) scan: u64,
    /// The records before it that were not looked at yet.
    pub(super) left: Vec<StoreKey>,
}

impl Place {
    /// Behind the last primary.
    pub(super) fn end() -> Self {
        Self {
            slot: SLOTS,
            ..Self::default()
        }
    }

    pub(super) fn is_end(&self) -> bool {
        self.slot >= SLOTS && self.left.is_empty()
    }

    /// The cursor of this place in a walk through the servers with this id.
    pub(super) fn cursor(&self, servers: u64) -> Cursor {
        let mut text = format!("{AFTER}{servers:x}-{:x}-{:x}", self.slot, self.scan);
        for key in &self.left {
            // Writing to a string does not fail.
            let _ = write!(text, "-{}", Hex(key.as_bytes()));
        }
        Cursor::new(text)
    }

    /// The id of the servers, and the place, that a cursor names.
    pub(super) fn parse(cursor: &Cursor) -> Result<(u64, Self), StoreError> {
        Self::read(cursor.as_str()).ok_or_else(|| cursor.refused(NAME))
    }

    fn read(text: &str) -> Option<(u64, Self)> {
        let mut parts = text.strip_prefix(AFTER)?.split('-');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let (servers, slot, scan) = (number()?, number()?, number()?);
        let slot = u16::try_from(slot).ok().filter(|slot| *slot <= SLOTS)?;
        let left = parts.map(|digits| hex::decode(digits.as_bytes()).map(StoreKey::from_bytes));
        let left = left.collect::<Option<_>>()?;
        Some((servers, Self { slot, scan, left }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::error::StoreErrorKind;

    #[test]
    fn a_place_comes_back_from_its_cursor() {
        let key = |byte| StoreKey::from_bytes([byte; 32]);
        for left in [vec![], vec![key(0)], vec![key(7), key(0xff)]] {
            for (slot, scan) in [(0, 0), (5_001, u64::MAX), (SLOTS, 0)] {
                let left = left.clone();
                let place = Place { slot, scan, left };
                let cursor = place.cursor(u64::MAX);
                assert_eq!(Place::parse(&cursor).unwrap(), (u64::MAX, place));
            }
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "r1-",
            "r1-0",
            "r1-0-0",
            "r1-0-4001-0",
            "r1-0-0-0-",
            "r1-0-0-0-ab",
            "r1-x-0-0",
            "r1-0-0-10000000000000000",
            "k1-0-0-0",
        ] {
            let error = Place::parse(&Cursor::new(text)).expect_err(text);
            assert_eq!(error.kind(), StoreErrorKind::InvalidCursor, "{text}");
        }
    }
}
