//! A look at the key: first in this process, then in the store, by an acquire or, where nothing may be executed, a read.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    decide::Seen,
    state::{Claiming, Exchange},
};
use crate::{
    engine::core::{in_flight::Admission, store_client::AcquireReply},
    fingerprint::Difference,
    policy::OnCrash,
    store::{Acquisition, Claim, ClaimMode, Record, RecordState, StoreError, Token},
};

/// How far the key was looked at.
pub(super) enum Looked {
    Ended(Seen),
    /// There are two records to look at.
    Both,
    /// The record is to be read only. A key that is free, or would have to be taken over, is answered as this.
    Reading(Seen),
    /// The store is to be asked for the key, or again: an acquire that was sent at this instant failed.
    Acquiring(Admission, Option<(Instant, StoreError)>),
}

impl Exchange {
    /// Looks at the key, wherever its record may be.
    ///
    /// On return with [`Seen::Acquired`] the exchange is admitted.
    pub(super) async fn look(&mut self, claiming: &mut Claiming) -> Seen {
        let looked = self.look_now(claiming);
        self.look_on(claiming, looked).await
    }

    /// Looks at the key as far as nothing waits.
    pub(super) fn look_now(&mut self, claiming: &mut Claiming) -> Looked {
        if claiming.elsewhere.is_some() {
            return Looked::Both;
        }
        self.look_at_now(claiming)
    }

    /// Looks at the record that the claim names.
    ///
    /// 1. A key that this process executes, or whose outcome it still has to store, is followed here: no acquire is sent,
    ///    whatever became of the record.
    /// 2. Without room for an execution, and while the engine shuts down, the store is read only.
    /// 3. Else it is asked for the key.
    ///
    /// On return with [`Seen::Acquired`] the exchange is admitted.
    pub(super) async fn look_at(&mut self, claiming: &mut Claiming) -> Seen {
        let looked = self.look_at_now(claiming);
        self.look_on(claiming, looked).await
    }

    fn look_at_now(&mut self, claiming: &mut Claiming) -> Looked {
        if let Some(seen) = self.look_here(&claiming.claim) {
            return Looked::Ended(seen);
        }
        if !self.core.room.has_place(self.caller) {
            return Looked::Reading(Seen::NoRoom);
        }
        let Some(admission) = self.core.in_flight.admit() else {
            return Looked::Reading(Seen::ShutDown);
        };
        let sent = Instant::now();
        let Some(result) = self.core.store.try_acquire(&claiming.claim) else {
            return Looked::Acquiring(admission, None);
        };
        claiming.doubt.sending(&claiming.claim, sent);
        match result {
            Err(error) if error.is_transient() => Looked::Acquiring(admission, Some((sent, error))),
            result => {
                let reply = AcquireReply {
                    result,
                    sent,
                    unanswered: false,
                };
                Looked::Ended(self.acquired(claiming, admission, reply))
            }
        }
    }

    /// Looks at the key to the end.
    pub(super) async fn look_on(&mut self, claiming: &mut Claiming, looked: Looked) -> Seen {
        let (admission, failed) = match looked {
            Looked::Ended(seen) => return seen,
            Looked::Both => return Box::pin(self.look_at_both(claiming)).await,
            Looked::Reading(otherwise) => {
                return Box::pin(self.read(claiming, otherwise)).await;
            }
            Looked::Acquiring(admission, failed) => (admission, failed),
        };
        // From here on the claim may exist: this future must run to its end.
        self.must_finish();
        claiming.doubt.sending(&claiming.claim, Instant::now());
        let (store, in_flight) = (&self.core.store, &self.core.in_flight);
        let claim = &claiming.claim;
        let follow = || in_flight.lease(&claim.key).is_some();
        let reply = match failed {
            None => store.acquire(claim, follow).await,
            Some((sent, error)) => Box::pin(store.acquire_again(claim, sent, error, follow)).await,
        };
        let seen = self.acquired(claiming, admission, reply);
        if !matches!(seen, Seen::Acquired { .. }) {
            // What is in doubt is withdrawn by a task of its own, also if this future is dropped.
            self.may_drop();
        }
        seen
    }

