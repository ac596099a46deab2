//! A look at the key while the secret is rotated: its record may be under either of two identities.
//!
//! Each process claims the record of its own secret. While a deploy exchanges the two secrets, some processes claim one
//! record and some the other, and no operation of a store covers both. They exclude each other as two flags do: each claims
//! its own record first and reads the other one after that. Of two that claim, the later one sees the claim of the first,
//! whichever it is, and gives its own back.
//!
//! 1. A key that this process executes is followed, under whichever secret.
//! 2. The record of the other secret is read. If it is there, it is the one, unless the own one knows more: an outcome
//!    counts more than a claim, and a live claim more than a lapsed one, which may be one that was to be given back. Of two
//!    live claims one is about to be given back: a request is compared with that of its own kind.
//! 3. Else the own record is claimed.
//! 4. Whoever has claimed a record reads the one of the other secret again. Only if there is none, the handler starts. Of
//!    two that see each other, the one with the lower store key waits a moment for the other one to give way.
//!
//! A claim goes to the other secret's record only to take it over: the attempt goes on rising there, and downstream keys
//! stay as they were. A claim that is given back was never used. The next one has a token of its own, so that a late
//! repetition of the release cannot end it.

use std::{mem, time::Duration};

use tokio::time::sleep;

use super::{
    decide::Seen,
    state::{Claiming, Exchange},
};
use crate::{
    fingerprint::Fingerprint,
    observe,
    scope::StoreKey,
    store::{Claim, Record, RecordState, Token},
};

/// How soon a key is looked at again that another request is about to give back.
const MOMENT: Duration = Duration::from_millis(100);
/// How often, and how long at a time, a claim waits for one that it met to give way.
const MEETING: (usize, Duration) = (4, Duration::from_millis(20));

impl Exchange {
    /// Looks at both records. On return with [`Seen::Acquired`] the exchange is admitted, and there is no other record.
    pub(super) async fn look_at_both(&mut self, claiming: &mut Claiming) -> Seen {
        let Some(elsewhere) = claiming.elsewhere.as_deref().copied() else {
            return self.look_at(claiming).await;
        };
        if self.core.in_flight.lease(&elsewhere.key).is_some() {
            self.go_elsewhere(claiming);
        }
        if let Some(seen) = self.look_here(&claiming.claim) {
            return seen;
        }
        if self.core.in_flight.is_closed() {
            return Seen::ShutDown;
        }
        let (own, other) = elsewhere.own_and_other(&claiming.claim);
        let there = match self.core.store.get(&other).await {
            Ok(there) => there,
            Err(_) if !self.core.room.has_place(self.caller) => return Seen::NoRoom,
            Err(error) => return Seen::Failed(error),
        };
        let Some(there) = there else {
            self.go_to(own, claiming);
            return self.claim_alone(claiming, other).await;
        };
        let asked = elsewhere.own_fingerprint(&claiming.claim);
        if let Some(own_record) = self.better(&own, &asked, &there).await {
            self.go_to(own, claiming);
            // It is not lapsed, so it has an answer.
            return self
                .seen_in(own_record, &claiming.claim)
                .unwrap_or(Seen::InDoubt);
        }
        self.go_to(other, claiming);
        match self.seen_in(there, &claiming.claim) {
            Some(seen) => seen,
            None => self.take_over_there(claiming, own).await,
        }
    }

