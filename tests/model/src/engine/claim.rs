//! From the arrival of a request to its claim, its wait, or the answer that the store already has.

use super::Ending;
use crate::{
    record::{Reply, TakeOver, Token},
    request::{Answer, Payload, Process, RequestId, Stage},
    rules::Policy,
    system::System,
    world::World,
};

impl System {
    pub(crate) fn arrive(
        &self,
        world: &mut World,
        id: RequestId,
        process: Process,
        payload: Payload,
    ) {
        world.to_come[process as usize] -= 1;
        world[id].process = process;
        world[id].payload = payload;
        world[id].rest_at(Stage::Waiting);
        if self.rules.own_process_follows && self.process_executes(world, id) {
            self.follow(world, id);
        } else {
            send_acquire(world, id, false, TakeOver::No);
        }
    }

    /// A waiter checks whether the outcome is known.
    pub(crate) fn poll(&self, world: &mut World, id: RequestId) {
        if self.ended_in_doubt(world, id) {
            self.follow(world, id);
        } else {
            send_acquire(world, id, true, TakeOver::No);
        }
    }

    /// Waits for the outcome of another execution, unless this process knows the answer already.
    fn follow(&self, world: &mut World, id: RequestId) {
        let payload = world[id].payload;
        let differs = world
            .neighbours(id)
            .any(|(_, other)| other.executes() && other.payload != payload);
        if differs {
            self.end(world, id, Answer::Mismatch, Ending::OtherAnswer);
        } else if self.ended_in_doubt(world, id) {
            self.end(world, id, Answer::OutcomeUnknown, Ending::OtherAnswer);
        } else {
            world[id].rest_at(Stage::Waiting);
        }
    }

    pub(super) fn acquire_replied(&self, world: &mut World, id: RequestId, reply: Reply) {
        if !self.rules.keep_doubt_after_repetition {
            world[id].in_doubt = false;
        }
        match reply {
            Reply::Acquired(attempt) => self.acquired(world, id, attempt),
            Reply::Completed(outcome) => {
                self.end(world, id, Answer::Outcome(outcome), Ending::Replayed);
            }
            Reply::Mismatch => self.end(world, id, Answer::Mismatch, Ending::OtherAnswer),
            Reply::Unknown(lease) => self.lapsed(world, id, lease),
            _ => self.follow(world, id),
        }
    }

    fn acquired(&self, world: &mut World, id: RequestId, attempt: u8) {
        let rules = &self.rules;
        let too_late = rules.start_within_one_lease && world[id].sent_ago >= self.store.lease;
        let beside = rules.give_back_beside_own_execution && self.process_executes(world, id);
        let closing = world.is_shutting_down(world[id].process);
        world[id].attempt = attempt;
        if too_late || beside || closing {
            self.give_back(world, id, Answer::Unavailable);
        } else if self.policy == Policy::Recover && world[id].asked_take_over {
            // Its clock goes on: the handler may start only within the same lease.
            let sent_ago = world[id].sent_ago;
            world[id].rest_at(Stage::Recovering);
            world[id].sent_ago = sent_ago;
        } else {
            self.start(world, id);
        }
    }

    /// The store reports that this lease lapsed without an outcome.
    fn lapsed(&self, world: &mut World, id: RequestId, lease: Token) {
        let rules = &self.rules;
        let executes = rules.own_execution_is_never_unknown && self.process_executes(world, id);
        let owner = &world[lease];
        let goes_on = owner.responsible() || !rules.ended_tokens_may_be_taken_over;
        let own = rules.never_take_over_own_token
            && owner.process == world[id].process
            && goes_on
            && !owner.lost;
        let refuses = self.policy == Policy::Refuse && rules.refuse_never_executes_again;
        if executes || own {
            self.follow(world, id);
        } else if refuses || !rules.lapsed_leases_are_taken_over {
            self.end(world, id, Answer::OutcomeUnknown, Ending::OtherAnswer);
        } else {
            let named = rules.take_over_names_the_lease;
            world[id].repeated = false;
            send_acquire(
                world,
                id,
                false,
                if named {
                    TakeOver::Lease(lease)
                } else {
                    TakeOver::Any
                },
            );
        }
    }

    /// An acquire timed out. It stays in doubt.
    pub(super) fn acquire_timed_out(
        &self,
        world: &mut World,
        id: RequestId,
        polling: bool,
        repeated: bool,
    ) {
        let rules = &self.rules;
        world[id].in_doubt = true;
        let follows = rules.repetitions_follow_too
            && rules.own_process_follows
            && self.process_executes(world, id);
        if polling || !repeated && follows {
            self.follow(world, id);
        } else if !repeated {
            let take_over = world[id].take_over;
            send_acquire(world, id, false, take_over);
        } else if rules.start_only_when_acquired {
            self.end(world, id, Answer::Unavailable, Ending::StoreError);
        } else {
            self.start(world, id);
        }
    }
}

fn send_acquire(world: &mut World, id: RequestId, polling: bool, take_over: TakeOver) {
    let request = &mut world[id];
    let repeated = request.repeated;
    request.call_at(Stage::Acquiring { polling });
    request.repeated = repeated;
    request.take_over = take_over;
    request.asked_take_over |= take_over != TakeOver::No;
}
