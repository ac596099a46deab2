//! What must stay possible: from every state, a way to an answer and to an outcome.
//!
//! That nothing bad happens is one question, that nobody is stuck another: whether from every state that can be
//! reached something good can still be reached by ordinary steps, without a further mishap. A checker of invariants
//! does not answer it, so the whole graph is built here and walked backwards.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use stateright::Model;

use crate::{
    action::Action,
    engine::Recovery,
    invariant::Invariant,
    request::{Call, Execution, Stage},
    rules::Policy,
    story::Trace,
    system::System,
    world::World,
};

/// Which state follows from which.
#[derive(Debug, Default)]
pub struct Graph {
    states: Vec<State>,
    /// Sorted by where they lead.
    steps: Vec<Step>,
}

#[derive(Debug)]
struct State {
    /// How it was reached first.
    parent: Option<(usize, Action)>,
    /// Everybody returns even if the store answers nothing from now on.
    ends_alone: bool,
    answers: Demand,
    outcome: Demand,
}

/// What must be within reach of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// It is there.
    Met,
    /// It must be within reach.
    Owed,
    /// It need not be.
    NotOwed,
}

/// A step that can be counted on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    to: usize,
    from: usize,
    /// It is the arrival of a request.
    arrival: bool,
}

impl Graph {
    /// Explores all states.
    #[must_use]
    pub fn explore(system: &System) -> Self {
        let mut graph = Self::default();
        let (mut numbers, mut todo, mut actions) = (HashMap::new(), VecDeque::new(), Vec::new());
        for world in system.init_states() {
            numbers.insert(likeness(&world), 0);
            graph.states.push(system.state(&world, None));
            todo.push_back((0, world));
        }
        while let Some((from, world)) = todo.pop_front() {
            system.actions(&world, &mut actions);
            for action in actions.drain(..) {
                let next = system.next_state(&world, action);
                let Some(next) = next.filter(|next| system.within_boundary(next)) else {
                    continue;
                };
                let fresh = graph.states.len();
                let to = *numbers.entry(likeness(&next)).or_insert(fresh);
                let arrival = matches!(action, Action::Arrive(..));
                if arrival || is_ordinary(&world, action, &next) {
                    graph.steps.push(Step { to, from, arrival });
                }
                if to == fresh {
                    graph.states.push(system.state(&next, Some((from, action))));
                    todo.push_back((to, next));
                }
            }
        }
        graph.steps.sort_unstable();
        graph
    }

    /// How many states there are.
    #[must_use]
    pub fn states(&self) -> usize {
        self.states.len()
    }

    /// The nearest state that fails a demand, which one, and the way there.
    #[must_use]
    pub fn stuck(&self, system: &System) -> Option<(Invariant, Trace)> {
        let alone = self.states.iter().position(|state| !state.ends_alone);
        let answers = || self.out_of_reach(|state| state.answers, false);
        let outcome = || self.out_of_reach(|state| state.outcome, true);
        let (invariant, state) = alone
            .map(|state| (Invariant::WaitersReturn, state))
            .or_else(|| answers().map(|state| (Invariant::AnswerWithinReach, state)))
            .or_else(|| outcome().map(|state| (Invariant::OutcomeWithinReach, state)))?;
        Some((invariant, self.way_to(system, state)))
    }

    /// The first state that is owed something and has it out of reach.
    fn out_of_reach(
        &self,
        demand: impl Fn(&State) -> Demand,
        arrivals_help: bool,
    ) -> Option<usize> {
        let mut reaches: Vec<_> = self
            .states
            .iter()
            .map(|state| demand(state) == Demand::Met)
            .collect();
        let mut todo: Vec<_> = (0..reaches.len()).filter(|state| reaches[*state]).collect();
        while let Some(to) = todo.pop() {
            let first = self.steps.partition_point(|step| step.to < to);
            let here = self.steps[first..].iter().take_while(|step| step.to == to);
            for step in here.filter(|step| arrivals_help || !step.arrival) {
                if !reaches[step.from] {
                    reaches[step.from] = true;
                    todo.push(step.from);
                }
            }
        }
        (0..reaches.len())
            .find(|state| !reaches[*state] && demand(&self.states[*state]) == Demand::Owed)
    }

