//! [`RetryBudget`]: how often an operation is repeated, and after which errors.

use super::{dialect::Dialect, error::Repeat};
use crate::store::error::{StoreError, StoreErrorKind};

/// How often a step is started because it lost a race. A lost race means that another contender changed the record, so
/// that even 64 contenders need two or three rounds.
const ROUNDS: usize = 8;

/// The repetitions that one operation has left.
pub(super) struct RetryBudget {
    rounds: usize,
    /// How many dead connections the operation met. They are bounded by the size of the pool, not by the rounds.
    dead: usize,
    /// Whether a statement may be repeated that was sent and not answered.
    after_loss: bool,
    last: Option<sqlx::Error>,
}

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self {
            rounds: ROUNDS,
            dead: 0,
            after_loss: true,
            last: None,
        }
    }

    pub(super) fn sent_once() -> Self {
        Self {
            after_loss: false,
            ..Self::new()
        }
    }

    /// Whether a session ended before its answer came.
    pub(super) fn met_a_dead_connection(&self) -> bool {
        self.dead > 0
    }

    /// Accepts an error after which the step may be repeated, and returns any other.
    pub(super) fn absorb<D: Dialect>(
        &mut self,
        connections: usize,
        error: sqlx::Error,
    ) -> Result<(), StoreError> {
        let verdict = D::classify(&error);
        match verdict.repeat {
            // The answer was lost with a dead connection: the statement may have been executed, whatever the server
            // answers to the repetition.
            Repeat::No if self.dead > 0 => {
                let error =
                    StoreError::new(D::STORE, StoreErrorKind::Unavailable).with_source(error);
                return Err(error);
            }
            Repeat::Raced => {}
            Repeat::Ended if !self.has_met(connections) => {}
            Repeat::Lost if self.after_loss && !self.has_met(connections) => {}
            _ => return Err(StoreError::new(D::STORE, verdict.kind).with_source(error)),
        }
        self.last = Some(error);
        Ok(())
    }

    /// Counts one more dead connection, and tells whether the operation has met all of them.
    fn has_met(&mut self, connections: usize) -> bool {
        self.dead += 1;
        self.rounds += 1;
        self.dead > connections
    }

    /// Counts a repetition; an error if none is left.
    pub(super) fn spend_round<D: Dialect>(&mut self) -> Result<(), StoreError> {
        self.rounds -= 1;
        if self.rounds > 0 {
            return Ok(());
        }
        Err(self.unanswered::<D>())
    }

    /// The error of an operation that may have been applied or not.
    pub(super) fn unanswered<D: Dialect>(&mut self) -> StoreError {
        let error = StoreError::new(D::STORE, StoreErrorKind::Unavailable);
        match self.last.take() {
            Some(last) => error.with_source(last),
            None => error.with_source("the operation lost every race for the record: repeat it"),
        }
    }
}
