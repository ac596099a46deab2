//! A store that fails on command.

use std::{
    collections::{HashMap, VecDeque},
    future::{Future, pending},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use idempotent_runtime::{
    MemoryStore, StoreKey,
    store::{
        self, Acquisition, Claim, Held, Outcome, Record, StepLog, StepsRead, Store, StoreError,
        StoreErrorKind, Token, Wake, Write,
    },
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::{sync::Semaphore, task::yield_now};

use super::poll_once;

/// An operation of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Acquire,
    Renew,
    Complete,
    Release,
    Abandon,
    Get,
    ReadSteps,
    AppendStep,
}

/// How an operation fails.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Fails as unavailable without having reached the store.
    Unreachable,
    /// Is applied, and then fails as unavailable: the reply was lost.
    ReplyLost,
    /// Never returns, and was not applied.
    Hang,
    /// Never returns, although it was applied.
    HangAfterApplying,
    /// Fails with this error without having been applied.
    Error(StoreErrorKind),
    /// Fails with this error if a response is to be stored; a tombstone is stored.
    RejectResponse(StoreErrorKind),
    /// Fails as unavailable at once, and is applied once it gets a permit, whatever its caller did meanwhile. For an
    /// acquire.
    Late(Arc<Semaphore>),
    /// Is applied once it gets a permit.
    HoldRequest(Arc<Semaphore>),
    /// Is applied, and returns once it gets a permit.
    HoldReply(Arc<Semaphore>),
    /// Says that the key belongs to another request, and names this one's own fingerprint. For an acquire.
    OwnMismatch,
    /// Yields twice before it is applied and twice before it returns.
    Slow,
    /// Is applied, and keeps its thread until the paused clock has moved this far.
    Blocks(Duration),
    /// No fault, for the calls before a faulty one.
    None,
}

/// A memory store whose operations fail on command. Clones share it.
#[derive(Clone)]
pub(crate) struct FaultyStore(Arc<Inner>);

struct Inner {
    store: MemoryStore,
    state: Mutex<State>,
    without_wakes: AtomicBool,
    at_once: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Faults of the next calls, in their order.
    next: HashMap<Operation, VecDeque<Fault>>,
    /// Faults of all further calls.
    always: HashMap<Operation, Fault>,
    calls: HashMap<Operation, usize>,
    /// Everything that was ever written, as text.
    written: Vec<String>,
    /// The source of random faults, and in how many of a hundred calls they happen.
    chaos: Option<(StdRng, u32)>,
    /// The last claim.
    claim: Option<(StoreKey, Token)>,
    /// Each claimed key once.
    keys: Vec<StoreKey>,
    /// The tokens that claimed, in the order of their first claims.
    tokens: Vec<Token>,
}

impl FaultyStore {
    pub(crate) fn new() -> Self {
        Self::over(MemoryStore::new())
    }

    pub(crate) fn over(store: MemoryStore) -> Self {
        Self(Arc::new(Inner {
            store,
            state: Mutex::default(),
            without_wakes: AtomicBool::new(false),
            at_once: AtomicBool::new(false),
        }))
    }

    /// A store that sends no wakes.
    pub(crate) fn without_wakes() -> Self {
        let store = Self::new();
        store.0.without_wakes.store(true, Ordering::SeqCst);
        store
    }

    /// A store that claims and completes without a future, as one in memory does, unless the fault takes time. It sends no
    /// wakes.
    pub(crate) fn at_once() -> Self {
        let store = Self::without_wakes();
        store.0.at_once.store(true, Ordering::SeqCst);
        store
    }

    /// A store whose every operation takes several polls.
    pub(crate) fn slow() -> Self {
        let store = Self::new();
        for operation in [
            Operation::Acquire,
            Operation::Renew,
            Operation::Complete,
            Operation::Release,
            Operation::Abandon,
            Operation::Get,
            Operation::ReadSteps,
            Operation::AppendStep,
        ] {
            store.fail_always(operation, Fault::Slow);
        }
        store
    }

    /// The next call of this operation fails like this; further calls of this function are for the calls after it.
    pub(crate) fn fail_next(&self, operation: Operation, fault: Fault) {
        let mut state = self.0.state.lock().unwrap();
        state.next.entry(operation).or_default().push_back(fault);
    }

    /// Every call of this operation fails like this.
    pub(crate) fn fail_always(&self, operation: Operation, fault: Fault) {
        self.0.state.lock().unwrap().always.insert(operation, fault);
    }

    /// This percentage of all calls fails in a random way.
    pub(crate) fn fail_randomly(&self, seed: u64, percent: u32) {
        let random = StdRng::seed_from_u64(seed);
        self.0.state.lock().unwrap().chaos = Some((random, percent));
    }

