//! A store that fails on command.

use std::{
    collections::{HashMap, VecDeque},
    future::{Future, pending},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use idempotent_runtime::{
    MemoryStore, StoreKey,
    store::{
        Acquisition, Claim, Held, Outcome, Record, Store, StoreError, StoreErrorKind, Token, Wake,
        Write,
    },
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::{sync::Semaphore, task::yield_now};

/// What a store can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Acquire,
    Renew,
    Complete,
    Release,
    Abandon,
    Get,
}

/// How it fails.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The request does not reach the store.
    Unreachable,
    /// The request is carried out, and its reply is lost.
    ReplyLost,
    /// Nothing comes back, and nothing was carried out.
    Hang,
    /// Nothing comes back, though the request was carried out.
    HangAfterApplying,
    /// The store answers with this error.
    Error(StoreErrorKind),
    /// The store answers with this error to a response, and takes a tombstone.
    RejectResponse(StoreErrorKind),
    /// The request reaches the store when a permit is there.
    HoldRequest(Arc<Semaphore>),
    /// The request is carried out, and its reply comes back when a permit is there.
    HoldReply(Arc<Semaphore>),
    /// The request takes two turns of its task on its way, and two back.
    Slow,
    /// No fault: for the places before one in a sequence.
    None,
}

/// A memory store behind a connection that fails on command. Clones share it.
#[derive(Clone)]
pub(crate) struct FaultyStore(Arc<Inner>);

struct Inner {
    store: MemoryStore,
    state: Mutex<State>,
    mute: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Faults of the next calls, one each.
    next: HashMap<Operation, VecDeque<Fault>>,
    /// Faults of all calls after those.
    always: HashMap<Operation, Fault>,
    calls: HashMap<Operation, usize>,
    /// All that was ever written, as text.
    written: Vec<String>,
    /// Random faults, and how many in a hundred calls.
    chaos: Option<(StdRng, u32)>,
    /// The newest claim.
    claim: Option<(StoreKey, Token)>,
    /// Each key once.
    keys: Vec<StoreKey>,
}

impl FaultyStore {
    pub(crate) fn new() -> Self {
        Self::over(MemoryStore::new())
    }

    pub(crate) fn over(store: MemoryStore) -> Self {
        Self(Arc::new(Inner {
            store,
            state: Mutex::default(),
            mute: AtomicBool::new(false),
        }))
    }

    /// A store that never wakes anybody.
    pub(crate) fn without_wakes() -> Self {
        let store = Self::new();
        store.0.mute.store(true, Ordering::SeqCst);
        store
    }

    /// A store whose every operation takes some turns.
    pub(crate) fn slow() -> Self {
        let store = Self::new();
        for operation in [
            Operation::Acquire,
            Operation::Renew,
            Operation::Complete,
            Operation::Release,
            Operation::Abandon,
            Operation::Get,
        ] {
            store.fail_always(operation, Fault::Slow);
        }
        store
    }

    /// The next call of this operation fails like this, after those already told.
    pub(crate) fn fail_next(&self, operation: Operation, fault: Fault) {
        let mut state = self.0.state.lock().unwrap();
        state.next.entry(operation).or_default().push_back(fault);
    }

    /// Every call of this operation fails like this.
    pub(crate) fn fail_always(&self, operation: Operation, fault: Fault) {
        self.0.state.lock().unwrap().always.insert(operation, fault);
    }

    /// So many in a hundred calls fail in a random way.
    pub(crate) fn fail_randomly(&self, seed: u64, percent: u32) {
        let random = StdRng::seed_from_u64(seed);
        self.0.state.lock().unwrap().chaos = Some((random, percent));
    }

    /// Loses the record of the newest claim, as a store that was flushed does.
    pub(crate) async fn lose_record(&self) {
        let (key, token) = self.0.state.lock().unwrap().claim.unwrap();
        self.0.store.release(&key, &token).await.unwrap();
    }

    /// Every operation is well again.
    pub(crate) fn heal(&self) {
        let mut state = self.0.state.lock().unwrap();
        state.chaos = None;
        state.next.clear();
        state.always.clear();
    }

