//! The tests that every [`Store`] must pass, for authors of stores.
//!
//! The contract of a store is short to read and easy to break: an unfenced write, a second clock or a look-up
//! before an insert all work until two requests race. This suite tests each rule of the
//! [contract](super#the-contract) and each line of its [state machine](super#the-state-machine) in a case of its
//! own, so that the name of a failed case is the broken rule.
//!
//! # How to use it
//!
//! 1. Depend on this crate with the feature `conformance` in `[dev-dependencies]`.
//! 2. Implement [`Harness`]: how to open an empty store, how to open a second handle on its records, and how to
//!    let time pass.
//! 3. Call [`store_conformance!`](crate::store_conformance) in a test module. It writes one `#[test]` per
//!    case; `cargo test conformance` then runs them like any other tests.
//!
//! ```
//! use std::time::Duration;
//! use idempotent_runtime::store::{conformance::Harness, memory::MemoryStore};
//!
//! struct Memory(MemoryStore);
//!
//! impl Harness for Memory {
//!     type Store = MemoryStore;
//!     const PAUSED: bool = true;
//!
//!     async fn open() -> Self {
//!         Self(MemoryStore::new())
//!     }
//!     fn store(&self) -> &MemoryStore {
//!         &self.0
//!     }
//!     async fn second_handle(&self) -> MemoryStore {
//!         self.0.clone()
//!     }
//!     async fn advance(&self, by: Duration) {
//!         tokio::time::advance(by).await;
//!     }
//! }
//!
//! mod conformance {
//!     use super::Memory;
//!     idempotent_runtime::store_conformance!(Memory);
//! }
//! # fn main() {}
//! ```
//!
//! # The cases
//!
//! | module | rules |
//! |---|---|
//! | [`acquire`] | who owns the key: the answer of an acquire in every state |
//! | [`administer`] | forgetting completed records and keeping operators' acts, for stores that are [`Administrable`](super::Administrable) |
//! | [`lease`] | renew, abandon, and the fence around every write |
//! | [`complete`] | one outcome per record, stored byte for byte |
//! | [`release`] | giving a key back |
//! | [`expiry`] | how long records live |
//! | [`listing`] | what a list shows, complete paging and bounded work, for stores that are [`Inspectable`](super::Inspectable) |
//! | [`purge`] | what a purge deletes, and that nothing else is deleted |
//! | [`inspect`] | what `get` returns, and that it changes nothing |
//! | [`steps`] | the log of an execution's steps, on stores that have one |
//! | [`corrupt`] | stored bytes that cannot be read |
//! | [`races`] | the same rules while 64 operations run at once |
//!
//! All durations are multiples of [`Harness::TICK`], and no case expects a time to be more exact than that: a store
//! that keeps milliseconds passes, and so does a store on a test machine that stalls for a moment.
//!
//! # What it does not cover
//!
//! - Durability and failover: a test of those has to kill the server. A store's documentation names the failures
//!   that it survives, and the store's own tests show it.
//! - [`Store::attach`]: waiters poll, so a store that wakes nobody is slow and still correct.
//! - Races are provoked, not enumerated: a pass is strong evidence, and only a model checker gives proof.
//!
//! # What its versions promise
//!
//! The suite is released with this crate. A *compatible* release is one that Cargo's version rules call compatible.
//!
//! 1. A compatible release adds a case only if it tests what the [contract](super#the-contract) already says. A store
//!    that keeps the contract passes it; a store that fails it has a defect that no case had shown. The changelog
//!    names each new case and its rule.
//! 2. A compatible release never makes a case demand more than the contract. It may correct a case that failed a store
//!    which keeps the contract.
//! 3. A change of the contract is a breaking release, and so is removing or renaming a case: names may be used to skip
//!    cases or to run them singly. The changelog says what authors of stores have to change.
//! 4. [`Harness`] gets new items in a compatible release only with a default under which existing harnesses compile
//!    and their stores are tested no less than before.
//!
//! The number and the order of cases, and how long they take, may change in any release.

#![allow(
    clippy::missing_panics_doc,
    reason = "a case is a test: it panics if the store fails it"
)]

use std::{fmt, future::Future, sync::Arc, time::Duration};

use self::subject::Boxed;
use super::Store;
use crate::scope::StoreKey;

pub mod acquire;
pub mod administer;
mod arena;
pub mod complete;
pub mod corrupt;
pub mod expiry;

pub mod inspect;
pub mod lease;
mod list;
pub mod listing;
pub mod purge;
pub mod races;
pub mod release;
pub mod steps;
mod subject;
mod toolbox;

pub use subject::Subject;
pub use toolbox::{claim, key, response};

