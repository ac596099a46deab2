//! The store's only clock: microseconds since the store was created.
//!
//! A deadline takes eight bytes instead of sixteen, and has an order that the expiry index can use. Under the
//! model checker time stands still until the test advances it.

use std::time::Duration;

#[cfg(not(idempotent_shuttle))]
pub(super) use self::running::Clock;
#[cfg(idempotent_shuttle)]
pub(super) use self::standing::Clock;

/// A duration on this clock. Half a million years fit; longer ones are cut to that.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(not(idempotent_shuttle))]
mod running {
    use std::time::{Duration, SystemTime};

    use tokio::time::Instant;

    use super::micros;

    pub(in super::super) struct Clock(Instant, SystemTime);

    impl Clock {
        pub(in super::super) fn new() -> Self {
            Self(Instant::now(), SystemTime::now())
        }

        pub(in super::super) fn now(&self) -> u64 {
            micros(Instant::now().saturating_duration_since(self.0))
        }

        /// The time of day at a time on this clock, for people: it counts from the store's creation, so that it never goes
        /// back, and does not follow a machine's clock that is set.
        pub(in super::super) fn wall(&self, at: u64) -> SystemTime {
            self.1
                .checked_add(Duration::from_micros(at))
                .unwrap_or(self.1)
        }
    }
}

#[cfg(idempotent_shuttle)]
mod standing {
    use std::time::{Duration, SystemTime};

    use shuttle::sync::atomic::{AtomicU64, Ordering};

    use super::micros;

    pub(in super::super) struct Clock(AtomicU64);

    impl Clock {
        pub(in super::super) fn new() -> Self {
            Self(AtomicU64::new(0))
        }

        pub(in super::super) fn now(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }

        pub(in super::super) fn wall(&self, at: u64) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_micros(at)
        }

        #[cfg(test)]
        pub(in super::super) fn advance(&self, by: Duration) {
            self.0.fetch_add(micros(by), Ordering::SeqCst);
        }
    }
}
