//! A store that notes which claims of one process are open, so that a killed process can say which keys it leaves behind.
//!
//! A claim is open from when it is first sent. It is closed when it was answered and is not held, or when its last write was
//! acknowledged. A claim that was once sent without an answer stays open for as long as a copy of it can be on its way.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use idempotent_runtime::{
    StoreKey,
    store::{
        Acquisition, Claim, Held, LONGEST_DELAY, Outcome, Record, Store, StoreError, Token, Wake,
        Write,
    },
};

/// The open claims of one process.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    claims: Mutex<HashMap<(StoreKey, Token), Open>>,
    /// From here on claims are only closed by their outcome: what a shutdown abandons stays unknown.
    closing: AtomicBool,
}

#[derive(Debug)]
struct Open {
    sent: Instant,
    under_way: usize,
    acquired: bool,
    unanswered: bool,
}

impl Watch {
    /// The process is about to end.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    /// Whether a claim of this key is open: if the process has ended, it left the key behind.
    pub(crate) fn is_open(&self, key: &StoreKey) -> bool {
        self.claims().keys().any(|(open, _)| open == key)
    }

    /// Forgets claims no copy of which can be on its way any more.
    pub(crate) fn prune(&self) {
        self.claims().retain(|_, open| {
            open.under_way > 0 || !open.unanswered || open.sent.elapsed() < LONGEST_DELAY
        });
    }

    fn sent(self: &Arc<Self>, claim: &Claim) -> Sent {
        let id = (claim.key, claim.token);
        let mut claims = self.claims();
        let open = claims.entry(id).or_insert(Open {
            sent: Instant::now(),
            under_way: 0,
            acquired: false,
            unanswered: false,
        });
        open.sent = Instant::now();
        open.under_way += 1;
        Sent {
            watch: Arc::clone(self),
            id,
            answer: None,
        }
    }

    fn written(&self, key: StoreKey, token: Token, is_outcome: bool) {
        if is_outcome || !self.closing.load(Ordering::SeqCst) {
            let mut claims = self.claims();
            if claims.get(&(key, token)).is_some_and(|o| !o.unanswered) {
                claims.remove(&(key, token));
            }
        }
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, HashMap<(StoreKey, Token), Open>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An acquire that was sent. Dropped without an answer, it is unanswered.
struct Sent {
    watch: Arc<Watch>,
    id: (StoreKey, Token),
    /// Whether it was acquired.
    answer: Option<bool>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        let mut claims = self.watch.claims();
        let Some(open) = claims.get_mut(&self.id) else {
            return;
        };
        open.under_way -= 1;
        match self.answer {
            Some(acquired) => open.acquired |= acquired,
            None => open.unanswered = true,
        }
        if open.under_way == 0 && !open.acquired && !open.unanswered {
            claims.remove(&self.id);
        }
    }
}

/// The store of one process, watched.
pub(crate) struct WatchedStore<S> {
    pub(crate) store: S,
    pub(crate) watch: Arc<Watch>,
}

impl<S: Store> Store for WatchedStore<S> {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        let mut sent = self.watch.sent(claim);
        let answer = self.store.acquire(claim).await?;
        sent.answer = Some(matches!(answer, Acquisition::Acquired { .. }));
        Ok(answer)
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.store.renew(held).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        let written = self.store.complete(held, outcome).await?;
        self.watch.written(held.key, held.token, true);
        Ok(written)
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let written = self.store.release(key, token).await?;
        self.watch.written(*key, *token, false);
        Ok(written)
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let written = self.store.abandon(key, token).await?;
        self.watch.written(*key, *token, false);
        Ok(written)
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
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