/// How the suite opens and controls a store under test. One value is one empty store.
pub trait Harness: Sized + Send + Sync + 'static {
    /// The store under test.
    type Store: Store;

    /// The unit of time. A lease lasts ten ticks and a completed record a hundred. Apart from the time that it lets
    /// pass, a case must take less than one tick by the store's clock.
    ///
    /// One second suits clocks that are moved. Only a harness that really waits has a reason to shorten it.
    const TICK: Duration = Duration::from_secs(1);

    /// Whether cases run on a runtime whose tokio clock is paused, for stores that use that clock. Races never do:
    /// they run on several threads and let no time pass.
    const PAUSED: bool = false;

    /// Whether the store has to be [`Inspectable`](super::Inspectable). A store that is has to pass the cases of
    /// [`listing`] in any case; without this constant one that loses the trait would go on passing.
    const INSPECTABLE: bool = false;
    /// Whether the store keeps the steps of executions: whether it has a [`StepLog`](super::StepLog).
    const STEPS: bool = false;

    /// Whether the store has to be [`Administrable`](super::Administrable), as
    /// [`INSPECTABLE`](Self::INSPECTABLE) says it of lists, for the cases of [`administer`].
    const ADMINISTRABLE: bool = false;

    /// Opens an empty store.
    fn open() -> impl Future<Output = Self> + Send;

    /// The store.
    fn store(&self) -> &Self::Store;

    /// Opens a second handle on the same records, as another process would: with a pool or connection of its own, or
    /// a clone where the records live in this process.
    fn second_handle(&self) -> impl Future<Output = Self::Store> + Send;

    /// Lets this much time pass by the store's clock, and at most half a tick more.
    ///
    /// Where the clock belongs to a server, move the stored times back instead of waiting: subtract `by`
    /// from every lease and expiry, and from the times of creation and completion.
    fn advance(&self, by: Duration) -> impl Future<Output = ()> + Send;

    /// Overwrites the stored response of this completed record, and returns whether that is possible. It is not for a
    /// store that keeps no bytes outside the process, which leaves this default as it is.
    fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> impl Future<Output = bool> + Send {
        let _ = (key, stored);
        async { false }
    }

    /// Opens another handle on the same records whose next operation on this key is carried out by the server, while its
    /// reply is lost and its connection closed. For stores that reach their records over a network; others leave this
    /// default, which is `None`, as it is.
    fn losing_handle(&self, key: &StoreKey) -> impl Future<Output = Option<Self::Store>> + Send {
        let _ = key;
        async { None }
    }
}

/// One case, ready to run on one kind of store.
#[derive(Clone, Copy)]
pub struct Case {
    rule: &'static Rule,
    kind: Kind,
}

/// A case without a store.
struct Rule {
    name: &'static str,
    on: Threads,
    case: fn(Arc<Subject>) -> Boxed<'static, ()>,
}

/// The runtime of a case.
#[derive(Clone, Copy)]
enum Threads {
    /// One thread, whose clock can be paused.
    One,
    /// Several threads, with a running clock.
    Several,
}

/// How to open one kind of store for a case.
#[derive(Clone, Copy)]
struct Kind {
    paused: bool,
    open: fn() -> Boxed<'static, Subject>,
}

impl Rule {
    const fn run(name: &'static str, case: fn(Arc<Subject>) -> Boxed<'static, ()>) -> Self {
        let on = Threads::One;
        Self { name, on, case }
    }

    const fn race(name: &'static str, case: fn(Arc<Subject>) -> Boxed<'static, ()>) -> Self {
        let on = Threads::Several;
        Self { name, on, case }
    }
}

impl Kind {
    fn of<H: Harness>() -> Self {
        Self {
            paused: H::PAUSED,
            open: || Box::pin(Subject::open::<H>()),
        }
    }
}

impl Case {
    /// The name of the case's function.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.rule.name
    }

    /// Runs the case on a store of its own.
    ///
    /// # Panics
    ///
    /// If the store does not pass.
    pub fn run(&self) {
        let mut runtime = match self.rule.on {
            Threads::One => tokio::runtime::Builder::new_current_thread(),
            Threads::Several => tokio::runtime::Builder::new_multi_thread(),
        };
        match self.rule.on {
            Threads::One => runtime.start_paused(self.kind.paused),
            Threads::Several => runtime.worker_threads(4),
        };
        let runtime = runtime
            .enable_all()
            .build()
            .expect("a runtime for the test");
        runtime.block_on(async { (self.rule.case)(Arc::new((self.kind.open)().await)).await });
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.name()).finish()
    }
}

/// All cases as a list; [`store_conformance!`](crate::store_conformance) writes a `#[test]` for each instead.
#[must_use]
pub fn cases<H: Harness>() -> Vec<Case> {
    let kind = Kind::of::<H>();
    list::RULES.iter().map(|rule| Case { rule, kind }).collect()
}

/// Runs the case of this name on a store of its own.
///
/// # Panics
///
/// If the store does not pass, or no case has this name.
pub fn run<H: Harness>(name: &str) {
    run_case(name, Kind::of::<H>());
}

fn run_case(name: &str, kind: Kind) {
    let rule = list::RULES.iter().find(|rule| rule.name == name);
    let rule = rule.unwrap_or_else(|| panic!("no case has the name {name:?}"));
    Case { rule, kind }.run();
}
