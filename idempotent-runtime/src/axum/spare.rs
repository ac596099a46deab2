//! Places that were used and are empty again, kept by each thread for the next use.
//!
//! A thread keeps one place of a type: what it does for one request ends, nearly always, before the next one begins. Those
//! of 64 types are kept at most; of two types that fall together the last one used is.

use std::{
    any::{Any, TypeId},
    cell::RefCell,
    hash::{Hash, Hasher},
};

const TYPES: usize = 64;

thread_local! {
    static SPARE: RefCell<[Option<Box<dyn Any>>; TYPES]> = const { RefCell::new([const { None }; TYPES]) };
}

/// The place of this type that the thread keeps, if it does.
pub(super) fn take<P: 'static>() -> Option<P> {
    let taken = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        let kept = spare[index::<P>()].as_mut()?;
        kept.downcast_mut::<Option<P>>()?.take()
    });
    // A thread that ends keeps nothing any more.
    taken.ok().flatten()
}

/// Keeps a place, in which nothing may be left whose destructor is foreign code.
pub(super) fn keep<P: 'static>(place: P) {
    // A thread that ends keeps nothing any more.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        let kept = &mut spare[index::<P>()];
        let same = kept.as_mut().and_then(|kept| kept.downcast_mut());
        match same {
            Some(same) => *same = Some(place),
            None => *kept = Some(Box::new(Some(place))),
        }
    });
}

fn index<P: 'static>() -> usize {
    let mut low = Low(0);
    TypeId::of::<P>().hash(&mut low);
    usize::try_from(low.0 % TYPES as u64).unwrap_or_default()
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
    fn a_place_is_kept_by_type_and_given_once() {
        assert_eq!(take::<Box<u8>>(), None);
        keep(Box::new(7_u8));
        keep(Box::new(7_u16));
        keep(Box::new(8_u8));
        assert_eq!(take::<Box<u8>>(), Some(Box::new(8)));
        assert_eq!(take::<Box<u8>>(), None);
        assert_eq!(take::<Box<u16>>(), Some(Box::new(7)));
    }
}
