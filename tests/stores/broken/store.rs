//! A plain store that can be given one flaw.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use idempotent_runtime::{
    StoreKey, StoredResponse,
    store::{
        Acquisition, Claim, Held, Inspectable, Outcome, Record, StepLog, Store, StoreError,
        StoreErrorKind, Token, Wake, Write, conformance::Harness,
    },
};
use tokio::{task::yield_now, time::Instant};

use super::{
    Flaw,
    row::{Row, find, stored},
};

thread_local! {
    /// The flaw of the stores that this thread opens. It is not a parameter of the harness's type, because the suite would
    /// be compiled once per flaw then.
    static FLAW: Cell<Flaw> = const { Cell::new(Flaw::Nothing) };
}

/// Runs this with [`BrokenHarness`] stores that have this flaw.
pub(crate) fn with_flaw<T>(flaw: Flaw, run: impl FnOnce() -> T) -> T {
    FLAW.set(flaw);
    run()
}

/// The harness of a store with the flaw of [`with_flaw`].
pub(crate) struct BrokenHarness(BrokenStore);

/// A handle on a broken store.
pub(crate) struct BrokenStore {
    flaw: Flaw,
    rows: Arc<Mutex<Vec<Row>>>,
    opened: Instant,
    opened_at: SystemTime,
    second: bool,
    /// The reply to the next acquire is lost.
    loses: AtomicBool,
}

impl Harness for BrokenHarness {
    type Store = BrokenStore;
    const PAUSED: bool = true;
    const INSPECTABLE: bool = true;
    const STEPS: bool = true;

    async fn open() -> Self {
        Self(BrokenStore {
            flaw: FLAW.get(),
            rows: Arc::default(),
            opened: Instant::now(),
            opened_at: SystemTime::now(),
            second: false,
            loses: AtomicBool::new(false),
        })
    }

    fn store(&self) -> &BrokenStore {
        &self.0
    }

    async fn second_handle(&self) -> BrokenStore {
        BrokenStore {
            flaw: self.0.flaw,
            rows: Arc::clone(&self.0.rows),
            opened: self.0.opened,
            opened_at: self.0.opened_at,
            second: true,
            loses: AtomicBool::new(false),
        }
    }

    async fn losing_handle(&self, _: &StoreKey) -> Option<BrokenStore> {
        let handle = self.second_handle().await;
        handle.loses.store(true, Ordering::SeqCst);
        Some(handle)
    }

    async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
    }

    async fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> bool {
        let response = StoredResponse::from_bytes(Bytes::copy_from_slice(stored));
        let mut rows = self.0.rows();
        let row = find(self.0.flaw, &mut rows, key).expect("a record to overwrite");
        row.unreadable = response.is_err();
        true
    }
}

