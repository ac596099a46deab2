//! Random histories, played to a store and judged by the model.
//!
//! Every store gets the same histories, in the same order, more or fewer of them: they are drawn from one seed, which
//! `IDEMPOTENT_MODEL_SEED` replaces and which a failure names. A history names tokens by their part in it ("whoever holds the key",
//! "somebody new") rather than by value, so that shrinking one keeps its meaning.

use std::{
    cell::RefCell,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use idempotent_runtime::{
    Fingerprint, StoreKey,
    store::{
        AnyStore, Claim, Held, Outcome, Store, Token,
        conformance::{Harness, key, response},
    },
};
use proptest::{
    prelude::{BoxedStrategy, Just, ProptestConfig, Strategy, any, prop_oneof},
    sample::select,
    test_runner::{RngSeed, TestRunner},
};
use proptest_state_machine::ReferenceStateMachine;
use tokio::runtime::Builder;

use crate::{
    broken::{Broken, Flaw, with_flaw},
    custom::Plain,
    memory::Memory,
    model::{LEASE, Model, QUARTERS, TTL},
};

#[test]
fn the_memory_store_follows_the_model() {
    play::<Memory>(1_000).unwrap();
}

#[test]
fn the_custom_store_follows_the_model() {
    play::<Plain>(1_000).unwrap();
}

#[test]
fn stores_that_do_not_follow_the_model_are_found_out() {
    let play = |flaw| with_flaw(flaw, || play::<Broken>(200));
    play(Flaw::Nothing).unwrap();
    for flaw in [
        Flaw::NoFence,
        Flaw::ForgetsAttempt,
        Flaw::PurgesLapsed,
        Flaw::TtlFromAcquire,
        Flaw::RenewKeepsExpiry,
        Flaw::Overwrites,
    ] {
        play(flaw).expect_err(&format!("{flaw:?} is not found out"));
    }
}

#[test]
fn every_store_gets_the_same_histories() {
    let few = drawn(5);
    assert_eq!(few, drawn(20)[..5]);
    let mut different = few.clone();
    different.dedup();
    assert_eq!(different.len(), 5, "and they differ from each other");
}

/// The first histories, as text.
fn drawn(histories: u32) -> Vec<String> {
    let drawn = RefCell::new(Vec::new());
    each(histories, &|history| {
        drawn.borrow_mut().push(format!("{:?}", history.steps));
    })
    .expect("nothing is judged");
    drawn.into_inner()
}

/// Steps of a history.
const LENGTH: std::ops::Range<usize> = 1..80;

/// From which all histories of this process are drawn.
fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("IDEMPOTENT_MODEL_SEED") {
        Ok(seed) => seed.parse().expect("IDEMPOTENT_MODEL_SEED is a number"),
        Err(_) => 20_260_101,
    })
}

/// A random history.
struct Drawn {
    steps: Vec<Step>,
    /// How many steps were reached: shrinking first drops those that were not.
    reached: Option<Arc<AtomicUsize>>,
}

/// Draws this many histories, and shrinks the first one for which this panics.
fn each(histories: u32, judge: &dyn Fn(Drawn)) -> Result<(), String> {
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

/// Plays this many histories to the store that the harness opens.
pub(crate) fn play<H: Harness>(histories: u32) -> Result<(), String> {
    Kind::of::<H>().play(histories)
}

/// How stores of one kind are played with. Their type ends here, so that a history is compiled once and not once per
/// store.
#[derive(Clone, Copy)]
struct Kind {
    paused: bool,
    tick: Duration,
    open: fn() -> BoxFuture<'static, Opened>,
}

/// Two handles on a store, and the way to let time pass.
struct Opened {
    handles: [AnyStore; 2],
    advance: Box<dyn Fn(Duration) -> BoxFuture<'static, ()>>,
}

impl Kind {
    fn of<H: Harness>() -> Self {
        Self {
            paused: H::PAUSED,
            // Where the clock is the server's, which runs on while a loaded machine plays the history, one long enough
            // that half of it does not pass meanwhile; it costs nothing, because stored times are moved.
            tick: H::TICK * if H::PAUSED { 1 } else { 20 },
            open: || Box::pin(Opened::of::<H>()),
        }
    }

    fn play(self, histories: u32) -> Result<(), String> {
        let seed = seed();
        println!("{histories} histories from IDEMPOTENT_MODEL_SEED={seed}");
        let judged = each(histories, &|history| {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .start_paused(self.paused)
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut played = Played::begin(self).await;
                for step in history.steps {
                    if let Some(reached) = &history.reached {
                        reached.fetch_add(1, Ordering::SeqCst);
                    }
                    played.apply(&step).await;
                }
                played.end().await;
            });
        });
        judged.map_err(|error| format!("IDEMPOTENT_MODEL_SEED={seed}: {error}"))
    }
}

impl Opened {
    async fn of<H: Harness>() -> Self {
        let harness = Arc::new(H::open().await);
        let handle = async || AnyStore::new(harness.second_handle().await);
        let handles = [handle().await, handle().await];
        let advance = move |by| {
            let harness = Arc::clone(&harness);
            async move { harness.advance(by).await }.boxed()
        };
        Self {
            handles,
            advance: Box::new(advance),
        }
    }
}

