//! A look at the key: first in this process, then in the store, by an acquire or, where nothing may be executed, a read.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    decide::Seen,
    state::{Claiming, Exchange},
};
use crate::{
    fingerprint::Difference,
    policy::OnCrash,
    store::{Acquisition, Claim, Record, RecordState, Token},
};

impl Exchange {
    /// Looks at the key, wherever its record may be.
    ///
    /// On return with [`Seen::Acquired`] the exchange is admitted.
    pub(super) async fn look(&mut self, claiming: &mut Claiming) -> Seen {
        if claiming.elsewhere.is_some() {
            return Box::pin(self.look_at_both(claiming)).await;
        }
        self.look_at(claiming).await
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
        if let Some(seen) = self.look_here(&claiming.claim) {
            return seen;
        }
        if !self.core.room.has_place(self.detach.caller()) {
            return Box::pin(self.read(claiming, Seen::NoRoom)).await;
        }
        let Some(admission) = self.core.in_flight.admit() else {
            return Box::pin(self.read(claiming, Seen::ShutDown)).await;
        };
        // From here on the claim may exist: this future must run to its end.
        self.detach.must_finish();
        claiming.doubt.sending(&claiming.claim);
        let (in_flight, key) = (&self.core.in_flight, claiming.claim.key);
        let follow = || in_flight.lease(&key).is_some();
        let reply = self.core.store.acquire(&claiming.claim, follow).await;
        let lost = matches!(&reply.result, Err(error) if error.is_transient());
        claiming.doubt.returned(reply.unanswered || lost);
        let seen = match reply.result {
            Ok(Acquisition::Acquired { attempt }) => {
                claiming.doubt.acquired();
                self.admission = Some(admission);
                let sent = reply.sent;
                return Seen::Acquired { attempt, sent };
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
            Ok(Acquisition::Unknown { lease }) if self.core.in_flight.is_own(&lease) => {
                Seen::InFlight {
                    remaining: Duration::from_millis(100),
                }
            }
            Ok(Acquisition::Unknown { lease }) => Seen::Lapsed { lease },
            Err(error) => self
                .look_here(&claiming.claim)
                .unwrap_or(Seen::Failed(error)),
        };
        // What is in doubt is withdrawn by a task of its own, also if this future is dropped.
        self.detach.may_drop();
        seen
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
        match (record.state, &self.settings.on_crash) {
            (RecordState::Completed(outcome), _) => Some(Seen::Completed(outcome)),
            (RecordState::InFlight { remaining }, _) if !remaining.is_zero() => {
                Some(Seen::InFlight { remaining })
            }
            (RecordState::InFlight { .. }, OnCrash::Refuse) => Some(Seen::InDoubt),
            (RecordState::InFlight { .. }, _) => None,
        }
    }

    /// When waiting ends, counted from the first wait.
    pub(super) fn deadline(&mut self) -> Instant {
        let timeout = self.settings.wait_timeout;
        *self
            .deadline
            .get_or_insert_with(|| Instant::now() + timeout)
    }
}
