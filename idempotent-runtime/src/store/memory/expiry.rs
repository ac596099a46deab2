//! When completed records expire, so that the cost of expiry is proportional to what expired and not to what is
//! stored.
//!
//! Records of one ttl expire in the order in which they completed, so each ttl has a queue: both ends of it cost
//! nothing. A store meets few different ttls, one a route; those beyond the first few share an ordered set.
//!
//! An entry is not removed when its record is (it expired and was claimed again): it is passed over when it is due, because
//! no record with its hash expires at that time any more.

use std::collections::{BTreeSet, VecDeque};

/// How many ttls have a queue of their own.
const QUEUES: usize = 8;

/// One completed record: when it expires, and the hash of its key. The order is that of the expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) at: u64,
    pub(super) hash: u64,
}

/// The entries of one shard.
#[derive(Default)]
pub(super) struct Expiry {
    queues: Vec<Queue>,
    odd: BTreeSet<Due>,
}

struct Queue {
    ttl: u64,
    /// In the order of completion. Two completions that read the clock at once may stand in either order; then the first
    /// of them waits for the second, which is due within the same microseconds.
    entries: VecDeque<Due>,
}

impl Expiry {
    /// Notes a record that has completed with this ttl.
    pub(super) fn insert(&mut self, ttl: u64, due: Due) {
        if let Some(queue) = self.queue(ttl) {
            queue.entries.push_back(due);
        } else {
            self.odd.insert(due);
        }
    }

    /// The queue of this ttl, if there is one or one can be made.
    fn queue(&mut self, ttl: u64) -> Option<&mut Queue> {
        let of_ttl = |queue: &Queue| queue.ttl == ttl;
        // A ttl that is not used any more gives its queue away.
        let unused = |queue: &Queue| queue.entries.is_empty();
        let found = self.queues.iter().position(of_ttl);
        let at = match found.or_else(|| self.queues.iter().position(unused)) {
            Some(at) => at,
            None if self.queues.len() < QUEUES => {
                self.queues.push(Queue {
                    ttl,
                    entries: VecDeque::new(),
                });
                self.queues.len() - 1
            }
            None => return None,
        };
        self.queues[at].ttl = ttl;
        Some(&mut self.queues[at])
    }

    /// The earliest entry.
    pub(super) fn first(&self) -> Option<Due> {
        let queued = self.queues.iter().filter_map(|queue| queue.entries.front());
        queued.chain(self.odd.first()).min().copied()
    }

    /// Takes the earliest entry, if it is due.
    pub(super) fn pop(&mut self, now: u64) -> Option<Due> {
        let first = self.first().filter(|due| due.at <= now)?;
        let mut queues = self.queues.iter_mut();
        match queues.find(|queue| queue.entries.front() == Some(&first)) {
            Some(queue) => queue.entries.pop_front(),
            None => self.odd.pop_first(),
        }
    }

    #[cfg(test)]
    pub(super) fn contains(&self, due: Due) -> bool {
        self.odd.contains(&due) || self.queues.iter().any(|queue| queue.entries.contains(&due))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.first().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(at: u64) -> Due {
        Due { at, hash: at * 7 }
    }

    /// Ten ttls: eight have queues, two share the set.
    #[test]
    fn entries_come_out_in_the_order_of_their_expiry_whatever_their_ttl() {
        let mut expiry = Expiry::default();
        let mut expected = Vec::new();
        for completed in 0..20 {
            for ttl in 1..=10 {
                let at = completed * 1_000 + ttl * 137;
                expiry.insert(ttl, due(at));
                expected.push(at);
            }
        }
        assert_eq!(expiry.odd.len(), 40);
        assert!(expiry.contains(due(137)) && !expiry.contains(due(138)));
        expected.sort_unstable();
        let popped: Vec<u64> = std::iter::from_fn(|| expiry.pop(u64::MAX))
            .map(|due| due.at)
            .collect();
        assert_eq!(popped, expected);
        assert!(expiry.is_empty());
    }

    #[test]
    fn nothing_comes_out_before_it_is_due() {
        let mut expiry = Expiry::default();
        expiry.insert(5, due(10));
        assert_eq!(expiry.pop(9), None);
        assert_eq!(expiry.first(), Some(due(10)));
        assert_eq!(expiry.pop(10), Some(due(10)));
        assert_eq!(expiry.pop(10), None);
    }

    #[test]
    fn a_ttl_that_is_not_used_any_more_gives_its_queue_away() {
        let mut expiry = Expiry::default();
        for ttl in 1..=8 {
            expiry.insert(ttl, due(ttl));
        }
        while expiry.pop(u64::MAX).is_some() {}
        expiry.insert(100, due(100));
        assert!(expiry.odd.is_empty());
        assert_eq!(expiry.first(), Some(due(100)));
    }
}
