//! What must never happen, as judged by an observer that sees everything.
//!
//! Nothing that the engine or the store does depends on this file. It receives each write, start and answer, and
//! checks each state.

use std::fmt;

use crate::{
    record::{Operation, Record, Reply},
    request::{Answer, Execution, RequestId, Stage},
    rules::Policy,
    world::World,
};

/// What must hold in every state. The names are those of the contract, section 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invariant {
    /// I1.
    OneCurrentToken,
    /// I2.
    OneStart,
    /// I3.
    AttemptsRise,
    /// I4.
    OneOutcome,
    /// I5.
    CompletionStays,
    /// I6.
    StaleTokenChangesNothing,
    /// I7.
    LiveLeaseIsKept,
    /// I8.
    OutcomesStayWithTheirPayload,
    /// I9.
    LateCompletionSucceeds,
    /// I10.
    NothingStartedIsReleased,
    /// I12.
    NoStartWithoutClaim,
    /// I13.
    CompletedStaysCompleted,
    /// Section 4, doubt.
    NoKeyBlocked,
    /// Section 4: while a process executes a key, nothing else starts there.
    OneStartPerProcess,
    /// Section 4: a process does not take over from itself.
    NoTakeOverFromItself,
    /// Section 4: a process does not call unknown what it executes.
    OwnExecutionIsKnown,
    /// Section 4: a request that gave its key back says so.
    ReleaseIsNotUnknown,
    /// Section 10: duplicates hear the same truth.
    DoubtIsShared,
    /// L1.
    WaitersReturn,
    /// L1, while the store answers.
    AnswerWithinReach,
    /// L2.
    OutcomeWithinReach,
}

impl fmt::Display for Invariant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::OneCurrentToken => "I1: a live lease is never replaced by another",
            Self::OneStart => "I2: with `refuse`, a second start needs a release between",
            Self::AttemptsRise => "I3: each start has a higher attempt than those before it",
            Self::OneOutcome => "I4: all clients that hear an outcome hear the same one",
            Self::CompletionStays => "I5: an acknowledged outcome is there until it expires",
            Self::StaleTokenChangesNothing => "I6: a stale token changes nothing",
            Self::LiveLeaseIsKept => "I7: a record with a live lease is never purged",
            Self::OutcomesStayWithTheirPayload => {
                "I8: no outcome is shown to a request that asks for something else"
            }
            Self::LateCompletionSucceeds => "I9: a late completion by the current token succeeds",
            Self::NothingStartedIsReleased => "I10: what may have had its effect is never released",
            Self::NoStartWithoutClaim => {
                "I12: no handler starts before the store granted its claim"
            }
            Self::CompletedStaysCompleted => {
                "I13: a completed record does not go back in flight before it expires"
            }
            Self::NoKeyBlocked => "no key stays blocked for its ttl by what never executed",
            Self::OneStartPerProcess => "a process does not start a key that it is executing",
            Self::NoTakeOverFromItself => {
                "a process does not take a key over from an execution of its own"
            }
            Self::OwnExecutionIsKnown => {
                "a process does not say `outcome_unknown` of what it is executing"
            }
            Self::ReleaseIsNotUnknown => {
                "a request that did nothing does not hear `outcome_unknown`"
            }
            Self::DoubtIsShared => {
                "duplicates of an execution in doubt hear `outcome_unknown`, not `conflict`"
            }
            Self::WaitersReturn => "L1: everybody returns even if the store answers nothing more",
            Self::AnswerWithinReach => {
                "L1: while the store answers, nobody has to wait for a deadline"
            }
            Self::OutcomeWithinReach => {
                "L2: a later request can get an outcome before the record expires"
            }
        })
    }
}

/// One operation that the store executed.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// Under whose token.
    pub sender: RequestId,
    /// What it asked for.
    pub operation: Operation,
    /// The record before.
    pub before: Option<Record>,
    /// What the store answered.
    pub reply: Reply,
}

/// Judges what the store did. `world` is the state after it.
pub fn judge_write(world: &mut World, policy: Policy, write: Write) {
    let Some(before) = write.before else { return };
    let after = world.record;
    let changed = after != write.before;
    let replaced = changed && after.is_none_or(|after| after.token != before.token);
    let ours = before.token == write.sender;
    match write.operation {
        Operation::Acquire(_) if replaced => judge_lease(world, before, write.sender),
        Operation::Acquire(_) => {}
        _ if changed && !ours => world.breaks(Invariant::StaleTokenChangesNothing),
        Operation::Release if changed && may_have_effect(world, write.sender) => {
            world.breaks(Invariant::NothingStartedIsReleased);
        }
        Operation::Complete if policy == Policy::Refuse && ours && write.reply == Reply::Fenced => {
            world.breaks(Invariant::LateCompletionSucceeds);
        }
        _ => {}
    }
    let reopened = after.is_none_or(|after| after.in_flight());
    if before.outcome.is_some() && before.expiry > 0 && reopened {
        world.breaks(Invariant::CompletedStaysCompleted);
    }
}

