//! The handler, the recovery function, and the end of an execution.

use super::{Ending, Recovery, ending::answer_client};
use crate::{
    invariant,
    record::Reply,
    request::{Answer, Execution, RequestId, Stage},
    rules::Policy,
    system::System,
    world::World,
};

impl System {
    pub(super) fn start(&self, world: &mut World, id: RequestId) {
        invariant::judge_start(world, self.policy, id);
        let life = world.life;
        let request = &mut world[id];
        request.rest_at(Stage::Executing);
        request.started_in = life;
        request.execution = Execution::Started;
    }

    /// The recovery function returned.
    pub(crate) fn recovered(&self, world: &mut World, id: RequestId, said: Recovery) {
        let late =
            world[id].sent_ago >= self.store.lease && self.rules.recovery_starts_within_one_lease;
        let closing = world.is_shutting_down(world[id].process);
        match said {
            Recovery::NotExecuted if late || closing => {
                self.give_back(world, id, Answer::Unavailable);
            }
            Recovery::NotExecuted => self.start(world, id),
            Recovery::Completed => {
                world[id].execution = Execution::Recovered;
                world[id].call_at(Stage::Completing);
            }
            Recovery::StillUnknown => world[id].call_at(Stage::Abandoning(Answer::OutcomeUnknown)),
        }
    }

    /// The handler returned an outcome.
    pub(crate) fn respond(&self, world: &mut World, id: RequestId) {
        world[id].execution = Execution::Effect;
        world[id].call_at(Stage::Completing);
        if !self.rules.answer_waits_for_acknowledgement {
            answer_client(world, id, Answer::Outcome(id));
        }
    }

    /// The handler had its effect and returned a 503.
    pub(crate) fn respond_with_an_error(&self, world: &mut World, id: RequestId) {
        world[id].execution = Execution::Effect;
        let outcome = self.rules.error_statuses_are_outcomes;
        world[id].call_at(if outcome {
            Stage::Completing
        } else {
            Stage::Releasing(Answer::Unavailable)
        });
    }

    /// The handler returned a 429 before it did anything.
    pub(crate) fn refuse(&self, world: &mut World, id: RequestId) {
        world[id].execution = Execution::NothingDone;
        self.give_back(world, id, Answer::Refusal);
    }

    /// The handler panicked. With `refuse` its 500 is an outcome.
    pub(crate) fn panic(&self, world: &mut World, id: RequestId) {
        if self.policy == Policy::Refuse {
            self.respond(world, id);
        } else if self.rules.abandon_after_panic {
            world[id].call_at(Stage::Abandoning(Answer::Panicked));
        } else {
            world[id].call_at(Stage::Releasing(Answer::Panicked));
        }
    }

    pub(super) fn complete_replied(&self, world: &mut World, id: RequestId, reply: Reply) {
        let answered = world[id].answer.is_some();
        match reply {
            Reply::Done => {
                invariant::judge_acknowledgement(world, id);
                self.end(world, id, Answer::Outcome(id), Ending::Completed);
                self.notify(world, id, Answer::Outcome(id), Ending::Replayed);
            }
            Reply::Fenced if !self.rules.fenced_complete_answers_with_winner => {
                self.end(world, id, Answer::Outcome(id), Ending::OtherAnswer);
            }
            Reply::Fenced if !answered => world[id].rest_at(Stage::ReadingWinner),
            _ => self.end(world, id, Answer::OutcomeUnknown, Ending::OtherAnswer),
        }
    }

    /// A `complete` timed out, for the second time if `repeated`.
    pub(super) fn complete_timed_out(&self, world: &mut World, id: RequestId, repeated: bool) {
        let rules = &self.rules;
        if !repeated {
            return;
        }
        if !rules.unacknowledged_complete_keeps_claim {
            world[id].call_at(Stage::Releasing(Answer::Unavailable));
        } else if !rules.late_outcomes_are_stored {
            self.end(world, id, Answer::OutcomeUnknown, Ending::Completed);
        } else {
            answer_client(world, id, Answer::OutcomeUnknown);
            world[id].call_at(Stage::StoringLate);
            if rules.duplicates_hear_the_doubt {
                self.notify(world, id, Answer::OutcomeUnknown, Ending::OtherAnswer);
            }
        }
    }

    /// An execution that was fenced out answers with the outcome of the winner, if there is one.
    pub(crate) fn read_winner(&self, world: &mut World, id: RequestId) {
        let payload = world[id].payload;
        let record = world.record.filter(|record| record.payload == payload);
        let executes =
            self.rules.own_execution_is_never_unknown && self.process_executes(world, id);
        match record.and_then(|record| record.outcome) {
            Some(outcome) => self.end(world, id, Answer::Outcome(outcome), Ending::Replayed),
            None if executes || record.is_some_and(|record| record.live()) => {
                self.end(world, id, Answer::Conflict, Ending::OtherAnswer);
            }
            None => self.end(world, id, Answer::OutcomeUnknown, Ending::OtherAnswer),
        }
    }
}
