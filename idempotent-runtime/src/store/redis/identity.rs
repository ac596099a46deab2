//! Which server a store was opened on, and whether it is still that one and still keeps what it acknowledges.
//!
//! A server may be restarted, replaced behind its address, or succeeded by a replica. The next one is asked what the first
//! one was asked. It is used if the store would have been opened on it. What is different is logged, once.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redis::{ErrorKind, RedisResult, ServerErrorKind};

use super::{NAME, durability::Durability, info::Info};
use crate::store::{
    replaced::{Change, report},
    weakness::{Accepted, FoundWeakness},
};

/// What is known of a server.
pub(super) struct Identity {
    /// The number of the database.
    db: i64,
    /// Whether sentinels name the server.
    by_sentinels: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the operator accepts. `None`: the store is not open yet.
    accepted: Option<Accepted>,
    /// What the server said last.
    run_id: Option<String>,
    found: Vec<FoundWeakness>,
    hidden: bool,
}

/// The server has weaknesses that were not accepted.
#[derive(Debug)]
struct Weak(Vec<FoundWeakness>);

impl Identity {
    pub(super) fn new(db: i64, by_sentinels: bool) -> Self {
        Self {
            db,
            by_sentinels,
            state: Mutex::default(),
        }
    }

    /// Of a node that was not there when the store was opened.
    pub(super) fn accepting(accepted: Accepted) -> Self {
        let new = Self::new(0, false);
        new.state().accepted = Some(accepted);
        new
    }

    /// Whether each connection from now on has to be [compared](Self::compare).
    pub(super) fn is_known(&self) -> bool {
        self.state().accepted.is_some()
    }

    /// The store is being opened on the server that said this.
    pub(super) fn know(&self, said: &Durability, accepted: Accepted) {
        let mut state = self.state();
        state.accepted = Some(accepted);
        state.found.clone_from(&said.found);
        state.hidden = !said.hidden.is_empty();
        if let Some(info) = &said.info {
            state.run_id = info.run_id();
            self.warn_of_writes_alone(info);
        }
    }

    /// Compares what the server behind a new connection says with what was said before.
    ///
    /// # Errors
    ///
    /// If the store would not be opened on this server.
    pub(super) fn compare(&self, said: Durability) -> RedisResult<()> {
        if said.is_loading() {
            // What it says of its keys is not true yet.
            let loading = ErrorKind::Server(ServerErrorKind::BusyLoading);
            return Err((loading, "it is loading its data").into());
        }
        let mut state = self.state();
        let Some(accepted) = state.accepted else {
            return Ok(());
        };
        if let Some(info) = &said.info {
            self.recognise(&mut state, info);
        }
        hidden(&mut state, accepted, &said)?;
        let refused = accepted.refused(&said.found);
        if state.found != said.found {
            state.found.clone_from(&said.found);
            if let Err(weak) = accepted.judge(NAME, said.found) {
                report(NAME, Change::Weaker(&Weak(weak).to_string()));
            } else {
                tracing::info!("the settings of the Redis server have changed and are accepted");
            }
        }
        if refused.is_empty() {
            return Ok(());
        }
        let why = Weak(refused).to_string();
        Err((ErrorKind::Client, "the server is refused", why).into())
    }

    /// Says so if this is another server than before, or one that was restarted: what it does not have executes again.
    fn recognise(&self, state: &mut State, info: &Info) {
        let now = info.run_id();
        let before = std::mem::replace(&mut state.run_id, now.clone());
        let (Some(before), Some(now)) = (before, now) else {
            return;
        };
        if before == now {
            return;
        }
        self.warn_of_writes_alone(info);
        let change = if info.has_keys(self.db) {
            Change::Replaced {
                before: &before,
                now: &now,
            }
        } else {
            Change::Empty
        };
        report(NAME, change);
    }

    fn warn_of_writes_alone(&self, info: &Info) {
        if self.by_sentinels && info.writes_alone() {
            tracing::warn!(
                "the Redis primary goes on accepting writes when it is cut off from its replicas: two processes that \
                 follow different sentinels may then execute the same key. Set `min-replicas-to-write 1`"
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each field is replaced as a whole, so a poisoned lock is as good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error if the server hides its settings and that was not accepted.
fn hidden(state: &mut State, accepted: Accepted, said: &Durability) -> RedisResult<()> {
    let before = std::mem::replace(&mut state.hidden, !said.hidden.is_empty());
    let Some((command, error)) = said.hidden.first() else {
        return Ok(());
    };
    if !before {
        let source: &dyn std::error::Error = error;
        tracing::error!(
            error = source,
            "the Redis user may not run {command} any more: the server's durability is unknown"
        );
    }
    if accepted.unverified {
        return Ok(());
    }
    Err(error.clone())
}

impl fmt::Display for Weak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::store::weakness::write_found("Redis", &self.0, f)
    }
}
