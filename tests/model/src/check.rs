//! Explores a system and reports.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    invariant::Invariant,
    reach::Graph,
    record::Store,
    rules::{Policy, Rules, StoreFault},
    story,
    system::{Bounds, System},
    world::{Mishaps, World},
};

/// One exploration, to be set up and run.
#[derive(Clone, Debug)]
#[must_use]
pub struct Check {
    system: System,
}

impl Check {
    /// Two requests, one at each process, and no mishaps.
    pub fn new(policy: Policy) -> Self {
        Self {
            system: System {
                policy,
                rules: Rules::all(),
                store: Store {
                    lease: 1,
                    ttl: 2,
                    fault: None,
                },
                bounds: Bounds {
                    requests: [1, 1],
                    mishaps: Mishaps::default(),
                    transit: 1,
                    lives: 2,
                    other_payload: false,
                    notifications_are_lost: false,
                },
                ignored: None,
                goal: None,
            },
        }
    }

    /// How many requests arrive at process A and at process B.
    pub fn requests(mut self, at_a: u8, at_b: u8) -> Self {
        self.system.bounds.requests = [at_a, at_b];
        self
    }

    /// How many operations or replies may be late or lost.
    pub fn faults(mut self, faults: u8) -> Self {
        self.system.bounds.mishaps.faults = faults;
        self
    }

    /// How many processes may die.
    pub fn crashes(mut self, crashes: u8) -> Self {
        self.system.bounds.mishaps.crashes = crashes;
        self
    }

    /// How many clients may leave.
    pub fn departures(mut self, departures: u8) -> Self {
        self.system.bounds.mishaps.departures = departures;
        self
    }

    /// How many processes may shut down.
    pub fn shutdowns(mut self, shutdowns: u8) -> Self {
        self.system.bounds.mishaps.shutdowns = shutdowns;
        self
    }

    /// Ticks that a lease lasts, that a record is kept, and that an acquire may be on its way.
    pub fn times(mut self, lease: u8, ttl: u8, transit: u8) -> Self {
        self.system.store.lease = lease;
        self.system.store.ttl = ttl;
        self.system.bounds.transit = transit;
        self
    }

    /// How many lives of the record are explored. One ends when the record expires.
    pub fn lives(mut self, lives: u8) -> Self {
        self.system.bounds.lives = lives;
        self
    }

    /// The last request asks for something else.
    pub fn other_payload(mut self) -> Self {
        self.system.bounds.other_payload = true;
        self
    }

    /// A store that is broken on purpose.
    pub fn store_fault(mut self, fault: StoreFault) -> Self {
        self.system.store.fault = Some(fault);
        self
    }

    /// Waiters are never notified.
    pub fn lost_notifications(mut self) -> Self {
        self.system.bounds.notifications_are_lost = true;
        self
    }

    /// Without one rule.
    pub fn without(mut self, take_away: impl FnOnce(&mut Rules)) -> Self {
        take_away(&mut self.system.rules);
        self
    }

    /// Disregards an invariant that breaks earlier.
    pub fn ignoring(mut self, invariant: Invariant) -> Self {
        self.system.ignored = Some(invariant);
        self
    }

    /// Every invariant holds in every state.
    ///
    /// # Panics
    ///
    /// With the shortest trace, if one does not.
    pub fn holds(self) {
        if let Some((broken, story)) = self.first_violation() {
            panic!("{broken}\n{story}");
        }
    }

    /// This invariant is the first that breaks.
    ///
    /// # Panics
    ///
    /// With the shortest trace to another, or if none breaks.
    pub fn breaks(self, expected: Invariant) {
        match self.first_violation() {
            Some((broken, story)) if broken == expected => println!("{story}"),
            Some((broken, story)) => panic!("expected {expected:?}, found {broken:?}\n{story}"),
            None => {
                panic!("nothing breaks: the rule is not needed here, or the bounds are too small")
            }
        }
    }

    /// Something can happen: the exploration is not empty.
    ///
    /// # Panics
    ///
    /// If no state meets the goal.
    pub fn can(mut self, goal: fn(&World) -> bool) {
        self.system.goal = Some(goal);
        let checker = self.spawn();
        let discovered = checker.discoveries().into_values().next();
        let way = discovered.expect("no state meets the goal");
        println!("{}", story::tell(&way.into_vec()));
    }

    /// Every request has an answer within reach from every state, and so has a later request an outcome.
    ///
    /// # Panics
    ///
    /// With the shortest trace to a state from which there is none.
    pub fn stays_within_reach(self) {
        if let Some((stuck, story)) = self.first_dead_end() {
            panic!("{stuck}\n{story}");
        }
    }

    /// From some state there is no answer within reach.
    ///
    /// # Panics
    ///
    /// If there is one from every state, or if it is another that is missing.
    pub fn gets_stuck(self, expected: Invariant) {
        match self.first_dead_end() {
            Some((stuck, story)) if stuck == expected => println!("{story}"),
            Some((stuck, story)) => panic!("expected {expected:?}, found {stuck:?}\n{story}"),
            None => panic!(
                "nobody gets stuck: the rule is not needed here, or the bounds are too small"
            ),
        }
    }

    fn spawn(self) -> impl Checker<System> {
        // One thread explores strictly in breadth, so that the first violation is the nearest.
        self.system
            .checker()
            .threads(1)
            .finish_when(HasDiscoveries::Any)
            .spawn_bfs()
            .join()
    }

    fn first_violation(self) -> Option<(Invariant, String)> {
        let since = Instant::now();
        let checker = self.spawn();
        let (states, depth) = (checker.unique_state_count(), checker.max_depth());
        println!(
            "{states} states, at most {depth} steps, {:.1} s",
            since.elapsed().as_secs_f32()
        );
        let trace = checker.discoveries().into_values().next()?;
        let broken = trace.last_state().broken?;
        Some((broken, story::tell(&trace.into_vec())))
    }

    fn first_dead_end(self) -> Option<(Invariant, String)> {
        let since = Instant::now();
        let graph = Graph::explore(&self.system);
        let stuck = graph.stuck(&self.system);
        println!(
            "{} states, {:.1} s",
            graph.states(),
            since.elapsed().as_secs_f32()
        );
        stuck.map(|(invariant, way)| (invariant, story::tell(&way)))
    }
}
