//! The model that is explored: the contract with its bounds, and one step of it.

use stateright::{Model, Property};

use crate::{
    action::Action,
    invariant::{self, Invariant},
    record::{Operation, Store},
    request::{Call, Execution},
    rules::{Policy, Rules},
    world::{Mishaps, World},
};

/// How much is explored.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Requests that arrive at process A and at process B, in any order.
    pub requests: [u8; 2],
    /// Mishaps of each kind.
    pub mishaps: Mishaps,
    /// Ticks in which an acquire may still arrive after it was sent. Stores keep it below the ttl.
    pub transit: u8,
    /// Lives of the record.
    pub lives: u8,
    /// Whether the last request may ask for something else.
    pub other_payload: bool,
    /// Whether waiters are never notified.
    pub notifications_are_lost: bool,
}

/// Everything that decides which states there are.
#[derive(Clone, Debug)]
pub struct System {
    /// `on_crash` of the route.
    pub policy: Policy,
    /// The rules of the engine.
    pub rules: Rules,
    /// The store.
    pub store: Store,
    /// How much is explored.
    pub bounds: Bounds,
    /// An invariant that a test disregards, to see another.
    pub ignored: Option<Invariant>,
    /// What a test wants to see happen at least once.
    pub goal: Option<fn(&World) -> bool>,
}

impl System {
    fn step(&self, world: &mut World, action: Action) {
        match action {
            Action::Arrive(id, process, payload) => self.arrive(world, id, process, payload),
            Action::Deliver(id) => self.deliver(world, id),
            Action::Receive(id) => {
                if let Call::Replied(reply) = world[id].call {
                    self.receive(world, id, reply);
                }
            }
            Action::TimeOut(id) => {
                world.left.faults -= u8::from(self.may_arrive(world, id));
                self.leave_on_its_way(world, id);
                self.time_out(world, id);
            }
            Action::Poll(id) => self.poll(world, id),
            Action::Deadline(id) => self.deadline(world, id),
            Action::Leave(id) => self.leave(world, id),
            Action::Recover(id, said) => self.recovered(world, id, said),
            Action::Effect(id) => world[id].execution = Execution::Effect,
            Action::Respond(id) => self.respond(world, id),
            Action::RespondError(id) => self.respond_with_an_error(world, id),
            Action::Refuse(id) => self.refuse(world, id),
            Action::Panic(id) => self.panic(world, id),
            Action::ReadWinner(id) => self.read_winner(world, id),
            Action::Renew(id) => self.renew(world, id),
            Action::DelayRenewal(id) => {
                world.left.faults -= 1;
                world.send_late(id, Operation::Renew, 0);
            }
            Action::DeliverLate(late) => self.deliver_late(world, late),
            Action::Withdraw(id) => self.withdraw(world, id),
            Action::Tick => self.tick(world),
            Action::Purge => Self::purge(world),
            Action::Crash(process) => self.crash(world, process),
            Action::ShutDown(process) => self.shut_down(world, process),
        }
    }
}

impl Model for System {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.bounds.requests, self.bounds.mishaps)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // What follows a violation says nothing about the contract.
        if world.broken.is_none() {
            self.possible(world, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        self.step(&mut next, action);
        self.tidy(&mut next);
        invariant::judge_state(&mut next, self.policy);
        next.broken = next.broken.filter(|broken| Some(*broken) != self.ignored);
        Some(next)
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.life < self.bounds.lives
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let holds = |_: &Self, world: &World| world.broken.is_none();
        let seen = |system: &Self, world: &World| system.goal.is_some_and(|goal| goal(world));
        vec![if self.goal.is_some() {
            Property::sometimes("the goal is reached", seen)
        } else {
            Property::always("every invariant holds", holds)
        }]
    }
}