impl Store for BrokenStore {
    fn name(&self) -> &'static str {
        "broken"
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.read(&claim.key)?;
        if self.loses.swap(false, Ordering::SeqCst) && !self.is(Flaw::HidesLostReply) {
            self.decide(claim);
            return Err(StoreError::new(self.name(), StoreErrorKind::Unavailable));
        }
        if self.is(Flaw::CheckThenAct) && find(self.flaw, &mut self.rows(), &claim.key).is_none() {
            yield_now().await;
            self.rows().retain(|row| row.key != claim.key);
        }
        if self.is(Flaw::TakesOverLate) && self.may_be_taken(claim) {
            yield_now().await;
            let mut rows = self.rows();
            let row = find(self.flaw, &mut rows, &claim.key).expect("nobody deletes it");
            return Ok(row.take_over(claim, self.now()));
        }
        if self.is(Flaw::ReleaseOnDrop) {
            let mut guard = ReleaseOnDrop(self, Some(claim));
            let acquisition = self.decide(claim);
            yield_now().await;
            guard.1 = None;
            return Ok(acquisition);
        }
        Ok(self.decide(claim))
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        let now = self.now();
        let mut rows = self.rows();
        let Some(row) = find(self.flaw, &mut rows, &held.key) else {
            return Ok(Write::Missing);
        };
        let revived = self.is(Flaw::RenewsCompleted) && row.token == held.token;
        let too_late = self.is(Flaw::RenewFencedByTime) && row.lease_until <= now;
        if too_late || !(revived || row.owned_by(&held.token)) {
            return Ok(Write::Fenced);
        }
        let skipped = self.is(Flaw::RenewSkipsExpired) && row.expired(now);
        if !self.is(Flaw::RenewsNothing) && !skipped {
            row.extend(held, now);
        }
        Ok(Write::Applied)
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        let (now, outcome) = (self.now(), stored(self.flaw, outcome));
        let mut rows = self.rows();
        let Some(row) = find(self.flaw, &mut rows, &held.key) else {
            if self.is(Flaw::Creates) {
                rows.push(Row::created(self.flaw, held, outcome, now));
                return Ok(Write::Applied);
            }
            return Ok(Write::Missing);
        };
        let anybody = self.is(Flaw::NoFence) || self.is(Flaw::CompleteByKey);
        let too_late = self.is(Flaw::FencedByTime) && row.lease_until <= now;
        if !anybody && row.token != held.token {
            return Ok(Write::Fenced);
        }
        Ok(match &row.outcome {
            None if too_late => Write::Fenced,
            None => row.complete(held, outcome, now),
            Some(_) if self.is(Flaw::Overwrites) => row.complete(held, outcome, now),
            Some(_) if self.is(Flaw::SeemsStored) => Write::Applied,
            Some(_) if self.is(Flaw::RepeatFenced) => Write::Fenced,
            Some(stored) if *stored != outcome => Write::Fenced,
            Some(_) if self.is(Flaw::RepeatProlongs) => row.complete(held, outcome, now),
            Some(_) => Write::Applied,
        })
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let now = self.now();
        let mut rows = self.rows();
        let Some(row) = find(self.flaw, &mut rows, key) else {
            return Ok(Write::Missing);
        };
        let completed = self.is(Flaw::ReleasesCompleted) && row.token == *token;
        if !(completed || row.owned_by(token)) {
            return Ok(Write::Fenced);
        }
        if self.is(Flaw::ReleaseAbandons) {
            row.lease_until = now;
        } else {
            let key = row.key;
            rows.retain(|row| row.key != key);
        }
        Ok(Write::Applied)
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let now = self.now();
        let mut rows = self.rows();
        let Some(row) = find(self.flaw, &mut rows, key) else {
            return Ok(Write::Missing);
        };
        if self.is(Flaw::AbandonsCompleted) && row.token == *token {
            row.outcome = None;
        }
        if !row.owned_by(token) {
            return Ok(Write::Fenced);
        }
        if self.is(Flaw::AbandonDeletes) {
            rows.retain(|row| row.key != *key);
        } else if !self.is(Flaw::AbandonsNothing) {
            row.lease_until = row.lease_until.min(now);
        }
        Ok(Write::Applied)
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.read(key)?;
        let now = self.now();
        let mut rows = self.rows();
        let Some(row) = find(self.flaw, &mut rows, key) else {
            return Ok(None);
        };
        if self.is(Flaw::GetRenews) {
            row.lease_until = now + Duration::from_secs(10);
        }
        let hidden =
            self.is(Flaw::GetHidesLapsed) && row.outcome.is_none() && row.lease_until <= now;
        let expired = row.expired(now) && !self.is(Flaw::GetShowsExpired);
        // As a replica that is behind.
        let behind = self.is(Flaw::GetLagsBehind) && self.second && row.since == now;
        Ok((!hidden && !expired && !behind).then(|| self.shown(row, now)))
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        let now = self.now();
        let limit = if self.is(Flaw::PurgesAll) {
            usize::MAX
        } else {
            limit
        };
        let mut rows = self.rows();
        let doomed = |row: &Row| {
            let lapsed = row.outcome.is_none() && row.lease_until <= now;
            row.expired(now)
                || (self.is(Flaw::PurgesLive) && row.outcome.is_none())
                || (self.is(Flaw::PurgesLapsed) && lapsed)
        };
        let keys: Vec<StoreKey> = rows
            .iter()
            .filter(|row| doomed(row))
            .map(|row| row.key)
            .take(limit)
            .collect();
        if self.is(Flaw::PurgesNothing) {
            return Ok(0);
        }
        if !self.is(Flaw::PurgeOnlyCounts) {
            rows.retain(|row| !keys.contains(&row.key));
        }
        Ok(keys.len())
    }

    fn attach(&self, _: Wake) {}

    fn inspectable(&self) -> Option<&dyn Inspectable> {
        Some(self)
    }

    fn step_log(&self) -> Option<&dyn StepLog> {
        (!self.is(Flaw::HidesSteps)).then_some(self as &dyn StepLog)
    }
}