/// Who makes a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    /// Whoever the key was last leased to; somebody new if nobody.
    Holder,
    /// The one who made the n-th request before this one.
    Earlier(u8),
    New,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Acquire {
        key: u8,
        who: Who,
        other: bool,
        take_over: bool,
    },
    Renew {
        key: u8,
        who: Who,
    },
    Complete {
        key: u8,
        who: Who,
        outcome: u8,
    },
    Release {
        key: u8,
        who: Who,
    },
    Abandon {
        key: u8,
        who: Who,
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
pub(crate) struct History;

impl ReferenceStateMachine for History {
    type State = ();
    type Transition = Step;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions((): &()) -> BoxedStrategy<Step> {
        let key = || 1..=3_u8;
        let who = || prop_oneof![6 => Just(Who::Holder), 2 => (0..4_u8).prop_map(Who::Earlier), 1 => Just(Who::New)];
        let claimant = || prop_oneof![5 => Just(Who::New), 2 => Just(Who::Holder), 1 => (0..4_u8).prop_map(Who::Earlier)];
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

/// A store in the middle of a history.
struct Played {
    tick: Duration,
    store: Opened,
    on_second: bool,
    /// Who made the requests so far, and what each asked for.
    claimants: Vec<(Token, u8)>,
    model: Model,
}

impl Played {
    async fn begin(kind: Kind) -> Self {
        Self {
            tick: kind.tick,
            store: (kind.open)().await,
            on_second: false,
            claimants: Vec::new(),
            model: Model::default(),
        }
    }

    async fn apply(&mut self, step: &Step) {
        match *step {
            Step::Acquire {
                key,
                who,
                other,
                take_over,
            } => {
                self.acquire(key, who, u8::from(other), take_over).await;
            }
            Step::Get { key } => self.get(key).await,
            Step::Purge { limit } => self.purge(limit).await,
            Step::Advance { ticks } => {
                (self.store.advance)(self.tick * ticks).await;
                self.model.advance(ticks);
            }
            Step::Switch => self.on_second = !self.on_second,
            Step::Renew { .. }
            | Step::Complete { .. }
            | Step::Release { .. }
            | Step::Abandon { .. } => {
                self.write(step).await;
            }
        }
    }

    /// What was promised at the end of the history still holds for every key.
    async fn end(mut self) {
        for key in 1..=3 {
            self.get(key).await;
        }
    }

    async fn acquire(&mut self, n: u8, who: Who, fingerprint: u8, take_over: bool) {
        let token = self.token(n, who);
        // A repetition asks for the same as the first time: a token is made for one request.
        let earlier = self.claimants.iter().find(|(earlier, _)| *earlier == token);
        let fingerprint = earlier.map_or(fingerprint, |(_, fingerprint)| *fingerprint);
        self.claimants.push((token, fingerprint));
        let claim = self.claim(n, fingerprint, token).take_over(take_over);
        let answer = self.store().acquire(&claim).await.unwrap();
        self.model
            .acquired(n, fingerprint, token, take_over, &answer, self.tick);
    }

    async fn write(&mut self, step: &Step) {
        match *step {
            Step::Renew { key: n, who } => {
                let held = self.held(n, who);
                let answer = self.store().renew(&held).await.unwrap();
                self.model.renewed(n, held.token, answer);
            }
            Step::Complete {
                key: n,
                who,
                outcome,
            } => {
                let (held, outcome) = (self.held(n, who), outcome_of(outcome));
                let answer = self.store().complete(&held, &outcome).await.unwrap();
                self.model.completed(n, held.token, &outcome, answer);
            }
            Step::Release { key: n, who } => {
                let token = self.token(n, who);
                let answer = self.store().release(&record(n), &token).await.unwrap();
                self.model.released(n, token, answer);
            }
            Step::Abandon { key: n, who } => {
                let token = self.token(n, who);
                let answer = self.store().abandon(&record(n), &token).await.unwrap();
                self.model.abandoned(n, token, answer);
            }
            _ => unreachable!("no write: {step:?}"),
        }
    }

    async fn get(&mut self, n: u8) {
        let answer = self.store().get(&record(n)).await.unwrap();
        self.model.shown(n, answer.as_ref(), self.tick);
    }

    async fn purge(&mut self, limit: usize) {
        let answer = self.store().purge_expired(limit).await.unwrap();
        self.model.purged(limit, answer);
    }

    fn store(&self) -> &AnyStore {
        &self.store.handles[usize::from(self.on_second)]
    }

    fn claim(&self, n: u8, fingerprint: u8, token: Token) -> Claim {
        let quarters = |n: u32| self.tick * n / QUARTERS;
        Claim::new(
            record(n),
            Fingerprint::from_bytes([fingerprint; 32]),
            token,
            quarters(LEASE),
            quarters(TTL),
        )
    }

    fn held(&self, n: u8, who: Who) -> Held {
        self.claim(n, 0, self.token(n, who)).held()
    }

    fn token(&self, n: u8, who: Who) -> Token {
        let earlier = |back: u8| {
            self.claimants
                .iter()
                .rev()
                .nth(back.into())
                .map(|(token, _)| *token)
        };
        match who {
            Who::Holder => self.model.holder(n),
            Who::Earlier(back) => earlier(back),
            Who::New => None,
        }
        .unwrap_or_else(Token::random)
    }
}

/// Keys that differ, though not in the byte by which a store may spread them: records meet where they can.
fn record(n: u8) -> StoreKey {
    key(n * 64)
}

fn outcome_of(n: u8) -> Outcome {
    match n {
        0 => Outcome::Tombstone,
        n => Outcome::Response(response(200, &[], &[n])),
    }
}
