//! The contract as a model: what a store may answer, given all it has answered so far.
//!
//! Written from the contract's state machine and on its own data, so that store and model do not share their
//! mistakes. Where the contract leaves a choice, whether an expired row is still there, the model accepts
//! either and remembers what the store chose.

use std::{collections::BTreeMap, time::Duration};

use idempotent_runtime::store::{Acquisition, Outcome, Record, RecordState, Token, Write};

/// Time is counted in quarters of a tick. Leases and retentions end between whole ticks and time passes in
/// whole ones, so no answer hangs on the moment in which something ends.
pub(crate) const QUARTERS: u32 = 4;
/// Ten ticks and a quarter.
pub(crate) const LEASE: u32 = 41;
/// A hundred ticks and a quarter.
pub(crate) const TTL: u32 = 401;

/// All records there may be, by the number of their key.
#[derive(Debug, Default)]
pub(crate) struct Model {
    now: u32,
    rows: BTreeMap<u8, Row>,
}

#[derive(Clone, Debug)]
struct Row {
    fingerprint: u8,
    token: Token,
    attempt: u32,
    lease_until: u32,
    expires: u32,
    outcome: Option<Outcome>,
}

impl Model {
    pub(crate) fn advance(&mut self, ticks: u32) {
        self.now += ticks * QUARTERS;
    }

    /// The token that a record was last leased to.
    pub(crate) fn holder(&self, key: u8) -> Option<Token> {
        self.rows.get(&key).map(|row| row.token)
    }

    pub(crate) fn acquired(
        &mut self,
        key: u8,
        fingerprint: u8,
        token: Token,
        take_over: bool,
        answer: &Acquisition,
        tick: Duration,
    ) {
        let now = self.now;
        let leased = Row {
            fingerprint,
            token,
            attempt: 1,
            lease_until: now + LEASE,
            expires: now + LEASE + TTL,
            outcome: None,
        };
        let Some(row) = self.rows.get_mut(&key) else {
            assert_eq!(
                *answer,
                Acquisition::Acquired { attempt: 1 },
                "the key is new"
            );
            self.rows.insert(key, leased);
            return;
        };
        let repeated = row.token == token && row.outcome.is_none();
        if row.expired(now) {
            let Acquisition::Acquired { attempt } = *answer else {
                panic!("the record has expired: {answer:?}");
            };
            // As the row says if it is still there, and from the beginning if not. A token that comes again
            // is no new lease, though after its own completion expired it may count as one.
            let (same, next) = (attempt == row.attempt, attempt == row.attempt + 1);
            let allowed = attempt == 1 || (row.token == token && same) || (!repeated && next);
            assert!(allowed, "attempt {attempt} after {}", row.attempt);
            *row = Row { attempt, ..leased };
        } else if repeated {
            assert_eq!(
                *answer,
                Acquisition::Acquired {
                    attempt: row.attempt
                },
                "its own lease"
            );
            row.extend(now);
        } else if row.fingerprint != fingerprint {
            assert_eq!(*answer, Acquisition::Mismatch);
        } else if let Some(outcome) = &row.outcome {
            assert_eq!(*answer, Acquisition::Completed(outcome.clone()));
        } else if row.lease_until > now {
            let Acquisition::InFlight { remaining } = *answer else {
                panic!("the lease is live: {answer:?}")
            };
            about(remaining, row.lease_until - now, tick);
        } else if take_over {
            assert_eq!(
                *answer,
                Acquisition::Acquired {
                    attempt: row.attempt + 1
                },
                "taken over"
            );
            *row = Row {
                attempt: row.attempt + 1,
                ..leased
            };
        } else {
            assert_eq!(*answer, Acquisition::Unknown);
        }
    }

    pub(crate) fn renewed(&mut self, key: u8, token: Token, answer: Write) {
        let now = self.now;
        self.written(key, token, answer, |row| row.extend(now));
    }

    pub(crate) fn abandoned(&mut self, key: u8, token: Token, answer: Write) {
        let now = self.now;
        self.written(key, token, answer, |row| {
            row.lease_until = row.lease_until.min(now);
        });
    }

    pub(crate) fn released(&mut self, key: u8, token: Token, answer: Write) {
        let mut released = false;
        self.written(key, token, answer, |_| released = true);
        if released {
            self.rows.remove(&key);
        }
    }

    pub(crate) fn completed(&mut self, key: u8, token: Token, outcome: &Outcome, answer: Write) {
        let now = self.now;
        let repeated = |row: &Row| row.token == token && row.outcome.as_ref() == Some(outcome);
        if answer == Write::Applied && self.rows.get(&key).is_some_and(repeated) {
            return;
        }
        self.written(key, token, answer, |row| {
            row.outcome = Some(outcome.clone());
            row.expires = now + TTL;
        });
    }

    pub(crate) fn shown(&self, key: u8, answer: Option<&Record>, tick: Duration) {
        let row = self.rows.get(&key).filter(|row| !row.expired(self.now));
        let (Some(row), Some(record)) = (row, answer) else {
            assert!(row.is_none() && answer.is_none(), "{answer:?} for {row:?}");
            return;
        };
        assert_eq!(record.attempt, row.attempt);
        about(record.expires_in, row.expires - self.now, tick);
        match (&record.state, &row.outcome) {
            (RecordState::Completed(shown), Some(stored)) => assert_eq!(shown, stored),
            (RecordState::InFlight { remaining }, None) => {
                about(*remaining, row.lease_until.saturating_sub(self.now), tick);
            }
            _ => panic!("{record:?} for {row:?}"),
        }
    }

    pub(crate) fn purged(&mut self, limit: usize, answer: usize) {
        let expired = self
            .rows
            .values()
            .filter(|row| row.expired(self.now))
            .count();
        assert!(
            answer <= limit && answer <= expired,
            "purged {answer} of {expired}, at most {limit}"
        );
        if answer < limit {
            self.rows.retain(|_, row| !row.expired(self.now));
        }
    }

    /// A write that only the owner of an execution in flight may make.
    fn written(&mut self, key: u8, token: Token, answer: Write, write: impl FnOnce(&mut Row)) {
        let Some(row) = self.rows.get_mut(&key) else {
            assert_eq!(answer, Write::Missing, "there is no record");
            return;
        };
        if answer == Write::Missing {
            assert!(
                row.expired(self.now),
                "a record vanished before its expiry: {row:?}"
            );
            self.rows.remove(&key);
            return;
        }
        let owner = row.token == token && row.outcome.is_none();
        assert_eq!(
            answer,
            if owner { Write::Applied } else { Write::Fenced },
            "{row:?}"
        );
        if owner {
            write(row);
        }
    }
}

impl Row {
    fn extend(&mut self, now: u32) {
        self.lease_until = now + LEASE;
        self.expires = now + LEASE + TTL;
    }

    fn expired(&self, now: u32) -> bool {
        self.expires <= now && (self.outcome.is_some() || self.lease_until <= now)
    }
}

/// The time that is left, of which a store's clock may have used up half a tick meanwhile.
fn about(answer: Duration, quarters: u32, tick: Duration) {
    let exact = tick * quarters / QUARTERS;
    assert!(
        answer <= exact && answer + tick / 2 >= exact,
        "{answer:?} left instead of {exact:?}"
    );
}
