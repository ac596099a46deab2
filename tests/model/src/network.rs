//! The store, the messages on their way to it, and the time that passes meanwhile.

use crate::{
    engine::operation,
    invariant::{self, Write},
    record::{Operation, Record, Reply},
    request::{Call, Execution, Request, RequestId, Stage},
    rules::StoreFault,
    system::System,
    world::{LateOperation, World},
};

impl System {
    /// The store executes an operation, in one step.
    pub(crate) fn execute(
        &self,
        world: &mut World,
        sender: RequestId,
        operation: Operation,
    ) -> Reply {
        let before = world.record;
        let payload = world[sender].payload;
        let reply = self
            .store
            .execute(&mut world.record, operation, sender, payload);
        self.executed(
            world,
            Write {
                sender,
                operation,
                before,
                reply,
            },
        );
        reply
    }

    fn executed(&self, world: &mut World, write: Write) {
        if matches!(write.reply, Reply::Acquired(_)) {
            world.life += u8::from(write.before.is_some_and(|before| before.expired()));
            if world[write.sender].active() {
                world[write.sender].leased_in = world.life;
            }
        }
        invariant::judge_write(world, self.policy, write);
        let released = write.operation == Operation::Release
            && write.before.is_some()
            && world.record.is_none();
        let sender = &mut world[write.sender];
        if released && sender.execution == Execution::NothingDone {
            sender.execution = Execution::Released;
        }
    }

    /// The operation that a request waits for reaches the store.
    pub(crate) fn deliver(&self, world: &mut World, id: RequestId) {
        let operation = operation(world, id);
        let fault = self
            .store
            .fault
            .filter(|_| matches!(operation, Operation::Acquire(_)));
        if fault == Some(StoreFault::CheckThenAct) {
            world[id].call = self.check_then_act(world, id, operation);
            return;
        }
        if fault == Some(StoreFault::AcquireIsSentTwice) {
            world.send_late(id, operation, self.bounds.transit - world[id].sent_ago);
        }
        world[id].call = Call::Replied(self.execute(world, id, operation));
    }

    /// What a store does that reads first and writes later: it grants what it saw free, whatever it is by then.
    fn check_then_act(&self, world: &mut World, id: RequestId, operation: Operation) -> Call {
        let before = world.record;
        let payload = world[id].payload;
        if world[id].call == Call::Checked {
            let reply = self.store.lease_to(&mut world.record, id, payload);
            self.executed(
                world,
                Write {
                    sender: id,
                    operation,
                    before,
                    reply,
                },
            );
            return Call::Replied(reply);
        }
        let reply = self
            .store
            .execute(&mut before.clone(), operation, id, payload);
        if matches!(reply, Reply::Acquired(_)) {
            Call::Checked
        } else {
            Call::Replied(reply)
        }
    }

    /// An operation that nobody waits for reaches the store.
    pub(crate) fn deliver_late(&self, world: &mut World, late: LateOperation) {
        if let Some(at) = world.late.iter().position(|other| *other == late) {
            world.late.remove(at);
        }
        self.execute(world, late.sender, late.operation);
    }

    /// Whether the request's operation may still arrive. Acquires have a bound.
    pub(crate) fn may_arrive(&self, world: &World, id: RequestId) -> bool {
        let request = &world[id];
        let acquire = matches!(request.stage, Stage::Acquiring { .. });
        request.call != Call::Sent || !acquire || request.sent_ago <= self.bounds.transit
    }

    /// Whoever waited for the operation does so no longer. If it has not arrived, it stays on its way.
    pub(crate) fn leave_on_its_way(&self, world: &mut World, id: RequestId) {
        if world[id].call == Call::Sent && self.may_arrive(world, id) {
            let operation = operation(world, id);
            let acquire = matches!(operation, Operation::Acquire(_));
            let ticks = if acquire {
                self.bounds.transit - world[id].sent_ago
            } else {
                0
            };
            world.send_late(id, operation, ticks);
        }
    }

    /// The keeper renews a lease, and the store acknowledges it.
    pub(crate) fn renew(&self, world: &mut World, id: RequestId) {
        self.execute(world, id, Operation::Renew);
        if !self.rules.renewal_does_not_prolong_the_start {
            world[id].sent_ago = 0;
        }
    }

    pub(crate) fn purge(world: &mut World) {
        if let Some(record) = world.record.take() {
            invariant::judge_purge(world, &record);
            world.life += 1;
        }
    }

    /// Whether time changes anything.
    pub(crate) fn time_matters(&self, world: &World) -> bool {
        let runs = |request: &Request| has_clock(request) && request.sent_ago < self.most_ticks();
        let ages = |record: Record| record.lease > 0 || record.expiry > 0;
        world.record.is_some_and(ages)
            || world.requests.iter().any(runs)
            || world
                .late
                .iter()
                .any(|late| matches!(late.operation, Operation::Acquire(_)))
    }

    /// One tick passes.
    pub(crate) fn tick(&self, world: &mut World) {
        if let Some(record) = &mut world.record {
            record.lease = record.lease.saturating_sub(1);
            record.expiry = record.expiry.saturating_sub(1);
        }
        for request in world
            .requests
            .iter_mut()
            .filter(|request| has_clock(request))
        {
            request.sent_ago = self.most_ticks().min(request.sent_ago + 1);
        }
        let acquire = |late: &LateOperation| matches!(late.operation, Operation::Acquire(_));
        world.late.retain(|late| !acquire(late) || late.ticks > 0);
        for late in world.late.iter_mut().filter(|late| acquire(late)) {
            late.ticks -= 1;
        }
        world.late.sort_unstable();
    }

    /// No rule asks whether a clock is past more ticks than these.
    fn most_ticks(&self) -> u8 {
        self.store.lease.max(self.bounds.transit + 1)
    }

    /// Ends the withdrawals that nothing can make necessary again, and drops messages that cannot change anything.
    pub(crate) fn tidy(&self, world: &mut World) {
        for id in World::ids()
            .filter(|id| world[*id].stage == Stage::Ended)
            .collect::<Vec<_>>()
        {
            let acquire = |late: &LateOperation| matches!(late.operation, Operation::Acquire(_));
            if world
                .late
                .iter()
                .any(|late| late.sender == id && acquire(late))
            {
                continue;
            }
            if !self.has_to_give_back(world, id) {
                world[id].withdrawing = false;
            }
            // Nothing can make this token the record's again: its writes stay fenced.
            if world.in_flight_under(id).is_none() && self.store.fault.is_none() {
                world.late.retain(|late| late.sender != id);
            }
        }
    }
}

fn has_clock(request: &Request) -> bool {
    matches!(request.stage, Stage::Acquiring { .. } | Stage::Recovering)
}
