//! The tests that every [`Store`] must pass, for authors of stores.
//!
//! The contract of a store is short to read and easy to break: an unfenced write, a clock of its own or a
//! look-up before an insert all work until the day two requests meet. This suite makes each rule of the
//! [contract](super#the-contract) and each line of its [state machine](super#the-state-machine) a test of
//! its own, so that a failure names the rule.
//!
//! # How to use it
//!
//! 1. Depend on this crate with the feature `conformance` in `[dev-dependencies]`.
//! 2. Implement [`Harness`]: how to open an empty store, how to reach its records a second time, and how to
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
//! # What it does not cover
//!
//! - Durability and failover: only the server's own tools can kill it. A store's documentation names the
//!   failures it survives, and its own tests show it.
//! - Races are provoked, not enumerated: a pass is strong evidence, a model checker is proof.
//!
//! # Writing times
//!
//! All durations are multiples of [`Harness::TICK`], and no answer is expected to be more exact than that:
//! a store that keeps milliseconds and a test machine that stalls for a moment both pass.

#![allow(
    clippy::missing_panics_doc,
    reason = "a case panics if the store does not pass: that is what a test is"
)]

use std::{fmt, future::Future, sync::Arc, time::Duration};

use self::subject::Boxed;
use super::Store;
use crate::scope::StoreKey;

pub mod acquire;
mod arena;
pub mod complete;
pub mod expiry;
pub mod hostile;
pub mod inspect;
pub mod lease;
mod list;
pub mod purge;
pub mod races;
pub mod release;
mod subject;
mod toolbox;

pub use subject::Subject;
pub use toolbox::{claim, key, response};

/// What the suite needs to know about a store under test. One value is one empty store.
pub trait Harness: Sized + Send + Sync + 'static {
    /// The store under test.
    type Store: Store;

    /// The grain of time. A lease lasts ten of these, a completed record a hundred, and a case must not take
    /// longer than one by the store's clock, apart from the time it lets pass itself.
    ///
    /// One second suits clocks that are moved. Only a harness that truly waits has reason to shorten it.
    const TICK: Duration = Duration::from_secs(1);

    /// Whether cases run on a runtime whose tokio clock is paused, for stores that use that clock. Races
    /// never do: they run on several threads, and let no time pass.
    const PAUSED: bool = false;

    /// Opens a store that holds nothing.
    fn open() -> impl Future<Output = Self> + Send;

    /// The store.
    fn store(&self) -> &Self::Store;

    /// A second way to the same records, as another process would have it: a pool or connection of its own,
    /// or a clone where the records live in this process.
    fn second_handle(&self) -> impl Future<Output = Self::Store> + Send;

    /// Lets this much time pass by the store's clock, and at most half a tick more.
    ///
    /// Where the clock belongs to a server, move the stored times back instead of waiting: subtract `by`
    /// from every lease and expiry.
    fn advance(&self, by: Duration) -> impl Future<Output = ()> + Send;

    /// Overwrites what is stored as the response of this completed record, and says whether that is
    /// possible. A store that keeps no bytes outside the process cannot, and leaves this as it is.
    fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> impl Future<Output = bool> + Send {
        let _ = (key, stored);
        async { false }
    }
}

/// One case, ready to run on one kind of store.
#[derive(Clone, Copy)]
pub struct Case {
    rule: &'static Rule,
    kind: Kind,
}

/// What a case is, whatever the store.
struct Rule {
    name: &'static str,
    on: Threads,
    case: fn(Arc<Subject>) -> Boxed<'static, ()>,
}

/// What a case runs on.
#[derive(Clone, Copy)]
enum Threads {
    /// One thread, where time can be moved.
    One,
    /// Several threads, with a running clock.
    Several,
}

/// How the cases of one kind of store begin.
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
    /// The name of the function that is the case.
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

/// All cases, for a test that wants them as a list; [`store_conformance!`](crate::store_conformance) gives
/// each its own `#[test]`.
#[must_use]
pub fn cases<H: Harness>() -> Vec<Case> {
    let kind = Kind::of::<H>();
    list::RULES.iter().map(|rule| Case { rule, kind }).collect()
}

/// Runs the case of this name on a store of its own.
///
/// # Panics
///
/// If the store does not pass, or there is no case of this name.
pub fn run<H: Harness>(name: &str) {
    run_case(name, Kind::of::<H>());
}

fn run_case(name: &str, kind: Kind) {
    let rule = list::RULES.iter().find(|rule| rule.name == name);
    let rule = rule.unwrap_or_else(|| panic!("no case is called {name:?}"));
    Case { rule, kind }.run();
}
