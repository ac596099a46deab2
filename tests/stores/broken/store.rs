//! A plain store in which one line can be made wrong.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use idempotent_runtime::{
    Fingerprint, StoreKey, StoredResponse,
    store::{
        Acquisition, Claim, Held, Outcome, Record, RecordState, Store, StoreError, StoreErrorKind,
        Token, TraceId, Wake, Write,
        conformance::{Harness, response},
    },
};
use tokio::{task::yield_now, time::Instant};

use super::Flaw;

/// A handle on a store with this flaw, and its own harness.
pub(crate) struct Broken<const FLAW: u8> {
    rows: Arc<Mutex<Vec<Row>>>,
    opened: Instant,
    second: bool,
}

struct Row {
    key: StoreKey,
    fingerprint: Fingerprint,
    token: Token,
    attempt: u32,
    trace_id: Option<TraceId>,
    since: Instant,
    lease_until: Instant,
    expires: Instant,
    outcome: Option<Outcome>,
    /// Somebody else wrote over the outcome.
    unreadable: bool,
}

impl<const FLAW: u8> Harness for Broken<FLAW> {
    type Store = Self;
    const PAUSED: bool = true;

    async fn open() -> Self {
        Self {
            rows: Arc::default(),
            opened: Instant::now(),
            second: false,
        }
    }

    fn store(&self) -> &Self {
        self
    }

    async fn second_handle(&self) -> Self {
        Self {
            rows: Arc::clone(&self.rows),
            opened: self.opened,
            second: true,
        }
    }

    async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
    }

    async fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> bool {
        let response = StoredResponse::from_bytes(Bytes::copy_from_slice(stored));
        let mut rows = self.rows();
        let row = find::<FLAW>(&mut rows, key).expect("a record to write over");
        row.unreadable = response.is_err();
        true
    }
}