    /// The own record, if it knows more than the other one, or as much and of a request like this one.
    async fn better(&self, own: &StoreKey, asked: &Fingerprint, there: &Record) -> Option<Record> {
        if rank(&there.state) == Rank::Completed {
            return None;
        }
        let own = match self.core.store.get(own).await {
            Ok(own) => own?,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "only the record of the other secret was read");
                return None;
            }
        };
        let (here, there) = (rank(&own.state), rank(&there.state));
        let both_live = here == Rank::InFlight && there == Rank::InFlight;
        (here > there || (both_live && own.fingerprint == *asked)).then_some(own)
    }

    /// The lease under the other secret has lapsed: asks which it was, or takes it over.
    async fn take_over_there(&mut self, claiming: &mut Claiming, own: StoreKey) -> Seen {
        let takes_over = claiming.claim.take_over.is_some();
        match self.claim_alone(claiming, own).await {
            // It was released meanwhile: nothing new begins under the other secret.
            Seen::Acquired { .. } if !takes_over => {
                self.give_back(claiming);
                Seen::InFlight { remaining: MOMENT }
            }
            Seen::Acquired { attempt, sent } => {
                tracing::info!(
                    key = %claiming.claim.key,
                    "a crashed execution goes on under the other secret: its record lives for another ttl"
                );
                Seen::Acquired { attempt, sent }
            }
            // The key was seen: nothing may execute without the store.
            Seen::Failed(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "a crashed execution cannot be taken over");
                Seen::InDoubt
            }
            seen => seen,
        }
    }

    /// Claims the record that the claim names, and keeps it only if there is no other one.
    async fn claim_alone(&mut self, claiming: &mut Claiming, elsewhere: StoreKey) -> Seen {
        let acquired = self.look_at(claiming).await;
        if !matches!(acquired, Seen::Acquired { .. }) {
            return acquired;
        }
        // The claim exists.
        self.must_finish();
        let seen = self.met(claiming, &elsewhere).await;
        let Some(seen) = seen else { return acquired };
        self.give_back(claiming);
        seen
    }

    /// Why a claim has to be given back; `None` if there is no other record.
    async fn met(&self, claiming: &Claiming, elsewhere: &StoreKey) -> Option<Seen> {
        let (mut left, pause) = MEETING;
        loop {
            let record = match self.core.store.get(elsewhere).await {
                Ok(Some(record)) => record,
                Ok(None) => return None,
                Err(error) => return Some(Seen::Failed(error)),
            };
            match rank(&record.state) {
                // Two executions crashed, one under each secret, and nobody knows which of them began.
                Rank::Lapsed if claiming.doubt.must_abandon() => return Some(Seen::InDoubt),
                Rank::InFlight if claiming.claim.key < *elsewhere && left > 0 => left -= 1,
                _ => break,
            }
            sleep(pause).await;
        }
        Some(Seen::InFlight { remaining: MOMENT })
    }

    /// Gives a claim back under which nothing began, and makes another one.
    fn give_back(&mut self, claiming: &mut Claiming) {
        self.admission = None;
        self.renew_token(claiming);
        self.may_drop();
    }

    fn go_to(&self, key: StoreKey, claiming: &mut Claiming) {
        if claiming.claim.key != key {
            self.go_elsewhere(claiming);
        }
    }

    /// Has the claim name the other one of the two records. What was claimed before is given back.
    fn go_elsewhere(&self, claiming: &mut Claiming) {
        let Some(elsewhere) = claiming.elsewhere.as_deref_mut() else {
            return;
        };
        mem::swap(&mut claiming.claim.key, &mut elsewhere.key);
        mem::swap(&mut claiming.claim.fingerprint, &mut elsewhere.fingerprint);
        elsewhere.is_own = !elsewhere.is_own;
        observe::record_key(&claiming.claim.key);
        self.renew_token(claiming);
    }

    /// Another token, about which nothing is in doubt. What is in doubt about the one before is withdrawn.
    fn renew_token(&self, claiming: &mut Claiming) {
        claiming.claim = Claim {
            token: Token::random(),
            take_over: None,
            ..claiming.claim.clone()
        };
        claiming.doubt = self.no_doubt(&claiming.claim);
    }
}

/// What a record knows, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Lapsed,
    InFlight,
    Completed,
}

fn rank(state: &RecordState) -> Rank {
    match state {
        RecordState::InFlight { remaining } if remaining.is_zero() => Rank::Lapsed,
        RecordState::InFlight { .. } => Rank::InFlight,
        RecordState::Completed(_) => Rank::Completed,
    }
}