    fn way_to(&self, system: &System, mut state: usize) -> Trace {
        let mut actions = Vec::new();
        while let Some((parent, action)) = self.states[state].parent {
            actions.push(action);
            state = parent;
        }
        let mut world = World::new(system.bounds.requests, system.bounds.mishaps);
        let mut way = Vec::new();
        for action in actions.into_iter().rev() {
            let Some(next) = system.next_state(&world, action) else {
                break;
            };
            way.push((world, Some(action)));
            world = next;
        }
        way.push((world, None));
        way
    }
}

fn likeness(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Whether a step can be counted on: no mishap, no late message, no deadline, no panic,
/// no waiting until the record expires.
fn is_ordinary(world: &World, action: Action, next: &World) -> bool {
    let helps = match action {
        // An acquire that can no longer arrive times out without a mishap.
        Action::TimeOut(_) => world.left == next.left,
        Action::Arrive(..)
        | Action::Deadline(_)
        | Action::Leave(_)
        | Action::Panic(_)
        | Action::DelayRenewal(_)
        | Action::DeliverLate(_)
        | Action::Crash(_)
        | Action::ShutDown(_) => false,
        _ => true,
    };
    helps && world.life == next.life && !is_expired(next)
}

impl System {
    fn state(&self, world: &World, parent: Option<(usize, Action)>) -> State {
        // An expired record frees the key. Once an invariant broke nothing goes on: that is another test's.
        let exempt = world.broken.is_some() || is_expired(world);
        let nobody_asks = world.to_come == [0, 0];
        // With `refuse`, what a process left behind when it died stays unknown.
        let unknown = self.policy == Policy::Refuse && world.requests.iter().any(|one| one.lost);
        let demand = |met: bool, exempt: bool| match (met, exempt) {
            (true, _) => Demand::Met,
            (false, true) => Demand::NotOwed,
            (false, false) => Demand::Owed,
        };
        State {
            parent,
            ends_alone: world.broken.is_some() || self.ends_without_the_store(world),
            answers: demand(everybody_is_answered(world), exempt),
            outcome: demand(
                world.record.is_some_and(|it| !it.in_flight()),
                exempt || nobody_asks || unknown,
            ),
        }
    }

    /// Whether everybody gets an answer although the store answers nothing from now on.
    fn ends_without_the_store(&self, world: &World) -> bool {
        let mut world = world.clone();
        // More rounds than any request can take steps without the store.
        for _ in 0..8 {
            for id in World::ids() {
                world.left.faults = u8::MAX;
                if let Some(next) = self
                    .step_alone(&world, id)
                    .and_then(|step| self.next_state(&world, step))
                {
                    world = next;
                }
            }
        }
        everybody_is_answered(&world)
    }

    /// What a request without an answer does when the store says nothing.
    fn step_alone(&self, world: &World, id: crate::request::RequestId) -> Option<Action> {
        let request = world[id];
        match (request.stage, request.call) {
            _ if request.answer.is_some() => None,
            (_, Call::Replied(_)) => Some(Action::Receive(id)),
            (_, Call::Sent | Call::Checked) => Some(Action::TimeOut(id)),
            (Stage::Waiting, _) if self.rules.waiters_have_a_deadline => Some(Action::Deadline(id)),
            (Stage::Recovering, _) => Some(Action::Recover(id, Recovery::StillUnknown)),
            (Stage::Executing, _) if request.execution == Execution::Started => {
                Some(Action::Effect(id))
            }
            (Stage::Executing, _) => Some(Action::Respond(id)),
            (Stage::ReadingWinner, _) => Some(Action::ReadWinner(id)),
            _ => None,
        }
    }
}

fn everybody_is_answered(world: &World) -> bool {
    world
        .requests
        .iter()
        .all(|one| !one.arrived() || one.answer.is_some())
}

fn is_expired(world: &World) -> bool {
    world.record.is_some_and(|record| record.expired())
}
