//! What the engine does, by the contract's sections 3, 4 and 10.
//!
//! - `claim`: from the arrival to the claim, the wait or the answer of the store
//! - `execution`: the handler, the recovery function, `complete`
//! - `ending`: time-outs, releases, answers, and what goes on after the answer
//!
//! Each rule stands where it is applied, as `rules.…`.

mod claim;
mod ending;
mod execution;

pub(crate) use ending::Ending;

use crate::{
    record::{Operation, Reply},
    request::{RequestId, Stage},
    system::System,
    world::World,
};

/// What a recovery function says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The handler had no effect.
    NotExecuted,
    /// It had, and this is its outcome.
    Completed,
    /// The function does not know.
    StillUnknown,
}

impl System {
    /// The engine receives the reply to the request's operation.
    pub(crate) fn receive(&self, world: &mut World, id: RequestId, reply: Reply) {
        match world[id].stage {
            Stage::Acquiring { .. } => self.acquire_replied(world, id, reply),
            Stage::Completing | Stage::StoringLate => self.complete_replied(world, id, reply),
            Stage::Releasing(answer) => self.given_back(world, id, reply, answer, Ending::Released),
            Stage::Abandoning(answer) => {
                self.given_back(world, id, reply, answer, Ending::Abandoned);
            }
            _ => {}
        }
    }

    /// Whether another request of this process executes the key.
    pub(crate) fn process_executes(&self, world: &World, id: RequestId) -> bool {
        world.neighbours(id).any(|(_, other)| match other.stage {
            Stage::StoringLate => self.rules.follow_until_outcome_is_stored,
            _ => other.executes(),
        })
    }

    /// Whether an execution of this process could not learn whether its outcome is stored.
    pub(crate) fn ended_in_doubt(&self, world: &World, id: RequestId) -> bool {
        let in_doubt = world
            .same_key_beside(id)
            .any(|(_, other)| other.stage == Stage::StoringLate);
        self.rules.duplicates_hear_the_doubt && in_doubt
    }

    /// Whether this token is abandoned where others are released.
    pub(crate) fn abandons(&self, world: &World, id: RequestId) -> bool {
        self.rules.abandon_after_take_over && world[id].asked_take_over
    }
}

/// What the operation is that a request waits for.
pub(crate) fn operation(world: &World, id: RequestId) -> Operation {
    match world[id].stage {
        Stage::Acquiring { .. } => Operation::Acquire(world[id].take_over),
        Stage::Releasing(_) => Operation::Release,
        Stage::Abandoning(_) => Operation::Abandon,
        _ => Operation::Complete,
    }
}