impl<const FLAW: u8> Store for Broken<FLAW> {
    fn name(&self) -> &'static str {
        "broken"
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.read(&claim.key)?;
        if is::<FLAW>(Flaw::CheckThenAct) && find::<FLAW>(&mut self.rows(), &claim.key).is_none() {
            yield_now().await;
            self.rows().retain(|row| row.key != claim.key);
        }
        if is::<FLAW>(Flaw::ReleaseOnDrop) {
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
        let Some(row) = find::<FLAW>(&mut rows, &held.key) else {
            return Ok(Write::Missing);
        };
        let revived = is::<FLAW>(Flaw::RenewsCompleted) && row.token == held.token;
        let too_late = is::<FLAW>(Flaw::RenewFencedByTime) && row.lease_until <= now;
        if too_late || !(revived || row.owned_by::<FLAW>(&held.token)) {
            return Ok(Write::Fenced);
        }
        if !is::<FLAW>(Flaw::RenewsNothing) {
            row.extend::<FLAW>(held, now);
        }
        Ok(Write::Applied)
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        let (now, outcome) = (self.now(), kept::<FLAW>(outcome));
        let mut rows = self.rows();
        let Some(row) = find::<FLAW>(&mut rows, &held.key) else {
            if is::<FLAW>(Flaw::Creates) {
                rows.push(Row::created(held, outcome, now));
                return Ok(Write::Applied);
            }
            return Ok(Write::Missing);
        };
        let anybody = is::<FLAW>(Flaw::NoFence) || is::<FLAW>(Flaw::CompleteByKey);
        let too_late = is::<FLAW>(Flaw::FencedByTime) && row.lease_until <= now;
        if !anybody && row.token != held.token {
            return Ok(Write::Fenced);
        }
        Ok(match &row.outcome {
            None if too_late => Write::Fenced,
            None => row.complete::<FLAW>(held, outcome, now),
            Some(_) if is::<FLAW>(Flaw::Overwrites) => row.complete::<FLAW>(held, outcome, now),
            Some(_) if is::<FLAW>(Flaw::SeemsStored) => Write::Applied,
            Some(_) if is::<FLAW>(Flaw::RepeatFenced) => Write::Fenced,
            Some(stored) if *stored != outcome => Write::Fenced,
            Some(_) if is::<FLAW>(Flaw::RepeatProlongs) => row.complete::<FLAW>(held, outcome, now),
            Some(_) => Write::Applied,
        })
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let now = self.now();
        let mut rows = self.rows();
        let Some(row) = find::<FLAW>(&mut rows, key) else {
            return Ok(Write::Missing);
        };
        let completed = is::<FLAW>(Flaw::ReleasesCompleted) && row.token == *token;
        if !(completed || row.owned_by::<FLAW>(token)) {
            return Ok(Write::Fenced);
        }
        if is::<FLAW>(Flaw::ReleaseAbandons) {
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
        let Some(row) = find::<FLAW>(&mut rows, key) else {
            return Ok(Write::Missing);
        };
        if is::<FLAW>(Flaw::AbandonsCompleted) && row.token == *token {
            row.outcome = None;
        }
        if !row.owned_by::<FLAW>(token) {
            return Ok(Write::Fenced);
        }
        if is::<FLAW>(Flaw::AbandonFrees) {
            rows.retain(|row| row.key != *key);
        } else if !is::<FLAW>(Flaw::AbandonsNothing) {
            row.lease_until = row.lease_until.min(now);
        }
        Ok(Write::Applied)
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.read(key)?;
        let now = self.now();
        let mut rows = self.rows();
        let Some(row) = find::<FLAW>(&mut rows, key) else {
            return Ok(None);
        };
        if is::<FLAW>(Flaw::GetRenews) {
            row.lease_until = now + Duration::from_secs(10);
        }
        let hidden =
            is::<FLAW>(Flaw::GetHidesLapsed) && row.outcome.is_none() && row.lease_until <= now;
        let expired = row.expired::<FLAW>(now) && !is::<FLAW>(Flaw::GetShowsExpired);
        Ok((!hidden && !expired).then(|| row.show::<FLAW>(now)))
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        let now = self.now();
        let limit = if is::<FLAW>(Flaw::PurgesAll) {
            usize::MAX
        } else {
            limit
        };
        let mut rows = self.rows();
        let doomed = |row: &Row| {
            let lapsed = row.outcome.is_none() && row.lease_until <= now;
            row.expired::<FLAW>(now)
                || (is::<FLAW>(Flaw::PurgesLive) && row.outcome.is_none())
                || (is::<FLAW>(Flaw::PurgesLapsed) && lapsed)
        };
        let keys: Vec<StoreKey> = rows
            .iter()
            .filter(|row| doomed(row))
            .map(|row| row.key)
            .take(limit)
            .collect();
        if is::<FLAW>(Flaw::PurgesNothing) {
            return Ok(0);
        }
        if !is::<FLAW>(Flaw::PurgesInName) {
            rows.retain(|row| !keys.contains(&row.key));
        }
        Ok(keys.len())
    }

    fn attach(&self, _: Wake) {}
}

impl<const FLAW: u8> Broken<FLAW> {
    fn read(&self, key: &StoreKey) -> Result<(), StoreError> {
        let mut rows = self.rows();
        if !find::<FLAW>(&mut rows, key).is_some_and(|row| row.unreadable) {
            return Ok(());
        }
        if is::<FLAW>(Flaw::ForgetsUnreadable) {
            rows.retain(|row| row.key != *key);
            return Ok(());
        }
        Err(StoreError::new("broken", StoreErrorKind::Corrupt))
    }

