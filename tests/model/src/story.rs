//! Tells a trace in plain English, step by step.

use std::fmt::{self, Write};

use crate::{
    action::Action,
    engine::{Recovery, operation},
    record::{Operation, Record, Reply, TakeOver},
    request::{Answer, Call, Payload, Process, RequestId, Stage},
    world::World,
};

/// States in their order, each with what happened in it.
pub type Trace = Vec<(World, Option<Action>)>;

/// Tells how the world came from its first state to its last.
#[must_use]
pub fn tell(steps: &[(World, Option<Action>)]) -> String {
    let mut story = String::new();
    for (number, pair) in steps.windows(2).enumerate() {
        if let [(before, Some(action)), (after, _)] = pair {
            let step = Step {
                before,
                action: *action,
                after,
            };
            // Writing to a string does not fail.
            let _ = write!(story, "{:>4}. {step}", number + 1);
        }
    }
    if let Some(broken) = steps.last().and_then(|(world, _)| world.broken) {
        let _ = writeln!(story, "      This breaks \"{broken}\".");
    }
    story
}

struct Step<'a> {
    before: &'a World,
    action: Action,
    after: &'a World,
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tell_action(out)?;
        for id in World::ids() {
            let (before, after) = (&self.before[id], &self.after[id]);
            if before.stage != after.stage
                && let Some(now) = now(after.stage)
            {
                write!(out, " {id:#} {now}.")?;
            }
            if let (None, Some(answer)) = (before.answer, after.answer) {
                write!(out, " The client of {id} hears: {answer}.")?;
            }
            match (before.withdrawing, after.withdrawing) {
                (false, true) => {
                    write!(out, " The engine withdraws the token of {id} from now on.")?;
                }
                (true, false) if !after.lost => write!(out, " The withdrawal for {id} ends.")?,
                _ => {}
            }
        }
        writeln!(out)?;
        match (self.before.record, self.after.record) {
            (before, after) if before == after => Ok(()),
            (_, None) => writeln!(out, "        no record"),
            (_, Some(record)) => writeln!(out, "        record: {record}"),
        }
    }
}

impl Step<'_> {
    fn tell_action(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Arrive(id, process, Payload::Usual) => {
                write!(out, "{id:#} arrives at {process}.")
            }
            Action::Arrive(id, process, Payload::Other) => {
                write!(
                    out,
                    "{id:#} arrives at {process}, with the same key for something else."
                )
            }
            Action::Deliver(id) => self.tell_delivery(out, id),
            Action::Receive(id) => match self.before[id].call {
                Call::Replied(reply) => write!(out, "{id:#} receives the answer: {reply}."),
                _ => write!(out, "{id:#} receives an answer."),
            },
            Action::TimeOut(id) => self.tell_time_out(out, id),
            Action::Poll(id) => write!(out, "{id:#} polls."),
            Action::Deadline(id) => write!(out, "{id:#} has waited long enough."),
            Action::Leave(id) => write!(out, "The client of {id} goes away."),
            Action::Recover(id, said) => write!(
                out,
                "The recovery function of {id} says: {}.",
                said_by_recovery(said)
            ),
            Action::Effect(id) => write!(out, "The handler of {id} has its effect."),
            Action::Respond(id) => write!(out, "The handler of {id} returns its outcome."),
            Action::RespondError(id) => {
                write!(out, "The handler of {id} has its effect and returns 503.")
            }
            Action::Refuse(id) => write!(out, "The handler of {id} returns 429: it did nothing."),
            Action::Panic(id) => write!(out, "The handler of {id} panics."),
            Action::ReadWinner(id) => write!(out, "{id:#} reads the record."),
            Action::Renew(id) => write!(out, "The keeper renews the lease of {id}."),
            Action::DelayRenewal(id) => {
                write!(out, "A renewal for {id} is sent, and stays on its way.")
            }
            Action::DeliverLate(late) => {
                write!(
                    out,
                    "The late {} of {} reaches the store.",
                    late.operation, late.sender
                )
            }
            Action::Withdraw(id) => write!(out, "The withdrawal for {id} reaches the store."),
            Action::Tick => write!(out, "A tick passes."),
            Action::Purge => write!(out, "The store purges the record."),
            Action::Crash(process) => write!(out, "{process:#} dies."),
            Action::ShutDown(process) => write!(out, "{process:#} shuts down."),
        }
    }

    fn tell_delivery(&self, out: &mut fmt::Formatter<'_>, id: RequestId) -> fmt::Result {
        let operation = operation(self.before, id);
        match self.after[id].call {
            Call::Replied(reply) => write!(
                out,
                "The store executes the {operation} of {id} and answers: {reply}."
            ),
            _ => write!(
                out,
                "The store reads the record for the {operation} of {id}, and will write later."
            ),
        }
    }

    fn tell_time_out(&self, out: &mut fmt::Formatter<'_>, id: RequestId) -> fmt::Result {
        let operation = operation(self.before, id);
        write!(out, "The {operation} of {id} times out: ")?;
        match self.before[id].call {
            Call::Replied(_) => write!(out, "its reply is lost")?,
            _ if self.before.late.len() < self.after.late.len() => {
                write!(out, "it is still on its way")?;
            }
            _ => write!(out, "it was lost")?,
        }
        let again =
            self.after[id].call == Call::Sent && self.after[id].stage == self.before[id].stage;
        out.write_str(if again { ". It is sent again." } else { "." })
    }
}

