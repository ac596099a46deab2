//! Claims of a key whose record another transaction has locked.
//!
//! A handler's transaction locks its record from the completion to the end of COMMIT, and for longer if its process is
//! stopped in between. A claim that met the lock would wait for it, on a connection that others need, and fail: but
//! whoever has the lock executes or completes, so the answer is known without it. It is that of the record as it is read,
//! and *in flight* where the record alone would let the claim go on.

use super::{
    dialect::Dialect,
    operations::{Access, Records},
    row::{Assessment, Row},
    statement::{Parameter, Values},
};
use crate::store::record::{Acquisition, Claim, ClaimMode};

impl<D: Dialect, A: Access<D>> Records<'_, D, A> {
    /// The answer to a claim that would wait for a lock; `None` if it is to be made.
    ///
    /// An error is none of the claim's: it is made, and says itself what is wrong.
    pub(super) async fn look_first(&mut self, claim: &Claim) -> Option<Acquisition> {
        if !D::LOCKS_RECORDS {
            return None;
        }
        if claim.take_over.is_some() {
            let values = Values::new().key(&claim.key);
            let probed = self.access.fetch(&self.statements.unlocked, &values).await;
            return match probed {
                Err(error) if D::is_locked(&error) => self.look_behind_the_lock(claim).await,
                _ => None,
            };
        } else if D::CLAIMS_WAIT && claim.mode == ClaimMode::Transactional {
            return self.look_decided(claim).await;
        }
        None
    }

    /// The answer to a claim that the record alone decides.
    pub(super) async fn look_decided(&mut self, claim: &Claim) -> Option<Acquisition> {
        match self.found(claim).await?.assess(claim).ok()? {
            Assessment::Decided(acquisition) => Some(acquisition),
            Assessment::Own | Assessment::Free => None,
        }
    }

    /// The answer to a claim that met a lock.
    pub(super) async fn look_behind_the_lock(&mut self, claim: &Claim) -> Option<Acquisition> {
        self.found(claim).await?.behind_a_lock(claim).ok()?
    }

    async fn found(&mut self, claim: &Claim) -> Option<Row> {
        let values = Values::claim(claim).int(Parameter::Clock, self.clock);
        self.read(&values).await.ok()?
    }
}