impl BrokenStore {
    fn read(&self, key: &StoreKey) -> Result<(), StoreError> {
        let mut rows = self.rows();
        if !find(self.flaw, &mut rows, key).is_some_and(|row| row.unreadable) {
            return Ok(());
        }
        if self.is(Flaw::DropsUnreadable) {
            rows.retain(|row| row.key != *key);
            return Ok(());
        }
        Err(StoreError::new("broken", StoreErrorKind::Corrupt))
    }

    fn decide(&self, claim: &Claim) -> Acquisition {
        let now = self.now();
        let mut rows = self.rows();
        if self.is(Flaw::EvictsOldest) && rows.len() == 100 {
            rows.remove(0);
        }
        let live = |row: &&Row| row.outcome.is_none() && row.lease_until > now;
        if self.is(Flaw::OneForAll)
            && let Some(busy) = rows.iter().filter(live).find(|row| row.key != claim.key)
        {
            return busy.in_flight(claim, now);
        }
        let Some(row) = find(self.flaw, &mut rows, &claim.key) else {
            let attempt = u32::from(!self.is(Flaw::CountsFromZero));
            rows.push(Row {
                attempt,
                ..Row::leased(self.flaw, claim, now)
            });
            return Acquisition::Acquired { attempt };
        };
        row.acquire(claim, now)
    }

    /// Whether the claim takes over the lease of the record, which has lapsed.
    fn may_be_taken(&self, claim: &Claim) -> bool {
        let now = self.now();
        find(self.flaw, &mut self.rows(), &claim.key).is_some_and(|row| {
            let lapsed = row.outcome.is_none() && row.lease_until <= now;
            lapsed && row.fingerprint == claim.fingerprint && row.named_by(claim)
        })
    }

    pub(super) fn flaw(&self) -> Flaw {
        self.flaw
    }

    pub(super) fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    pub(super) fn now(&self) -> Instant {
        match self.second {
            _ if self.is(Flaw::StandingClock) => self.opened,
            true if self.is(Flaw::OwnClock) => Instant::now() + Duration::from_secs(5),
            _ => Instant::now(),
        }
    }

    /// The record, with the times that its claims and its completion were at.
    pub(super) fn shown(&self, row: &Row, now: Instant) -> Record {
        let completed = row.completed.map(|at| self.wall(at));
        row.record(now)
            .times(Some(self.wall(row.created)), completed)
    }

    /// The time of day at this moment.
    pub(super) fn wall(&self, at: Instant) -> SystemTime {
        self.opened_at + at.saturating_duration_since(self.opened)
    }

    pub(super) fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A well-meant clean-up.
struct ReleaseOnDrop<'a>(&'a BrokenStore, Option<&'a Claim>);

impl Drop for ReleaseOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(claim) = self.1 {
            self.0.rows().retain(|row| row.token != claim.token);
        }
    }
}
