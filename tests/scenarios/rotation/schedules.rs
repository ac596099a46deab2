//! Two versions of the service ask the store in every order.

use std::sync::Arc;

use axum::Router;
use idempotent_runtime::{
    Builder, MemoryStore, OnCrash, Policy, StoreKey,
    store::{Acquisition, Claim, Held, Outcome, Record, Store, StoreError, Token, Wake, Write},
};
use tokio::sync::Semaphore;

use super::{crash, payment, version};
use crate::support::{
    Adapter, CountingHandler, TestRequest, run_ready_tasks, send, send_in_task, with_paused_clock,
};

/// How many operations are scheduled: a request makes four until its outcome is stored, and one more to give a claim back.
const TURNS: u32 = 10;

/// The versions that run side by side.
const VERSIONS: [(usize, usize); 3] = [(0, 1), (1, 2), (2, 3)];

/// A store whose every operation takes a turn.
#[derive(Clone)]
struct InTurns {
    store: MemoryStore,
    turns: Arc<Semaphore>,
}

impl InTurns {
    async fn turn(&self) {
        self.turns.acquire().await.unwrap().forget();
    }
}

impl Store for InTurns {
    fn name(&self) -> &'static str {
        "in turns"
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.turn().await;
        self.store.acquire(claim).await
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.store.renew(held).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        self.turn().await;
        self.store.complete(held, outcome).await
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.turn().await;
        self.store.release(key, token).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.turn().await;
        self.store.abandon(key, token).await
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.turn().await;
        self.store.get(key).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.store.purge_expired(limit).await
    }

    fn attach(&self, wake: Wake) {
        self.store.attach(wake);
    }

    fn inspectable(&self) -> Option<&dyn idempotent_runtime::store::Inspectable> {
        self.store.inspectable()
    }
}

/// Two versions on one store, each with its turns.
struct Pair {
    store: MemoryStore,
    handler: CountingHandler,
    apps: [Router; 2],
    turns: [Arc<Semaphore>; 2],
}

impl Pair {
    fn new(versions: (usize, usize), policy: &Policy) -> Self {
        let (store, handler) = (MemoryStore::new(), CountingHandler::new());
        let turns = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
        let app = |builder: Builder, turns: &Arc<Semaphore>| {
            let store = InTurns {
                store: store.clone(),
                turns: Arc::clone(turns),
            };
            let engine = builder.policy(policy.clone()).store(store).build().unwrap();
            Adapter::Layer.app(&engine, &handler)
        };
        let apps = [
            app(version(versions.0), &turns[0]),
            app(version(versions.1), &turns[1]),
        ];
        Self {
            store,
            handler,
            apps,
            turns,
        }
    }

    /// Sends a request to each, which take their turns as the bits of `schedule` say, and then as they come. What the two
    /// hear.
    async fn run(&self, schedule: u32, requests: &[TestRequest; 2]) -> [String; 2] {
        let paying = [0, 1].map(|n: usize| send_in_task(&self.apps[n], &requests[n]));
        run_ready_tasks().await;
        for turn in 0..TURNS {
            self.turns[(schedule >> turn & 1) as usize].add_permits(1);
            run_ready_tasks().await;
        }
        for turns in &self.turns {
            turns.add_permits(1_000_000);
        }
        let mut heard = [String::new(), String::new()];
        for (heard, paying) in heard.iter_mut().zip(paying) {
            let answer = paying.await.unwrap();
            *heard = match answer.status.as_u16() {
                201 => answer.text().to_owned(),
                _ => answer.code(),
            };
        }
        heard
    }
}

/// Every order in which two requests have as many turns.
fn schedules() -> impl Iterator<Item = u32> {
    (0_u32..1 << TURNS).filter(|schedule| schedule.count_ones() == TURNS / 2)
}

fn in_every_order(
    policy: &Policy,
    requests: &[TestRequest; 2],
    check: &impl AsyncFn((usize, usize), &Pair, [String; 2]),
) {
    for versions in VERSIONS {
        with_paused_clock(async {
            for schedule in schedules() {
                let pair = Pair::new(versions, policy);
                let heard = pair.run(schedule, requests).await;
                check(versions, &pair, heard).await;
            }
        });
    }
}

fn the_same() -> [TestRequest; 2] {
    [payment(), payment()]
}

#[test]
fn of_two_versions_one_executes_whatever_the_order() {
    in_every_order(
        &Policy::new(),
        &the_same(),
        &async |versions, pair, heard| {
            assert_eq!(pair.handler.starts(), 1, "{versions:?}");
            assert_eq!(heard, ["charge 1", "charge 1"], "{versions:?}");
            // And nothing is left that hides the outcome.
            for app in &pair.apps {
                send(app, &payment()).await.assert_replay_of_charge(1);
            }
        },
    );
}

#[test]
fn of_two_versions_that_do_not_wait_at_most_one_executes() {
    in_every_order(
        &Policy::new().wait(false),
        &the_same(),
        &async |versions, pair, heard| {
            assert!(pair.handler.starts() <= 1, "{versions:?} {heard:?}");
            for heard in &heard {
                assert!(
                    ["charge 1", "conflict"].contains(&heard.as_str()),
                    "{heard}"
                );
            }
            let both = ["conflict", "conflict"];
            assert_ne!(heard, both, "{versions:?}: of two that meet, one goes on");
            // Whoever had a conflict repeats it, and the effect is there once.
            for app in pair.apps.iter().rev() {
                run_ready_tasks().await;
                let again = send(app, &payment()).await;
                assert_eq!((again.status.as_u16(), again.text()), (201, "charge 1"));
            }
            assert_eq!(pair.handler.starts(), 1, "{versions:?}");
        },
    );
}

#[test]
fn of_two_different_requests_one_executes_and_the_other_is_a_mismatch() {
    let requests = [payment(), payment().body("{}")];
    in_every_order(
        &Policy::new(),
        &requests,
        &async |versions, pair, mut heard| {
            heard.sort();
            assert_eq!(heard, ["charge 1", "mismatch"], "{versions:?}");
            assert_eq!(pair.handler.starts(), 1, "{versions:?}");
        },
    );
}

#[test]
fn of_two_versions_one_takes_over_whatever_the_order() {
    let policy = Policy::new().on_crash(OnCrash::Retry);
    for crashed in [1, 2] {
        for versions in [(1, 1), (1, 2), (2, 2)] {
            with_paused_clock(async {
                for schedule in schedules().step_by(7) {
                    let pair = Pair::new(versions, &policy);
                    let store = pair.store.clone();
                    crash(Adapter::Layer, crashed, &policy, store, &pair.handler).await;
                    let heard = pair.run(schedule, &the_same()).await;
                    assert_eq!(heard, ["charge 2", "charge 2"], "{versions:?}");
                    assert_eq!(pair.handler.attempts(), [1, 2], "{versions:?}");
                }
            });
        }
    }
}
