//! Random histories, played to a store and judged by the model.
//!
//! Every store gets the same histories, in the same order, more or fewer of them: they are drawn from one seed, which
//! `IDEMPOTENT_MODEL_SEED` replaces and which a failure names. A history names tokens by their part in it ("whoever holds the key",
//! "somebody new") rather than by value, so that shrinking one keeps its meaning.

use std::{
    cell::RefCell,
    sync::{Arc, atomic::Ordering},
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
use tokio::runtime::Builder;

use crate::{
    broken::{BrokenHarness, Flaw, with_flaw},
    custom::PlainHarness,
    memory::MemoryHarness,
};

use contract::{LEASE, Model, QUARTERS, TTL};
use history::{Requester, Step, each, seed};

mod contract;
mod history;

#[test]
fn the_memory_store_follows_the_model() {
    play::<MemoryHarness>(1_000).unwrap();
}

#[test]
fn the_custom_store_follows_the_model() {
    play::<PlainHarness>(1_000).unwrap();
}

#[test]
fn stores_that_do_not_follow_the_model_are_found_out() {
    let play = |flaw| with_flaw(flaw, || play::<BrokenHarness>(200));
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

/// Plays this many histories to the store that the harness opens.
pub(crate) fn play<H: Harness>(histories: u32) -> Result<(), String> {
    StoreKind::of::<H>().play(histories)
}

/// How stores of one kind are played with. Their type ends here, so that a history is compiled once and not once per
/// store.
#[derive(Clone, Copy)]
struct StoreKind {
    paused: bool,
    tick: Duration,
    open: fn() -> BoxFuture<'static, StoreUnderTest>,
}

/// Two handles on a store, and the way to let time pass.
struct StoreUnderTest {
    handles: [AnyStore; 2],
    advance: Box<dyn Fn(Duration) -> BoxFuture<'static, ()>>,
}

impl StoreKind {
    fn of<H: Harness>() -> Self {
        Self {
            paused: H::PAUSED,
            // Where the clock is the server's, which runs on while a loaded machine plays the history, one long enough
            // that half of it does not pass meanwhile; it costs nothing, because stored times are moved.
            tick: H::TICK * if H::PAUSED { 1 } else { 20 },
            open: || Box::pin(StoreUnderTest::of::<H>()),
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
                let mut playback = Playback::begin(self).await;
                for step in history.steps {
                    if let Some(reached) = &history.reached {
                        reached.fetch_add(1, Ordering::SeqCst);
                    }
                    playback.apply(&step).await;
                }
                playback.end().await;
            });
        });
        judged.map_err(|error| format!("IDEMPOTENT_MODEL_SEED={seed}: {error}"))
    }
}

impl StoreUnderTest {
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

/// A store in the middle of a history.
struct Playback {
    tick: Duration,
    store: StoreUnderTest,
    on_second: bool,
    /// Requester made the requests so far, and what each asked for.
    claimants: Vec<(Token, u8)>,
    model: Model,
}

impl Playback {
    async fn begin(kind: StoreKind) -> Self {
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

    async fn acquire(&mut self, n: u8, who: Requester, fingerprint: u8, take_over: bool) {
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

    fn held(&self, n: u8, who: Requester) -> Held {
        self.claim(n, 0, self.token(n, who)).held()
    }

    fn token(&self, n: u8, who: Requester) -> Token {
        let earlier = |back: u8| {
            self.claimants
                .iter()
                .rev()
                .nth(back.into())
                .map(|(token, _)| *token)
        };
        match who {
            Requester::Holder => self.model.holder(n),
            Requester::Earlier(back) => earlier(back),
            Requester::New => None,
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
