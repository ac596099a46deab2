//! The handler's transaction on a route that has one, and where it is.
//!
//! 1. The argument asks for it when it is extracted. It begins when all arguments are there, so that a request that is
//!    rejected costs no BEGIN; where nobody waits for that, as behind a layer, it begins at once.
//! 2. While the handler has it, it owns its connection. Dropped, it comes back here.
//! 3. The engine closes the slot when the handler has ended and the body of its response was collected: what comes back
//!    later is rolled back.
#![cfg_attr(
    not(all(feature = "axum", feature = "sql")),
    allow(
        dead_code,
        reason = "the argument is an extractor of axum with a connection of sqlx"
    )
)]

use std::{
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use tokio::time::timeout;

use super::{Core, lease::Lease};
#[cfg(all(feature = "axum", feature = "sql"))]
use crate::transaction::TransactionDatabase;
use crate::{
    observe::{Stopwatch, StoreOperation},
    problem::{Problem, ProblemCode},
    store::{StoreErrorKind, transaction::OpenTransaction},
};

/// Where the transaction of one execution is.
pub(crate) struct Slot {
    core: Arc<Core>,
    state: Mutex<State>,
    /// Whether somebody begins it once all arguments are extracted.
    deferred: AtomicBool,
    /// Whether the argument is somewhere: it was made and not dropped.
    out: AtomicBool,
    /// Whether the handler wants nothing committed.
    rollback_only: AtomicBool,
    /// How many messages the handler began to put into the outbox.
    messages: AtomicU32,
    /// How many of them are there. Fewer: one is on its way, was cut off, or failed.
    arrived: AtomicU32,
}

enum State {
    /// Nobody asked for it.
    Unused,
    /// It begins when all arguments are there.
    Asked,
    /// Begun, and not with the handler.
    Here(Box<dyn OpenTransaction>),
    /// The handler has it.
    Lent,
    /// The execution has ended.
    Closed,
}

/// What a slot held when it was closed.
pub(crate) enum Closed {
    /// No transaction began.
    Unused,
    Here(Box<dyn OpenTransaction>),
    /// The handler still has the argument, and never used it.
    KeptUnused(Box<dyn OpenTransaction>),
    /// The handler still has it.
    Kept,
}

/// Why a handler gets no transaction. Nothing was executed.
#[derive(Debug)]
pub(crate) struct NoTransaction(pub(crate) Problem);

impl Slot {
    pub(crate) fn new(core: &Arc<Core>) -> Arc<Self> {
        Arc::new(Self {
            core: Arc::clone(core),
            state: Mutex::new(State::Unused),
            deferred: AtomicBool::new(false),
            out: AtomicBool::new(false),
            rollback_only: AtomicBool::new(false),
            messages: AtomicU32::new(0),
            arrived: AtomicU32::new(0),
        })
    }

    /// Somebody will begin it once all arguments are extracted.
    pub(crate) fn defer(&self) {
        self.deferred.store(true, Ordering::Relaxed);
    }

    /// An argument asks for the transaction, of this database. It has begun, unless it is deferred.
    #[cfg(all(feature = "axum", feature = "sql"))]
    pub(crate) async fn ask<Db: TransactionDatabase>(
        &self,
        lease: &Lease,
    ) -> Result<(), NoTransaction> {
        self.ask_of(<Db as TransactionDatabase>::NAME, lease).await
    }

    async fn ask_of(&self, database: &str, lease: &Lease) -> Result<(), NoTransaction> {
        let store = self.core.store.store();
        let Some(transactions) = store.transactions() else {
            return Err(NoTransaction::without_transactions());
        };
        if transactions.database() != database {
            return Err(NoTransaction::misuse(
                "the handler's transaction is of another database than the store of its engine",
            ));
        }
        {
            let mut state = self.state();
            if !matches!(*state, State::Unused) {
                return Err(NoTransaction::misuse(
                    "the handler asks for its transaction twice, or for that of another request",
                ));
            }
            *state = State::Asked;
        }
        if self.deferred.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.begin(lease).await
    }

    /// Begins the transaction, if it was asked for. The lease still holds when it has begun.
    pub(crate) async fn begin(&self, lease: &Lease) -> Result<(), NoTransaction> {
        if !matches!(*self.state(), State::Asked) {
            return Ok(());
        }
        let store = &self.core.store;
        let Some(transactions) = store.store().transactions() else {
            return Err(NoTransaction::without_transactions());
        };
        if !transactions.allows_renewals() {
            lease.stop_renewals().await;
        }
        let since = Stopwatch::start();
        let begun = timeout(
            store.store_timeout(),
            transactions.begin(lease.held().lease),
        );
        let begun = begun.await;
        let failed = match &begun {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.kind()),
            Err(_) => Some(StoreErrorKind::Unavailable),
        };
        store
            .metrics()
            .operation(StoreOperation::Begin, failed, since);
        let open = match begun {
            Ok(Ok(open)) => open,
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "the handler's transaction could not begin; nothing was executed"
                );
                return Err(NoTransaction::unavailable());
            }
            Err(_elapsed) => {
                tracing::error!(
                    "the handler's transaction did not begin in time, as when all connections are in use; nothing was \
                     executed"
                );
                return Err(NoTransaction::unavailable());
            }
        };
        if !lease.is_first_lease() {
            open.roll_back().await;
            return Err(NoTransaction::unavailable());
        }
        let late = {
            let mut state = self.state();
            if matches!(*state, State::Asked) {
                *state = State::Here(open);
                None
            } else {
                Some(open)
            }
        };
        match late {
            None => Ok(()),
            // The execution ended meanwhile: nobody would end its transaction.
            Some(open) => {
                open.roll_back().await;
                Err(NoTransaction::unavailable())
            }
        }
    }

    /// The argument is made.
    pub(crate) fn hand_out(&self) {
        self.out.store(true, Ordering::SeqCst);
    }

    /// The handler takes the transaction. An error says why there is none.
    pub(crate) fn lend(&self) -> Result<Box<dyn OpenTransaction>, &'static str> {
        let mut state = self.state();
        match mem::replace(&mut *state, State::Lent) {
            State::Here(open) => Ok(open),
            other => {
                let reason = match &other {
                    State::Closed => {
                        "the handler has returned, and its transaction has ended with it: use it before, and keep it in no task \
                         and no response"
                    }
                    _ => {
                        "the transaction has not begun: it begins when all arguments of the handler were extracted"
                    }
                };
                *state = other;
                Err(reason)
            }
        }
    }

    /// The argument was dropped. What it had is here again; after the end of the execution it is dropped, which rolls it
    /// back.
    pub(crate) fn give_back(&self, open: Option<Box<dyn OpenTransaction>>) {
        let mut state = self.state();
        self.out.store(false, Ordering::SeqCst);
        if let Some(open) = open
            && matches!(*state, State::Lent)
        {
            *state = State::Here(open);
        }
    }

    /// Nothing is to be committed.
    pub(crate) fn rollback_only(&self) {
        self.rollback_only.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_rollback_only(&self) -> bool {
        self.rollback_only.load(Ordering::SeqCst)
    }

    /// A message is about to be put into the outbox: its number among those of this execution. Nothing is committed unless
    /// it [arrives](Self::message_arrived), also if the handler goes on without it.
    pub(crate) fn next_message(&self) -> u32 {
        self.messages.fetch_add(1, Ordering::SeqCst)
    }

    /// The message is in the outbox.
    pub(crate) fn message_arrived(&self) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether a message failed, or was cut off.
    pub(crate) fn lacks_messages(&self) -> bool {
        self.messages() != self.arrived.load(Ordering::SeqCst)
    }

    /// How many messages the handler began to put into the outbox.
    pub(crate) fn messages(&self) -> u32 {
        self.messages.load(Ordering::SeqCst)
    }

    /// The execution has ended.
    pub(crate) fn close(&self) -> Closed {
        let mut state = self.state();
        let out = self.out.load(Ordering::SeqCst);
        match mem::replace(&mut *state, State::Closed) {
            State::Unused | State::Asked | State::Closed => Closed::Unused,
            State::Here(open) if out => Closed::KeptUnused(open),
            State::Here(open) => Closed::Here(open),
            State::Lent => Closed::Kept,
        }
    }

    /// The problem as this engine answers with it.
    pub(crate) fn refusal(
        &self,
        NoTransaction(problem): &NoTransaction,
    ) -> http::Response<bytes::Bytes> {
        problem.response(&self.core.problem_style)
    }

    /// The state is whole whenever the lock is free.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NoTransaction {
    /// A mistake of the application's.
    pub(crate) fn misuse(found: &'static str) -> Self {
        tracing::error!("{found}; nothing was executed");
        Self(Problem::new(ProblemCode::TransactionFailed).detail(format!(
            "the operation is set up wrongly and was not executed: {found}"
        )))
    }

    fn without_transactions() -> Self {
        Self::misuse(
            "the store of the engine has no transactions: the records have to be in the handler's database",
        )
    }

    fn unavailable() -> Self {
        Self(ProblemCode::StoreUnavailable.into())
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}
