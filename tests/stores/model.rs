//! Random histories, played to a store and compared with a model of the contract.
//!
//! Every store gets the same histories in the same order, some stores more of them than others. They are drawn from one
//! seed, which `IDEMPOTENT_MODEL_SEED` replaces and which a failure names. A history names a token by its role ("the holder
//! of the key", "a new one") and not by its value, so that it keeps its meaning when it is shrunk.

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

use self::{
    contract::{LEASE, Model, QUARTERS, TTL},
    history::{Named, Role, Step, each, seed},
};
use crate::{
    broken::{BrokenHarness, Flaw, with_flaw},
    custom::PlainHarness,
    memory::MemoryHarness,
};

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
fn stores_with_a_flaw_do_not_follow_the_model() {
    let play = |flaw| with_flaw(flaw, || play::<BrokenHarness>(200));
    play(Flaw::Nothing).unwrap();
    for flaw in [
        Flaw::NoFence,
        Flaw::ForgetsAttempt,
        Flaw::PurgesLapsed,
        Flaw::TtlFromAcquire,
        Flaw::RenewKeepsExpiry,
        Flaw::Overwrites,
        Flaw::TakesOverAny,
        Flaw::TakesOverLive,
        Flaw::NamesTheClaim,
    ] {
        play(flaw).expect_err(&format!("{flaw:?} is not detected"));
    }
}

#[test]
fn every_store_gets_the_same_histories() {
    let few = drawn(5);
    assert_eq!(few, drawn(20)[..5]);
    let mut different = few.clone();
    different.dedup();
    assert_eq!(different.len(), 5, "they differ from each other");
}

/// The first histories, as text.
fn drawn(histories: u32) -> Vec<String> {
    let drawn = RefCell::new(Vec::new());
    each(histories, &|history| {
        drawn.borrow_mut().push(format!("{:?}", history.steps));
    })
    .expect("nothing is compared");
    drawn.into_inner()
}

/// Plays this many histories to the store that the harness opens.
pub(crate) fn play<H: Harness>(histories: u32) -> Result<(), String> {
    StoreKind::of::<H>().play(histories)
}

/// How the stores of one harness are opened. Their type is erased here, so that a history is compiled once and not once per
/// store.
#[derive(Clone, Copy)]
struct StoreKind {
    paused: bool,
    tick: Duration,
    open: fn() -> BoxFuture<'static, StoreUnderTest>,
}

/// Two handles on a store, and the means to let time pass.
struct StoreUnderTest {
    handles: [AnyStore; 2],
    advance: Box<dyn Fn(Duration) -> BoxFuture<'static, ()>>,
}

impl StoreKind {
    fn of<H: Harness>() -> Self {
        Self {
            paused: H::PAUSED,
            // A server's clock runs while the history is played, and on a loaded machine half a tick must not pass
            // meanwhile. A long tick costs nothing, because the stored times are moved instead.
            tick: H::TICK * if H::PAUSED { 1 } else { 20 },
            open: || Box::pin(StoreUnderTest::of::<H>()),
        }
    }

    fn play(self, histories: u32) -> Result<(), String> {
        let seed = seed();
        println!("{histories} histories from IDEMPOTENT_MODEL_SEED={seed}");
        let compared = each(histories, &|history| {
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
        compared.map_err(|error| format!("IDEMPOTENT_MODEL_SEED={seed}: {error}"))
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
    /// The token of each acquire so far, and its fingerprint.
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
                role,
                other,
                take_over,
            } => {
                self.acquire(key, role, u8::from(other), take_over).await;
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

    /// Compares every record once more.
    async fn end(mut self) {
        for key in 1..=3 {
            self.get(key).await;
        }
    }

    async fn acquire(&mut self, n: u8, role: Role, fingerprint: u8, named: Named) {
        let (token, take_over) = (self.token(n, role), self.named(n, named));
        // A repetition has the fingerprint of the first time: a token is made for one request.
        let earlier = self.claimants.iter().find(|(earlier, _)| *earlier == token);
        let fingerprint = earlier.map_or(fingerprint, |(_, fingerprint)| *fingerprint);
        self.claimants.push((token, fingerprint));
        let mut claim = self.claim(n, fingerprint, token);
        claim.take_over = take_over;
        let answer = self.store().acquire(&claim).await.unwrap();
        self.model
            .acquired(n, fingerprint, token, take_over, &answer, self.tick);
    }

    async fn write(&mut self, step: &Step) {
        match *step {
            Step::Renew { key: n, role } => {
                let held = self.held(n, role);
                let answer = self.store().renew(&held).await.unwrap();
                self.model.renewed(n, held.token, answer);
            }
            Step::Complete {
                key: n,
                role,
                outcome,
            } => {
                let (held, outcome) = (self.held(n, role), outcome_of(outcome));
                let answer = self.store().complete(&held, &outcome).await.unwrap();
                self.model.completed(n, held.token, &outcome, answer);
            }
            Step::Release { key: n, role } => {
                let token = self.token(n, role);
                let answer = self.store().release(&record(n), &token).await.unwrap();
                self.model.released(n, token, answer);
            }
            Step::Abandon { key: n, role } => {
                let token = self.token(n, role);
                let answer = self.store().abandon(&record(n), &token).await.unwrap();
                self.model.abandoned(n, token, answer);
            }
            _ => unreachable!("{step:?} is not a write"),
        }
    }

    async fn get(&mut self, n: u8) {
        let answer = self.store().get(&record(n)).await.unwrap();
        self.model.got(n, answer.as_ref(), self.tick);
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

    fn held(&self, n: u8, role: Role) -> Held {
        self.claim(n, 0, self.token(n, role)).held()
    }

    fn named(&self, n: u8, lease: Named) -> Option<Token> {
        let named = match lease {
            Named::Nothing => return None,
            Named::Current => self.model.holder(n),
            Named::Stale => self.model.stale(n),
            Named::Random => None,
        };
        Some(named.unwrap_or_else(Token::random))
    }

    fn token(&self, n: u8, role: Role) -> Token {
        let earlier = |back: u8| {
            self.claimants
                .iter()
                .rev()
                .nth(back.into())
                .map(|(token, _)| *token)
        };
        match role {
            Role::Holder => self.model.holder(n),
            Role::Earlier(back) => earlier(back),
            Role::New => None,
        }
        .unwrap_or_else(Token::random)
    }
}

/// Different keys, but equal in the byte by which a store may spread them over its parts.
fn record(n: u8) -> StoreKey {
    key(n * 64)
}

fn outcome_of(n: u8) -> Outcome {
    match n {
        0 => Outcome::Tombstone,
        n => Outcome::Response(response(200, &[], &[n])),
    }
}
