//! How long to pause between two attempts. Every pause of the engine is jittered here.
//!
//! Only the times of polls are set here; a write that is repeated sets its own.

use std::time::Duration;

/// Pauses that double from one to the next, up to a longest one.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Between two polls of a record that another process may complete at any moment.
    pub(crate) const fn polling() -> Self {
        Self::new(Duration::from_millis(10), Duration::from_millis(500))
    }

    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: first,
            longest,
        }
    }

    /// The next pause, jittered.
    pub(crate) fn pause(&mut self) -> Duration {
        jittered(self.step())
    }

    /// The next pause, jittered downwards: with the operation that follows it takes no longer than the longest pause.
    pub(crate) fn pause_at_most(&mut self) -> Duration {
        self.step().mul_f64(0.5 + rand::random::<f64>() * 0.45)
    }

    /// The next pause before its jitter.
    pub(crate) fn peek(&self) -> Duration {
        self.next
    }

    fn step(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }
}

/// Between half and one and a half times the duration, so that the retries of many do not fall together.
pub(crate) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.5 + rand::random::<f64>())
}

/// Within a tenth of the duration.
pub(crate) fn nearly(duration: Duration) -> Duration {
    duration.mul_f64(0.9 + rand::random::<f64>() / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_one() {
        let (first, longest) = (Duration::from_millis(10), Duration::from_millis(35));
        let mut backoff = Backoff::new(first, longest);
        for expected in [10, 20, 35, 35].map(Duration::from_millis) {
            assert_eq!(backoff.peek(), expected);
            let pause = backoff.pause();
            assert!(
                pause >= expected / 2 && pause <= expected * 3 / 2,
                "{pause:?}"
            );
        }
        for _ in 0..100 {
            let pause = backoff.pause_at_most();
            assert!(pause >= longest / 2 && pause < longest, "{pause:?}");
        }
    }
}
