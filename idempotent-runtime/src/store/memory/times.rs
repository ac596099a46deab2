//! When a completed record was created and completed, in the seven bytes that its state has left.

use std::ops::Range;

/// Two times with a precision of ten milliseconds: 36 bits for the completion, which last for 21 years of a process, and 20
/// bits for the time that it took, which last for almost three hours.
#[derive(Clone, Copy)]
pub(super) struct Times([u8; 7]);

/// Microseconds in a unit.
const UNIT: u64 = 10_000;
const TOOK_BITS: u32 = 20;
const MOST_TOOK: u64 = (1 << TOOK_BITS) - 1;
const MOST_COMPLETED: u64 = (1 << (56 - TOOK_BITS)) - 1;

impl Times {
    /// Of a record that was in flight from the start of this range, in microseconds on the store's clock, to its end.
    pub(super) fn new(in_flight: Range<u64>) -> Self {
        let completed = (in_flight.end / UNIT).min(MOST_COMPLETED);
        let took = completed
            .saturating_sub(in_flight.start / UNIT)
            .min(MOST_TOOK);
        let [bytes @ .., _] = (completed << TOOK_BITS | took).to_le_bytes();
        Self(bytes)
    }

    /// The completion, in microseconds.
    pub(super) fn completed(self) -> u64 {
        (self.bits() >> TOOK_BITS) * UNIT
    }

    /// The creation, in microseconds; `None` if the completion came too long after it.
    pub(super) fn created(self) -> Option<u64> {
        let took = self.bits() & MOST_TOOK;
        (took < MOST_TOOK).then(|| self.completed() - took * UNIT)
    }

    fn bits(self) -> u64 {
        let mut bytes = [0; 8];
        bytes[..7].copy_from_slice(&self.0);
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(in_flight: Range<u64>) -> (Option<u64>, u64) {
        let times = Times::new(in_flight);
        (times.created(), times.completed())
    }

    #[test]
    fn times_are_kept_to_ten_milliseconds() {
        assert_eq!(times(0..0), (Some(0), 0));
        assert_eq!(times(12_345..12_345), (Some(10_000), 10_000));
        assert_eq!(times(9_999..10_000), (Some(0), 10_000));
        let hour = 3_600_000_000;
        assert_eq!(times(20 * hour..22 * hour), (Some(20 * hour), 22 * hour));
    }

    #[test]
    fn a_creation_too_long_ago_is_unknown() {
        let hour = 3_600_000_000;
        assert_eq!(times(0..3 * hour), (None, 3 * hour));
        assert_eq!(times(0..u64::MAX), (None, MOST_COMPLETED * UNIT));
        assert_eq!(times(u64::MAX - 1..u64::MAX).1, MOST_COMPLETED * UNIT);
    }
}
