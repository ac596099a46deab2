//! Random histories: which operations a store gets, in which order.

use std::sync::{Arc, OnceLock, atomic::AtomicUsize};

use proptest::{
    prelude::{BoxedStrategy, Just, ProptestConfig, Strategy, prop_oneof},
    sample::select,
    test_runner::{RngSeed, TestRunner},
};
use proptest_state_machine::ReferenceStateMachine;

/// How many steps a history has.
const LENGTH: std::ops::Range<usize> = 1..80;

/// The seed of all histories of this process.
pub(super) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("IDEMPOTENT_MODEL_SEED") {
        Ok(seed) => seed.parse().expect("IDEMPOTENT_MODEL_SEED is a number"),
        Err(_) => 20_260_101,
    })
}

/// A random history.
pub(super) struct Drawn {
    pub(super) steps: Vec<Step>,
    /// How many steps were reached; shrinking drops the others first.
    pub(super) reached: Option<Arc<AtomicUsize>>,
}

/// Draws this many histories, and shrinks the first one that panics.
pub(super) fn each(histories: u32, play: &dyn Fn(Drawn)) -> Result<(), String> {
    let config = ProptestConfig {
        cases: histories,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed()),
        ..ProptestConfig::default()
    };
    let history = History::sequential_strategy(LENGTH);
    let played = TestRunner::new(config).run(&history, |((), steps, reached)| {
        play(Drawn { steps, reached });
        Ok(())
    });
    played.map_err(|error| error.to_string())
}

/// Whose token an operation carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// The holder of the key's newest lease; a new one if there is none.
    Holder,
    /// That of the n-th last acquire.
    Earlier(u8),
    New,
}

/// The lease that a claim takes over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Named {
    Nothing,
    /// The lease that the key has; a random one if it has none.
    Current,
    /// The lease that the key had before; a random one if there was none.
    Stale,
    /// A lease that no key ever had.
    Random,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Acquire {
        key: u8,
        role: Role,
        other: bool,
        take_over: Named,
    },
    Renew {
        key: u8,
        role: Role,
    },
    Complete {
        key: u8,
        role: Role,
        outcome: u8,
    },
    Release {
        key: u8,
        role: Role,
    },
    Abandon {
        key: u8,
        role: Role,
    },
    Get {
        key: u8,
    },
    Purge {
        limit: usize,
    },
    Advance {
        ticks: u32,
    },
    /// Uses the other handle from here on.
    Switch,
}

/// Any step may follow any other.
pub(super) struct History;

impl ReferenceStateMachine for History {
    type State = ();
    type Transition = Step;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions((): &()) -> BoxedStrategy<Step> {
        let key = || 1..=3_u8;
        let role = || prop_oneof![6 => Just(Role::Holder), 2 => (0..4_u8).prop_map(Role::Earlier), 1 => Just(Role::New)];
        let claimant = || prop_oneof![5 => Just(Role::New), 2 => Just(Role::Holder), 1 => (0..4_u8).prop_map(Role::Earlier)];
        let lease = || prop_oneof![4 => Just(Named::Nothing), 4 => Just(Named::Current), 2 => Just(Named::Stale), 1 => Just(Named::Random)];
        let one_in_five = || prop_oneof![4 => Just(false), 1 => Just(true)];
        prop_oneof![
            10 => (key(), claimant(), one_in_five(), lease())
                .prop_map(|(key, role, other, take_over)| Step::Acquire { key, role, other, take_over }),
            4 => (key(), role()).prop_map(|(key, role)| Step::Renew { key, role }),
            5 => (key(), role(), 0..3_u8).prop_map(|(key, role, outcome)| Step::Complete { key, role, outcome }),
            2 => (key(), role()).prop_map(|(key, role)| Step::Release { key, role }),
            2 => (key(), role()).prop_map(|(key, role)| Step::Abandon { key, role }),
            4 => key().prop_map(|key| Step::Get { key }),
            2 => select(vec![0, 1, 2, 100]).prop_map(|limit| Step::Purge { limit }),
            6 => select(vec![1, 5, 9, 11, 60, 95, 101, 115]).prop_map(|ticks| Step::Advance { ticks }),
            1 => Just(Step::Switch),
        ]
        .boxed()
    }

    fn apply((): (), _: &Step) {}
}
