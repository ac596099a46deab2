//! What can happen next in a state.

use crate::{
    action::Action,
    engine::Recovery,
    record::Operation,
    request::{Call, Execution, Payload, Process, RequestId, Stage},
    rules::Policy,
    system::System,
    world::World,
};

impl System {
    pub(crate) fn possible(&self, world: &World, actions: &mut Vec<Action>) {
        self.arrivals(world, actions);
        for id in World::ids().filter(|id| world[*id].arrived()) {
            match world[id].stage {
                Stage::Waiting => self.of_a_waiter(world, id, actions),
                Stage::Recovering => {
                    actions.push(Action::Recover(id, Recovery::StillUnknown));
                    actions.push(Action::Recover(id, truth(world, id)));
                }
                Stage::Executing => self.of_a_handler(world, id, actions),
                Stage::ReadingWinner => actions.push(Action::ReadWinner(id)),
                _ => {}
            }
            self.of_a_call(world, id, actions);
            self.of_a_client(world, id, actions);
            self.of_the_keeper(world, id, actions);
        }
        self.of_the_store(world, actions);
        of_the_processes(world, actions);
    }

    fn arrivals(&self, world: &World, actions: &mut Vec<Action>) {
        let Some(id) = world.next_arrival() else {
            return;
        };
        let last = world.to_come.iter().sum::<u8>() == 1;
        for process in Process::BOTH {
            if world.to_come[process as usize] > 0 && !world.is_shutting_down(process) {
                actions.push(Action::Arrive(id, process, Payload::Usual));
                if self.bounds.other_payload && last {
                    actions.push(Action::Arrive(id, process, Payload::Other));
                }
            }
        }
    }

    fn of_a_waiter(&self, world: &World, id: RequestId, actions: &mut Vec<Action>) {
        // One poller for each process and key. Beside its own execution a process does not poll.
        let polls = |stage| stage == Stage::Acquiring { polling: true };
        let polled = world.neighbours(id).any(|(_, other)| polls(other.stage));
        let followed = self.rules.own_process_follows && self.process_executes(world, id);
        let in_doubt = self.ended_in_doubt(world, id);
        if self.rules.waiters_poll && (in_doubt || !polled && !followed) {
            actions.push(Action::Poll(id));
        }
        if self.rules.waiters_have_a_deadline {
            actions.push(Action::Deadline(id));
        }
    }

    fn of_a_handler(&self, world: &World, id: RequestId, actions: &mut Vec<Action>) {
        let effect = world[id].execution == Execution::Effect;
        if !effect {
            actions.push(Action::Refuse(id));
        }
        // Only a recovery function distinguishes the time before the effect from the time after it.
        if !effect && self.policy == Policy::Recover {
            actions.push(Action::Effect(id));
            return;
        }
        actions.push(Action::Respond(id));
        if self.policy != Policy::Refuse {
            actions.push(Action::Panic(id));
        }
        if !self.rules.error_statuses_are_outcomes {
            actions.push(Action::RespondError(id));
        }
    }

    fn of_a_call(&self, world: &World, id: RequestId, actions: &mut Vec<Action>) {
        let may_arrive = self.may_arrive(world, id);
        match world[id].call {
            Call::Idle => return,
            Call::Replied(_) => actions.push(Action::Receive(id)),
            Call::Sent | Call::Checked if may_arrive => actions.push(Action::Deliver(id)),
            Call::Sent | Call::Checked => {}
        }
        if world.left.faults > 0 || !may_arrive {
            actions.push(Action::TimeOut(id));
        }
    }

    /// Clients leave at any time; only what changes something by it is an action.
    fn of_a_client(&self, world: &World, id: RequestId, actions: &mut Vec<Action>) {
        let matters = match world[id].stage {
            Stage::Acquiring { .. } => !self.rules.acquire_belongs_to_engine,
            Stage::Executing => !self.rules.disconnect_keeps_claim,
            stage => stage == Stage::Waiting,
        };
        if matters && world.left.departures > 0 {
            actions.push(Action::Leave(id));
        }
    }

    /// The keeper is modelled by its successes: where it does not come, leases lapse.
    fn of_the_keeper(&self, world: &World, id: RequestId, actions: &mut Vec<Action>) {
        if world[id].withdrawing && self.has_to_give_back(world, id) {
            actions.push(Action::Withdraw(id));
        }
        let Some(record) = world.in_flight_under(id).filter(|_| world[id].executes()) else {
            return;
        };
        if record.lease < self.store.lease {
            actions.push(Action::Renew(id));
        }
        let late = world
            .late
            .iter()
            .any(|late| late.sender == id && late.operation == Operation::Renew);
        if world.left.faults > 0 && !late {
            actions.push(Action::DelayRenewal(id));
        }
    }

    fn of_the_store(&self, world: &World, actions: &mut Vec<Action>) {
        let mut late = world.late.clone();
        late.dedup();
        actions.extend(late.into_iter().map(Action::DeliverLate));
        if self.time_matters(world) {
            actions.push(Action::Tick);
        }
        if world
            .record
            .is_some_and(|record| self.store.forgets(&record))
        {
            actions.push(Action::Purge);
        }
    }
}

fn of_the_processes(world: &World, actions: &mut Vec<Action>) {
    for process in Process::BOTH {
        let busy = world
            .requests
            .iter()
            .any(|one| one.process == process && one.responsible());
        let closing = world.is_shutting_down(process);
        if busy && (world.left.crashes > 0 || closing) {
            actions.push(Action::Crash(process));
        }
        if busy && !closing && world.left.shutdowns > 0 {
            actions.push(Action::ShutDown(process));
        }
    }
}

/// What a recovery function finds if it can find out: whether the effect is there as of now.
fn truth(world: &World, id: RequestId) -> Recovery {
    let life = world[id].leased_in;
    let effect = |(other, request): (RequestId, &crate::request::Request)| {
        other != id && request.execution == Execution::Effect && request.started_in == life
    };
    if world.all().any(effect) {
        Recovery::Completed
    } else {
        Recovery::NotExecuted
    }
}
