//! How a request ends: with time-outs, releases, an answer, and a withdrawal that goes on after it.

use crate::{
    invariant,
    record::{Operation, Reply},
    request::{Answer, RequestId, Stage},
    system::System,
    world::World,
};

/// Why a request ends. Whether an acquire in doubt is withdrawn then is a rule for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its outcome is stored under its token.
    Completed,
    /// It saw the record completed by another.
    Replayed,
    /// It abandoned its token: the record stays, with its lease ended.
    Abandoned,
    /// It gave the key back.
    Released,
    /// Every acquire timed out.
    StoreError,
    /// `conflict`, `mismatch` or `outcome_unknown`.
    OtherAnswer,
    /// Its client left while it waited.
    ClientLeft,
    /// Its process shuts down.
    ShutDown,
}

impl System {
    /// The request stops waiting for its operation, which may still be on its way. It is sent again once.
    pub(crate) fn time_out(&self, world: &mut World, id: RequestId) {
        let repeated = world[id].repeated;
        world[id].send_again();
        match world[id].stage {
            Stage::Acquiring { polling } => self.acquire_timed_out(world, id, polling, repeated),
            Stage::Completing => self.complete_timed_out(world, id, repeated),
            Stage::Releasing(answer) if repeated => {
                self.end(world, id, answer, Ending::Released);
                world[id].withdrawing |= self.rules.release_until_acknowledged;
            }
            Stage::Abandoning(answer) if repeated => self.end(world, id, answer, Ending::Abandoned),
            // What is stored late is sent until it is acknowledged.
            _ => {}
        }
    }

    /// Gives back a claim under which nothing happened.
    pub(super) fn give_back(&self, world: &mut World, id: RequestId, answer: Answer) {
        let abandons = self.abandons(world, id);
        world[id].call_at(if abandons {
            Stage::Abandoning(answer)
        } else {
            Stage::Releasing(answer)
        });
    }

    pub(super) fn given_back(
        &self,
        world: &mut World,
        id: RequestId,
        reply: Reply,
        answer: Answer,
        ending: Ending,
    ) {
        if reply == Reply::Fenced && !self.rules.release_gives_own_answer {
            world[id].rest_at(Stage::ReadingWinner);
        } else {
            self.end(world, id, answer, ending);
        }
    }

    /// The time of a waiter is over.
    pub(crate) fn deadline(&self, world: &mut World, id: RequestId) {
        let in_doubt = self.ended_in_doubt(world, id);
        let answer = if in_doubt {
            Answer::OutcomeUnknown
        } else {
            Answer::Conflict
        };
        self.end(world, id, answer, Ending::OtherAnswer);
    }

    /// Answers the waiters of this process, when an execution ended.
    pub(super) fn notify(&self, world: &mut World, id: RequestId, answer: Answer, ending: Ending) {
        if self.bounds.notifications_are_lost {
            return;
        }
        let waiting = world
            .same_key_beside(id)
            .filter(|(_, other)| other.stage == Stage::Waiting);
        let waiters: Vec<_> = waiting.map(|(waiter, _)| waiter).collect();
        for waiter in waiters {
            self.end(world, waiter, answer, ending);
        }
    }

    /// The request is through. If an acquire of its own is in doubt, it is withdrawn.
    pub(crate) fn end(&self, world: &mut World, id: RequestId, answer: Answer, ending: Ending) {
        answer_client(world, id, answer);
        let rules = &self.rules;
        let withdraws = match ending {
            Ending::Completed | Ending::Abandoned => false,
            Ending::Replayed => rules.withdraw_after_replay,
            Ending::Released => rules.withdraw_after_release,
            Ending::StoreError => rules.withdraw_after_store_error,
            Ending::OtherAnswer => rules.withdraw_after_other_answers,
            Ending::ClientLeft => rules.withdraw_after_client_left,
            Ending::ShutDown => rules.withdraw_after_shutdown,
        };
        let request = &mut world[id];
        request.rest_at(Stage::Ended);
        request.withdrawing |= request.in_doubt && withdraws;
        request.in_doubt = false;
    }

    /// Whether a withdrawal finds something to give back.
    pub(crate) fn has_to_give_back(&self, world: &World, id: RequestId) -> bool {
        let abandons = self.abandons(world, id);
        world
            .in_flight_under(id)
            .is_some_and(|record| !abandons || record.lease > 0)
    }

    /// A withdrawal reaches the store. The engine repeats it, so that it is not modelled as a message that may be lost.
    pub(crate) fn withdraw(&self, world: &mut World, id: RequestId) {
        let abandons = self.abandons(world, id);
        self.execute(
            world,
            id,
            if abandons {
                Operation::Abandon
            } else {
                Operation::Release
            },
        );
        if !self.rules.withdraw_until_none_can_arrive {
            world[id].withdrawing = false;
        }
    }
}

pub(super) fn answer_client(world: &mut World, id: RequestId, answer: Answer) {
    if world[id].answer.is_none() {
        invariant::judge_answer(world, id, answer);
        world[id].answer = Some(answer);
    }
}