    /// What the answer to an acquire shows.
    fn acquired(
        &mut self,
        claiming: &mut Claiming,
        admission: Admission,
        reply: AcquireReply,
    ) -> Seen {
        let lost = matches!(&reply.result, Err(error) if error.is_transient());
        claiming.doubt.returned(reply.unanswered || lost);
        match reply.result {
            Ok(Acquisition::Acquired { attempt }) => {
                claiming.doubt.acquired();
                self.admission = Some(admission);
                let sent = reply.sent;
                Seen::Acquired { attempt, sent }
            }
            // No end of a doubt: the record may expire before a late copy of the acquire arrives.
            Ok(Acquisition::Completed(outcome)) => Seen::Completed(outcome),
            Ok(Acquisition::Mismatch { fingerprint: first }) => {
                let own = claiming.claim.fingerprint;
                // The store found them different.
                let difference = own.difference(&first).unwrap_or(Difference::Request);
                Seen::Mismatch(difference)
            }
            Ok(Acquisition::InFlight { remaining, .. }) => Seen::InFlight { remaining },
            // A request of this process made that lease, and goes on with it or gives it back.
            Ok(Acquisition::Unknown { lease, .. }) if self.core.in_flight.is_own(&lease) => {
                Seen::InFlight {
                    remaining: Duration::from_millis(100),
                }
            }
            // What a plain execution left in flight may have had its effect.
            Ok(Acquisition::Unknown { mode, .. })
                if self.settings().in_transaction() && mode == ClaimMode::Plain =>
            {
                Seen::InDoubt
            }
            Ok(Acquisition::Unknown { lease, .. }) => Seen::Lapsed { lease },
            Err(error) => self
                .look_here(&claiming.claim)
                .unwrap_or(Seen::Failed(error)),
        }
    }

    /// Names the lapsed lease, and looks at the key again.
    pub(super) async fn take_over(&mut self, claiming: &mut Claiming, lease: Token) -> Seen {
        claiming.claim.take_over = Some(lease);
        let seen = self.look(claiming).await;
        claiming.claim.take_over = None;
        seen
    }

    /// What this process itself knows of the key.
    pub(super) fn look_here(&self, claim: &Claim) -> Option<Seen> {
        let lease = self.core.in_flight.lease(&claim.key)?;
        let difference = claim.fingerprint.difference(&lease.fingerprint());
        Some(if let Some(difference) = difference {
            Seen::Mismatch(difference)
        } else if lease.is_in_doubt() {
            Seen::InDoubt
        } else {
            Seen::InFlight {
                remaining: lease.remaining(),
            }
        })
    }

    /// Reads the record without claiming it. A key that is free, or would have to be taken over, is answered as `otherwise`.
    async fn read(&self, claiming: &Claiming, otherwise: Seen) -> Seen {
        if self.core.in_flight.is_closed() {
            return Seen::ShutDown;
        }
        let claim = &claiming.claim;
        let record = match self.core.store.get(&claim.key).await {
            Ok(Some(record)) => record,
            Ok(None) => return otherwise,
            // Neither is there a way to execute.
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the record cannot be read"
                );
                return otherwise;
            }
        };
        self.seen_in(record, claim).unwrap_or(otherwise)
    }

    /// What a record shows that was only read; `None` if it has to be taken over.
    pub(super) fn seen_in(&self, record: Record, claim: &Claim) -> Option<Seen> {
        if let Some(difference) = claim.fingerprint.difference(&record.fingerprint) {
            return Some(Seen::Mismatch(difference));
        }
        match (record.state, &self.settings().on_crash) {
            (RecordState::Completed(outcome), _) => Some(Seen::Completed(outcome)),
            (RecordState::InFlight { remaining }, _) if !remaining.is_zero() => {
                Some(Seen::InFlight { remaining })
            }
            (RecordState::InFlight { .. }, OnCrash::Refuse) => Some(Seen::InDoubt),
            (RecordState::InFlight { .. }, _)
                if self.settings().in_transaction() && record.mode == ClaimMode::Plain =>
            {
                Some(Seen::InDoubt)
            }
            (RecordState::InFlight { .. }, _) => None,
        }
    }

    /// When waiting ends, counted from the first wait.
    pub(super) fn deadline(&mut self) -> Instant {
        let timeout = self.settings().wait_timeout;
        *self
            .deadline
            .get_or_insert_with(|| Instant::now() + timeout)
    }
}