    fn decide(&self, claim: &Claim) -> Acquisition {
        let now = self.now();
        let mut rows = self.rows();
        if is::<FLAW>(Flaw::EvictsOldest) && rows.len() == 100 {
            rows.remove(0);
        }
        let live = |row: &&Row| row.outcome.is_none() && row.lease_until > now;
        if is::<FLAW>(Flaw::OneForAll)
            && let Some(busy) = rows.iter().filter(live).find(|row| row.key != claim.key)
        {
            return Acquisition::InFlight {
                remaining: busy.left::<FLAW>(now),
            };
        }
        let Some(row) = find::<FLAW>(&mut rows, &claim.key) else {
            let attempt = u32::from(!is::<FLAW>(Flaw::CountsFromZero));
            rows.push(Row {
                attempt,
                ..Row::leased(claim, now)
            });
            return Acquisition::Acquired { attempt };
        };
        if row.token == claim.token && is::<FLAW>(Flaw::RepeatOpens) {
            row.outcome = None;
        }
        if row.token == claim.token && row.outcome.is_none() {
            return row.repeat::<FLAW>(claim, now);
        }
        if row.expired::<FLAW>(now) {
            if is::<FLAW>(Flaw::ExpiredMismatch) && row.fingerprint != claim.fingerprint {
                return Acquisition::Mismatch;
            }
            return row.take::<FLAW>(claim, now);
        }
        let in_flight = Acquisition::InFlight {
            remaining: row.left::<FLAW>(now),
        };
        let live = row.outcome.is_none() && row.lease_until > now;
        if is::<FLAW>(Flaw::ConflictFirst) && live {
            return in_flight;
        }
        if row.fingerprint != claim.fingerprint && !is::<FLAW>(Flaw::NoFingerprint) {
            return Acquisition::Mismatch;
        }
        if let Some(outcome) = row.outcome.clone() {
            if is::<FLAW>(Flaw::TakesOverCompleted) && claim.take_over && row.lease_until <= now {
                return row.take::<FLAW>(claim, now);
            }
            if is::<FLAW>(Flaw::Slides) {
                row.expires = now + claim.ttl;
            }
            return Acquisition::Completed(outcome);
        }
        if live && !(is::<FLAW>(Flaw::TakesOverLive) && claim.take_over) {
            return in_flight;
        }
        if claim.take_over || is::<FLAW>(Flaw::TakesOverAlways) {
            return row.take::<FLAW>(claim, now);
        }
        Acquisition::Unknown
    }