fn now(stage: Stage) -> Option<&'static str> {
    Some(match stage {
        Stage::NotArrived | Stage::Ended => return None,
        Stage::Acquiring { .. } => "sends an acquire",
        Stage::Waiting => "waits",
        Stage::Recovering => "asks the recovery function",
        Stage::Executing => "starts its handler",
        Stage::Completing => "sends its complete",
        Stage::StoringLate => "goes on storing its outcome",
        Stage::ReadingWinner => "has to read the record",
        Stage::Releasing(_) => "sends a release",
        Stage::Abandoning(_) => "sends an abandon",
    })
}

const fn said_by_recovery(said: Recovery) -> &'static str {
    match said {
        Recovery::NotExecuted => "not executed",
        Recovery::Completed => "completed",
        Recovery::StillUnknown => "still unknown",
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `{:#}` begins a sentence.
        let word = if out.alternate() {
            "Request"
        } else {
            "request"
        };
        write!(out, "{word} {}", self.0 + 1)
    }
}

impl fmt::Display for Process {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if out.alternate() {
            "Process"
        } else {
            "process"
        };
        write!(out, "{word} {self:?}")
    }
}

impl fmt::Display for Record {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Some(outcome) => write!(out, "completed with the outcome of {outcome}")?,
            None => write!(out, "in flight for {}", self.token)?,
        }
        write!(out, ", attempt {}", self.attempt)?;
        match (self.outcome, self.lease) {
            (Some(_), _) => {}
            (None, 0) => write!(out, ", lease lapsed")?,
            (None, lease) => write!(out, ", lease for {lease} more")?,
        }
        match self.expiry {
            0 => write!(out, ", expired"),
            expiry => write!(out, ", expires in {expiry}"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquire(TakeOver::No) => out.write_str("acquire"),
            Self::Acquire(TakeOver::Any) => out.write_str("take-over of whatever lapsed"),
            Self::Acquire(TakeOver::Lease(lease)) => {
                write!(out, "take-over (of the lease of {lease})")
            }
            Self::Renew => out.write_str("renewal"),
            Self::Complete => out.write_str("complete"),
            Self::Release => out.write_str("release"),
            Self::Abandon => out.write_str("abandon"),
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquired(attempt) => write!(out, "acquired, attempt {attempt}"),
            Self::InFlight => out.write_str("in flight"),
            Self::Unknown(lease) => write!(out, "unknown, the lease of {lease} lapsed"),
            Self::Completed(outcome) => write!(out, "completed with the outcome of {outcome}"),
            Self::Mismatch => out.write_str("mismatch"),
            Self::Done => out.write_str("done"),
            Self::Fenced => out.write_str("fenced"),
            Self::Missing => out.write_str("there is no record"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outcome(outcome) => write!(out, "the outcome of {outcome}"),
            Self::OutcomeUnknown => out.write_str("409 outcome_unknown"),
            Self::Conflict => out.write_str("409 conflict"),
            Self::Mismatch => out.write_str("409 mismatch"),
            Self::Unavailable => out.write_str("503"),
            Self::Refusal => out.write_str("the handler's 429"),
            Self::Panicked => out.write_str("500 handler_panicked"),
            Self::ClientLeft | Self::ConnectionLost => out.write_str("nothing any more"),
        }
    }
}