/// Judges a lease that replaced another.
fn judge_lease(world: &mut World, before: Record, sender: RequestId) {
    let old = world[before.token];
    let attempt = world.record.map_or(0, |after| after.attempt);
    if before.live() {
        world.breaks(if before.expiry == 0 {
            Invariant::LiveLeaseIsKept
        } else {
            Invariant::OneCurrentToken
        });
    }
    if attempt != before.attempt + 1 {
        world.breaks(Invariant::AttemptsRise);
    }
    if before.in_flight()
        && old.executes()
        && old.process == world[sender].process
        && !world[sender].lost
    {
        world.breaks(Invariant::NoTakeOverFromItself);
    }
}

/// Judges a purge.
pub fn judge_purge(world: &mut World, purged: &Record) {
    if purged.live() {
        world.breaks(Invariant::LiveLeaseIsKept);
    }
    if !purged.in_flight() && purged.expiry > 0 {
        world.breaks(Invariant::CompletionStays);
    }
}

fn may_have_effect(world: &World, id: RequestId) -> bool {
    matches!(world[id].execution, Execution::Started | Execution::Effect)
}

/// Judges the start of a handler, before it is noted.
pub fn judge_start(world: &mut World, policy: Policy, id: RequestId) {
    if world[id].attempt == 0 {
        world.breaks(Invariant::NoStartWithoutClaim);
    }
    if world
        .neighbours(id)
        .any(|(_, other)| other.stage == Stage::Executing)
    {
        world.breaks(Invariant::OneStartPerProcess);
    }
    let earlier = |other: RequestId| {
        let request = &world[other];
        let counts = may_have_effect(world, other) || request.execution == Execution::NothingDone;
        other != id && counts && request.started_in == world.life
    };
    let starts: Vec<_> = World::ids().filter(|other| earlier(*other)).collect();
    if policy == Policy::Refuse && !starts.is_empty() {
        world.breaks(Invariant::OneStart);
    }
    if starts
        .iter()
        .any(|other| world[*other].attempt >= world[id].attempt)
    {
        world.breaks(Invariant::AttemptsRise);
    }
}

/// Judges what a client hears, before it is noted.
pub fn judge_answer(world: &mut World, id: RequestId, answer: Answer) {
    let request = world[id];
    let beside = |stage: Stage| {
        world
            .same_key_beside(id)
            .any(|(_, other)| other.stage == stage)
    };
    // What it says of its own execution, or of its own recovery function, was decided before.
    let of_itself = matches!(request.stage, Stage::Completing | Stage::Abandoning(_));
    let did_nothing = matches!(
        request.execution,
        Execution::NothingDone | Execution::Released
    );
    match answer {
        Answer::Outcome(outcome) => judge_outcome(world, id, outcome),
        Answer::OutcomeUnknown if !of_itself && beside(Stage::Executing) => {
            world.breaks(Invariant::OwnExecutionIsKnown);
        }
        Answer::OutcomeUnknown if did_nothing => world.breaks(Invariant::ReleaseIsNotUnknown),
        Answer::Conflict if beside(Stage::StoringLate) => world.breaks(Invariant::DoubtIsShared),
        _ => {}
    }
}

/// Judges an acknowledged `complete`, before its client hears of it.
pub fn judge_acknowledgement(world: &mut World, id: RequestId) {
    if world[id].leased_in == world.life && !is_stored(world, id) {
        world.breaks(Invariant::CompletionStays);
    }
}

fn is_stored(world: &World, outcome: RequestId) -> bool {
    world
        .record
        .is_some_and(|record| record.outcome == Some(outcome))
}

fn judge_outcome(world: &mut World, id: RequestId, outcome: RequestId) {
    if world[outcome].payload != world[id].payload {
        world.breaks(Invariant::OutcomesStayWithTheirPayload);
    }
    let another = world.requests.iter().any(|other| match other.answer {
        Some(Answer::Outcome(shown)) => {
            shown != outcome && world[shown].leased_in == world[outcome].leased_in
        }
        _ => false,
    });
    if another {
        world.breaks(Invariant::OneOutcome);
    }
}

/// Judges a state as such.
pub fn judge_state(world: &mut World, policy: Policy) {
    let Some(record) = world.record else { return };
    let owner = &world[record.token];
    let executed = may_have_effect(world, record.token) && owner.started_in == world.life;
    if policy == Policy::Refuse
        && record.in_flight()
        && !executed
        && !owner.responsible()
        && !owner.lost
    {
        world.breaks(Invariant::NoKeyBlocked);
    }
}
