//! The contract as a model: which answers a store may give, after all that it has answered so far.
//!
//! It is written from the contract's state machine and has its own data, so that store and model do not share their
//! mistakes. Where the contract leaves a choice (whether an expired record still exists), the model accepts either and
//! remembers what the store chose.

use std::{collections::BTreeMap, time::Duration};

use idempotent_runtime::store::{
    Acquisition, ClaimMode, Outcome, Record, RecordState, Token, Write,
};

/// Time is counted in quarters of a tick. Leases and ttls end between whole ticks and time passes in whole ones, so no
/// answer depends on the exact moment of an end.
pub(super) const QUARTERS: u32 = 4;
/// Ten ticks and a quarter.
pub(super) const LEASE: u32 = 41;
/// A hundred ticks and a quarter.
pub(super) const TTL: u32 = 401;

/// All records that may exist, by the number of their key.
#[derive(Debug, Default)]
pub(super) struct Model {
    now: u32,
    rows: BTreeMap<u8, Row>,
    /// All leases so far, each with its key, the newest last.
    leases: Vec<(u8, Token)>,
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
    pub(super) fn advance(&mut self, ticks: u32) {
        self.now += ticks * QUARTERS;
    }

    /// The token of the record's newest lease.
    pub(super) fn holder(&self, key: u8) -> Option<Token> {
        self.rows.get(&key).map(|row| row.token)
    }

    /// The token that the record was leased to before.
    pub(super) fn stale(&self, key: u8) -> Option<Token> {
        let current = self.holder(key);
        let mut leases = self.leases.iter().rev();
        leases
            .find(|(leased, token)| *leased == key && Some(*token) != current)
            .map(|(_, token)| *token)
    }

    pub(super) fn acquired(
        &mut self,
        key: u8,
        fingerprint: u8,
        token: Token,
        take_over: Option<Token>,
        answer: &Acquisition,
        tick: Duration,
    ) {
        let now = self.now;
        if matches!(answer, Acquisition::Acquired { .. }) {
            self.leases.push((key, token));
        }
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
            // The next attempt if the row still exists, and the first if not. A repeated token is not a new lease,
            // but may count as one after its own completion has expired.
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
                "a repetition"
            );
            row.extend(now);
        } else if row.fingerprint != fingerprint {
            let Acquisition::Mismatch { fingerprint } = answer else {
                panic!("the fingerprints differ: {answer:?}");
            };
            assert_eq!(
                *fingerprint.as_bytes(),
                [row.fingerprint; 32],
                "the record's is named"
            );
        } else if let Some(outcome) = &row.outcome {
            assert_eq!(*answer, Acquisition::Completed(outcome.clone()));
        } else if row.lease_until > now {
            let Acquisition::InFlight { remaining, lease } = *answer else {
                panic!("the lease is live: {answer:?}")
            };
            assert_eq!(lease, row.token, "the live lease is named");
            is_left(remaining, row.lease_until - now, tick);
        } else if take_over == Some(row.token) {
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
            let unknown = Acquisition::Unknown {
                lease: row.token,
                mode: ClaimMode::Plain,
            };
            assert_eq!(*answer, unknown, "the claim names {take_over:?}");
        }
    }

    pub(super) fn renewed(&mut self, key: u8, token: Token, answer: Write) {
        let now = self.now;
        self.written(key, token, answer, |row| row.extend(now));
    }

    pub(super) fn abandoned(&mut self, key: u8, token: Token, answer: Write) {
        let now = self.now;
        self.written(key, token, answer, |row| {
            row.lease_until = row.lease_until.min(now);
        });
    }

    pub(super) fn released(&mut self, key: u8, token: Token, answer: Write) {
        let mut released = false;
        self.written(key, token, answer, |_| released = true);
        if released {
            self.rows.remove(&key);
        }
    }

    pub(super) fn completed(&mut self, key: u8, token: Token, outcome: &Outcome, answer: Write) {
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

    pub(super) fn got(&self, key: u8, answer: Option<&Record>, tick: Duration) {
        let row = self.rows.get(&key).filter(|row| !row.expired(self.now));
        let (Some(row), Some(record)) = (row, answer) else {
            assert!(row.is_none() && answer.is_none(), "{answer:?} for {row:?}");
            return;
        };
        assert_eq!(record.attempt, row.attempt);
        is_left(record.expires_in, row.expires - self.now, tick);
        match (&record.state, &row.outcome) {
            (RecordState::Completed(shown), Some(stored)) => assert_eq!(shown, stored),
            (RecordState::InFlight { remaining }, None) => {
                is_left(*remaining, row.lease_until.saturating_sub(self.now), tick);
            }
            _ => panic!("{record:?} for {row:?}"),
        }
    }

    pub(super) fn purged(&mut self, limit: usize, answer: usize) {
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

    /// A write that only the holder of a lease in flight may make.
    fn written(&mut self, key: u8, token: Token, answer: Write, write: impl FnOnce(&mut Row)) {
        let Some(row) = self.rows.get_mut(&key) else {
            assert_eq!(answer, Write::Missing, "there is no record");
            return;
        };
        if answer == Write::Missing {
            assert!(
                row.expired(self.now),
                "the record vanished before its expiry: {row:?}"
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

/// This time is left; up to half a tick may have passed on the store's clock meanwhile.
fn is_left(answer: Duration, quarters: u32, tick: Duration) {
    let exact = tick * quarters / QUARTERS;
    assert!(
        answer <= exact && answer + tick / 2 >= exact,
        "{answer:?} left instead of {exact:?}"
    );
}
