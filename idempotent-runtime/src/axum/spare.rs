//! Places that were used and are empty again, kept by a thread for the next use.
//!
//! A thread keeps one place of a kind: what it does for one request ends, nearly always, before the next one begins. Those
//! of 64 kinds are kept at most; of two kinds that fall together the last one used is.

use std::{
    any::TypeId,
    cell::RefCell,
    hash::{Hash, Hasher},
};

const KINDS: usize = 64;

/// The places of one thread. Their kinds are named by types, and the places are not generic: so this is compiled once.
pub(super) struct Spare<P>(RefCell<[Option<(TypeId, P)>; KINDS]>);

impl<P> Spare<P> {
    pub(super) const fn new() -> Self {
        Self(RefCell::new([const { None }; KINDS]))
    }

    /// The place of this kind, if one is kept.
    pub(super) fn take(&self, kind: TypeId) -> Option<P> {
        let kept = &mut self.0.borrow_mut()[index(kind)];
        kept.take_if(|(other, _)| *other == kind)
            .map(|(_, place)| place)
    }

    /// Keeps a place, in which nothing may be left whose destructor is foreign code.
    pub(super) fn keep(&self, kind: TypeId, place: P) {
        self.0.borrow_mut()[index(kind)] = Some((kind, place));
    }
}

fn index(kind: TypeId) -> usize {
    let mut low = Low(0);
    kind.hash(&mut low);
    usize::try_from(low.0 % KINDS as u64).unwrap_or_default()
}

/// Takes the last number of what is a hash already.
struct Low(u64);

impl Hasher for Low {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_by_kind_and_given_once() {
        let spare = Spare::new();
        let (one, other) = (TypeId::of::<u8>(), TypeId::of::<u16>());
        assert_eq!(spare.take(one), None);
        spare.keep(one, 7);
        spare.keep(one, 8);
        assert_eq!(spare.take(other), None);
        assert_eq!(spare.take(one), Some(8));
        assert_eq!(spare.take(one), None);
    }
}