    fn now(&self) -> Instant {
        match self.second {
            _ if is::<FLAW>(Flaw::StandingClock) => self.opened,
            true if is::<FLAW>(Flaw::OwnClock) => Instant::now() + Duration::from_secs(5),
            _ => Instant::now(),
        }
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn leased(claim: &Claim, now: Instant) -> Self {
        let lease_until = now + claim.lease;
        Self {
            key: claim.key,
            fingerprint: claim.fingerprint,
            token: claim.token,
            attempt: 1,
            trace_id: claim.trace_id,
            since: now,
            lease_until,
            expires: lease_until + claim.ttl,
            outcome: None,
            unreadable: false,
        }
    }

    fn created(held: &Held, outcome: Outcome, now: Instant) -> Self {
        let nobody = Fingerprint::from_bytes([0; 32]);
        let claim = Claim::new(held.key, nobody, held.token, held.lease, held.ttl);
        Self {
            outcome: Some(outcome),
            ..Self::leased(&claim, now)
        }
    }

    fn repeat<const FLAW: u8>(&mut self, claim: &Claim, now: Instant) -> Acquisition {
        if is::<FLAW>(Flaw::RepeatConflicts) {
            return Acquisition::InFlight {
                remaining: self.left::<FLAW>(now),
            };
        }
        if is::<FLAW>(Flaw::RepeatCounts) {
            self.attempt += 1;
        }
        if !is::<FLAW>(Flaw::RepeatKeepsLease) {
            self.extend::<FLAW>(&claim.held(), now);
        }
        Acquisition::Acquired {
            attempt: self.attempt,
        }
    }

    fn take<const FLAW: u8>(&mut self, claim: &Claim, now: Instant) -> Acquisition {
        let attempt = if is::<FLAW>(Flaw::ForgetsAttempt) {
            1
        } else {
            self.attempt + 1
        };
        let token = if is::<FLAW>(Flaw::KeepsToken) {
            self.token
        } else {
            claim.token
        };
        let trace_id = if is::<FLAW>(Flaw::KeepsTrace) {
            self.trace_id
        } else {
            claim.trace_id
        };
        *self = Self {
            token,
            attempt,
            trace_id,
            ..Self::leased(claim, now)
        };
        Acquisition::Acquired { attempt }
    }

    fn extend<const FLAW: u8>(&mut self, held: &Held, now: Instant) {
        self.lease_until = now + held.lease;
        if !is::<FLAW>(Flaw::RenewKeepsExpiry) {
            self.expires = self.expires.max(self.lease_until + held.ttl);
        }
    }

    fn complete<const FLAW: u8>(&mut self, held: &Held, outcome: Outcome, now: Instant) -> Write {
        self.outcome = Some(outcome);
        self.expires = if is::<FLAW>(Flaw::TtlFromAcquire) {
            self.since
        } else {
            now
        } + held.ttl;
        Write::Applied
    }

    fn owned_by<const FLAW: u8>(&self, token: &Token) -> bool {
        self.outcome.is_none() && (self.token == *token || is::<FLAW>(Flaw::NoFence))
    }

    fn expired<const FLAW: u8>(&self, now: Instant) -> bool {
        let lapsed = self.lease_until <= now;
        match self.outcome {
            Some(_) => self.expires <= now,
            None if is::<FLAW>(Flaw::UnknownForEver) => false,
            None if is::<FLAW>(Flaw::UnknownForgotten) => lapsed,
            None => self.expires <= now && lapsed,
        }
    }

    fn left<const FLAW: u8>(&self, now: Instant) -> Duration {
        let from = if is::<FLAW>(Flaw::WholeLease) {
            self.since
        } else {
            now
        };
        self.lease_until.saturating_duration_since(from)
    }

    fn show<const FLAW: u8>(&self, now: Instant) -> Record {
        let state = match &self.outcome {
            Some(outcome) => RecordState::Completed(outcome.clone()),
            None => RecordState::InFlight {
                remaining: self.left::<FLAW>(now),
            },
        };
        let expires_in = self.expires.saturating_duration_since(now);
        Record::new(
            self.fingerprint,
            self.attempt,
            state,
            expires_in,
            self.trace_id,
        )
    }
}

/// Whether the store has this flaw.
const fn is<const FLAW: u8>(flaw: Flaw) -> bool {
    FLAW == flaw as u8
}

fn find<'a, const FLAW: u8>(rows: &'a mut [Row], key: &StoreKey) -> Option<&'a mut Row> {
    let part = if is::<FLAW>(Flaw::HalfAKey) { 16 } else { 32 };
    rows.iter_mut()
        .find(|row| row.key.as_bytes()[..part] == key.as_bytes()[..part])
}

fn kept<const FLAW: u8>(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Tombstone if is::<FLAW>(Flaw::TombstoneIsEmpty) => {
            Outcome::Response(response(200, &[], b""))
        }
        Outcome::Response(whole) if is::<FLAW>(Flaw::CutsShort) => {
            let (status, _, body) = whole.decode().expect("a valid response");
            let cut = &body[..body.len().min(64 << 10)];
            if cut.len() == body.len() {
                return outcome.clone();
            }
            Outcome::Response(response(status.as_u16(), &[], cut))
        }
        _ => outcome.clone(),
    }
}

/// What a well-meant clean-up looks like.
struct ReleaseOnDrop<'a, const FLAW: u8>(&'a Broken<FLAW>, Option<&'a Claim>);

impl<const FLAW: u8> Drop for ReleaseOnDrop<'_, FLAW> {
    fn drop(&mut self) {
        if let Some(claim) = self.1 {
            self.0.rows().retain(|row| row.token != claim.token);
        }
    }
}
