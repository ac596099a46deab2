//! Random histories of a store: which operations it gets, in which order.

use std::sync::{Arc, OnceLock, atomic::AtomicUsize};

use proptest::{
    prelude::{BoxedStrategy, Just, ProptestConfig, Strategy, any, prop_oneof},
    sample::select,
    test_runner::{RngSeed, TestRunner},
};
use proptest_state_machine::ReferenceStateMachine;

/// Steps of a history.
const LENGTH: std::ops::Range<usize> = 1..80;

/// From which all histories of this process are drawn.
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
    /// How many steps were reached: shrinking first drops those that were not.
    pub(super) reached: Option<Arc<AtomicUsize>>,
}

/// Draws this many histories, and shrinks the first one for which this panics.
pub(super) fn each(histories: u32, judge: &dyn Fn(Drawn)) -> Result<(), String> {
    let config = ProptestConfig {
        cases: histories,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed()),
        ..ProptestConfig::default()
    };
    let history = History::sequential_strategy(LENGTH);
    let judged = TestRunner::new(config).run(&history, |((), steps, reached)| {
        judge(Drawn { steps, reached });
        Ok(())
    });
    judged.map_err(|error| error.to_string())
}

/// Requester makes a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Requester {
    /// Whoever the key was last leased to; somebody new if nobody.
    Holder,
    /// The one who made the n-th request before this one.
    Earlier(u8),
    New,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Acquire {
        key: u8,
        who: Requester,
        other: bool,
        take_over: bool,
    },
    Renew {
        key: u8,
        who: Requester,
    },
    Complete {
        key: u8,
        who: Requester,
        outcome: u8,
    },
    Release {
        key: u8,
        who: Requester,
    },
    Abandon {
        key: u8,
        who: Requester,
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
    /// From here on, the other handle.
    Switch,
}

/// Any step may follow any other; the model judges the answers when it knows them.
pub(super) struct History;

impl ReferenceStateMachine for History {
    type State = ();
    type Transition = Step;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions((): &()) -> BoxedStrategy<Step> {
        let key = || 1..=3_u8;
        let who = || prop_oneof![6 => Just(Requester::Holder), 2 => (0..4_u8).prop_map(Requester::Earlier), 1 => Just(Requester::New)];
        let claimant = || prop_oneof![5 => Just(Requester::New), 2 => Just(Requester::Holder), 1 => (0..4_u8).prop_map(Requester::Earlier)];
        let one_in_five = || prop_oneof![4 => Just(false), 1 => Just(true)];
        prop_oneof![
            10 => (key(), claimant(), one_in_five(), any::<bool>())
                .prop_map(|(key, who, other, take_over)| Step::Acquire { key, who, other, take_over }),
            4 => (key(), who()).prop_map(|(key, who)| Step::Renew { key, who }),
            5 => (key(), who(), 0..3_u8).prop_map(|(key, who, outcome)| Step::Complete { key, who, outcome }),
            2 => (key(), who()).prop_map(|(key, who)| Step::Release { key, who }),
            2 => (key(), who()).prop_map(|(key, who)| Step::Abandon { key, who }),
            4 => key().prop_map(|key| Step::Get { key }),
            2 => select(vec![0, 1, 2, 100]).prop_map(|limit| Step::Purge { limit }),
            6 => select(vec![1, 5, 9, 11, 60, 95, 101, 115]).prop_map(|ticks| Step::Advance { ticks }),
            1 => Just(Step::Switch),
        ]
        .boxed()
    }

    fn apply((): (), _: &Step) {}
}