    /// Loses the record of the last claim, as a store that was flushed does.
    pub(crate) async fn lose_record(&self) {
        let (key, token) = self.0.state.lock().unwrap().claim.unwrap();
        self.0.store.release(&key, &token).await.unwrap();
    }

    /// Ends all faults.
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

    /// Everything that was ever written, as text.
    pub(crate) fn written(&self) -> String {
        self.0.state.lock().unwrap().written.join("\n")
    }

    /// The keys that were ever claimed, in the order of their first claims.
    pub(crate) fn keys(&self) -> Vec<StoreKey> {
        self.0.state.lock().unwrap().keys.clone()
    }

    /// The tokens that ever claimed a key, in the order of their first claims.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.0.state.lock().unwrap().tokens.clone()
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

    /// What an operation answers without a future; `None` if it was not begun.
    fn answer<T>(&self, operation: Operation, run: impl Future<Output = T>) -> Option<T> {
        if !self.0.at_once.load(Ordering::SeqCst) || self.takes_time(operation) {
            return None;
        }
        match pin!(run).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => panic!("{operation:?} takes time"),
        }
    }

    /// Whether the next call of this operation has to be waited for.
    fn takes_time(&self, operation: Operation) -> bool {
        let state = self.0.state.lock().unwrap();
        let next = state.next.get(&operation).and_then(VecDeque::front);
        let fault = next.or_else(|| state.always.get(&operation));
        let slow = matches!(
            fault,
            Some(
                Fault::Hang
                    | Fault::HangAfterApplying
                    | Fault::HoldRequest(_)
                    | Fault::HoldReply(_)
                    | Fault::Slow
            )
        );
        slow || state.chaos.is_some()
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
        if !state.tokens.contains(&claim.token) {
            state.tokens.push(claim.token);
        }
    }

    async fn call<T>(
        &self,
        operation: Operation,
        run: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.apply(self.fault(operation), run).await
    }

    async fn apply<T>(
        &self,
        fault: Fault,
        run: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match fault {
            // Where it means nothing.
            Fault::None | Fault::OwnMismatch => run.await,
            Fault::Unreachable | Fault::Late(_) => Err(error(StoreErrorKind::Unavailable)),
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
            Fault::Blocks(time) => {
                let answer = run.await;
                // The clock has moved after the first poll; what it waits for after that are other tasks.
                let _moved = poll_once(tokio::time::advance(time)).await;
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
    StoreError::new("faulty", kind).with_source("a fault of the scenario")
}

impl Store for FaultyStore {
    fn name(&self) -> &'static str {
        "faulty"
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.note(format!("{claim:?} {:?}", claim.key.as_bytes()));
        self.claimed(claim);
        let fault = self.fault(Operation::Acquire);
        if let Fault::Late(permits) = &fault {
            let (inner, claim, permits) = (Arc::clone(&self.0), claim.clone(), Arc::clone(permits));
            tokio::spawn(async move {
                permits.acquire().await.unwrap().forget();
                inner.store.acquire(&claim).await.unwrap();
            });
        }
        if let Fault::OwnMismatch = fault {
            let fingerprint = claim.fingerprint;
            return Ok(Acquisition::Mismatch { fingerprint });
        }
        self.apply(fault, self.0.store.acquire(claim)).await
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
        self.apply(fault, self.0.store.complete(held, outcome))
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

    fn try_acquire(&self, claim: &Claim) -> Option<Result<Acquisition, StoreError>> {
        self.answer(Operation::Acquire, self.acquire(claim))
    }

    fn try_complete(&self, held: &Held, outcome: &Outcome) -> Option<Result<Write, StoreError>> {
        self.answer(Operation::Complete, self.complete(held, outcome))
    }

    fn attach(&self, wake: Wake) {
        if !self.0.without_wakes.load(Ordering::SeqCst) {
            self.0.store.attach(wake);
        }
    }

    fn inspectable(&self) -> Option<&dyn idempotent_runtime::store::Inspectable> {
        self.0.store.inspectable()
    }

    fn step_log(&self) -> Option<&dyn StepLog> {
        Some(self)
    }
}

impl StepLog for FaultyStore {
    fn read_steps<'a>(
        &'a self,
        key: &'a StoreKey,
        token: &'a Token,
    ) -> store::Operation<'a, StepsRead> {
        Box::pin(self.call(Operation::ReadSteps, self.0.store.read_steps(key, token)))
    }

    fn append_step<'a>(
        &'a self,
        key: &'a StoreKey,
        token: &'a Token,
        at: usize,
        bytes: &'a [u8],
    ) -> store::Operation<'a, Write> {
        self.note(String::from_utf8_lossy(bytes).into_owned());
        let append = self.0.store.append_step(key, token, at, bytes);
        Box::pin(self.call(Operation::AppendStep, append))
    }
}