    /// How often this operation was called.
    pub(crate) fn calls(&self, operation: Operation) -> usize {
        let state = self.0.state.lock().unwrap();
        state.calls.get(&operation).copied().unwrap_or(0)
    }

    /// All that was ever written, as text.
    pub(crate) fn written(&self) -> String {
        self.0.state.lock().unwrap().written.join("\n")
    }

    /// The keys that were ever claimed, in their order.
    pub(crate) fn keys(&self) -> Vec<StoreKey> {
        self.0.state.lock().unwrap().keys.clone()
    }

    fn fault(&self, operation: Operation) -> Fault {
        let mut state = self.0.state.lock().unwrap();
        *state.calls.entry(operation).or_default() += 1;
        if let Some((random, percent)) = &mut state.chaos
            && random.random_ratio(*percent, 100)
        {
            let faults = [
                Fault::Unreachable,
                Fault::ReplyLost,
                Fault::ReplyLost,
                Fault::Hang,
                Fault::HangAfterApplying,
                Fault::Slow,
            ];
            return faults.choose(random).unwrap().clone();
        }
        let next = state.next.get_mut(&operation).and_then(VecDeque::pop_front);
        next.or_else(|| state.always.get(&operation).cloned())
            .unwrap_or(Fault::None)
    }

    fn note(&self, what: String) {
        self.0.state.lock().unwrap().written.push(what);
    }

    fn claimed(&self, claim: &Claim) {
        let mut state = self.0.state.lock().unwrap();
        state.claim = Some((claim.key, claim.token));
        if !state.keys.contains(&claim.key) {
            state.keys.push(claim.key);
        }
    }

    async fn call<T>(
        &self,
        operation: Operation,
        run: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.suffer(self.fault(operation), run).await
    }

    async fn suffer<T>(
        &self,
        fault: Fault,
        run: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match fault {
            Fault::None => run.await,
            Fault::Unreachable => Err(error(StoreErrorKind::Unavailable)),
            Fault::ReplyLost => {
                run.await?;
                Err(error(StoreErrorKind::Unavailable))
            }
            Fault::Hang => pending().await,
            Fault::HangAfterApplying => {
                run.await?;
                pending().await
            }
            Fault::Error(kind) | Fault::RejectResponse(kind) => Err(error(kind)),
            Fault::Slow => {
                yield_now().await;
                yield_now().await;
                let answer = run.await;
                yield_now().await;
                yield_now().await;
                answer
            }
            Fault::HoldRequest(permits) => {
                permits.acquire().await.unwrap().forget();
                run.await
            }
            Fault::HoldReply(permits) => {
                let answer = run.await;
                permits.acquire().await.unwrap().forget();
                answer
            }
        }
    }
}

fn error(kind: StoreErrorKind) -> StoreError {
    StoreError::new("faulty", kind).with_source("as the scenario demands")
}

impl Store for FaultyStore {
    fn name(&self) -> &'static str {
        "faulty"
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.note(format!("{claim:?} {:?}", claim.key.as_bytes()));
        self.claimed(claim);
        self.call(Operation::Acquire, self.0.store.acquire(claim))
            .await
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.call(Operation::Renew, self.0.store.renew(held)).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        if let Outcome::Response(response) = outcome {
            self.note(String::from_utf8_lossy(response.as_bytes()).into_owned());
        }
        let fault = match (self.fault(Operation::Complete), outcome) {
            (Fault::RejectResponse(_), Outcome::Tombstone) => Fault::None,
            (fault, _) => fault,
        };
        self.suffer(fault, self.0.store.complete(held, outcome))
            .await
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.call(Operation::Release, self.0.store.release(key, token))
            .await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.call(Operation::Abandon, self.0.store.abandon(key, token))
            .await
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.call(Operation::Get, self.0.store.get(key)).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.0.store.purge_expired(limit).await
    }

    fn attach(&self, wake: Wake) {
        if !self.0.mute.load(Ordering::SeqCst) {
            self.0.store.attach(wake);
        }
    }
}
