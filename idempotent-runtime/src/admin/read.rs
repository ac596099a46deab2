//! What the routes show.

use std::time::Duration;

use serde::Serialize;
use tokio::{sync::SemaphorePermit, time::timeout};

use super::{
    Access, Admin,
    error::Refusal,
    input::{self, Listing, Sent},
    series::Series,
};
use crate::{
    key::IdempotencyKey,
    scope::{Scope, StoreKey},
    store::inspect::{self, Entry, Found, KeyPrefix, Page, StateKind},
    view::{AuditView, RecordView, StatsView},
};

/// How long a request waits for its turn to scan, and then looks for the beginning of an ID.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many records are counted one by one; more are estimated.
const COUNTED: u64 = 100_000;

/// What somebody may do.
#[derive(Debug, Serialize)]
pub(super) struct AccessView {
    /// Under which name; `None` reads only.
    actor: Option<String>,
    /// Whether both the guard and the engine let them write.
    writes: bool,
    store: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct RecordsView {
    records: Vec<RecordView>,
    /// Where to go on: records may follow.
    next: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct EventsView {
    events: Vec<AuditView>,
}

impl Admin {
    pub(super) fn access(&self, access: &Access) -> AccessView {
        let actor = match access {
            Access::Write(actor) => Some(actor.clone()),
            Access::Deny | Access::Read => None,
        };
        AccessView {
            writes: self.actor(access.clone()).is_ok(),
            actor,
            store: self.engine.store_name(),
        }
    }

    pub(super) async fn stats(&self) -> Result<StatsView, Refusal> {
        let _turn = self.turn().await?;
        let counts = inspect::count(&self.engine.lists()?, COUNTED).await?;
        Ok(StatsView::from(&counts))
    }

    pub(super) async fn records(&self, query: &str) -> Result<RecordsView, Refusal> {
        let Listing {
            query,
            limit,
            max_scan,
        } = Listing::parse(query)?;
        let _turn = self.turn().await?;
        let lists = self.engine.lists()?;
        let Page { entries, next } = if query.state == Some(StateKind::Unknown) {
            inspect::oldest(&lists, query, limit, max_scan).await?
        } else {
            inspect::first(&lists, query, limit, max_scan).await?
        };
        Ok(RecordsView {
            records: entries.iter().map(RecordView::from).collect(),
            next: next.map(|cursor| cursor.to_string()),
        })
    }

    pub(super) async fn record(&self, id: &str) -> Result<RecordView, Refusal> {
        match self.find(id.parse()?).await? {
            Found::One(entry) => Ok(RecordView::from(&*entry)),
            Found::None => Err(Refusal::not_found()),
            Found::Several(entries) => {
                let id = |entry: &Entry| KeyPrefix::from(&entry.key).to_string();
                Err(Refusal::ambiguous(entries.iter().map(id).collect()))
            }
        }
    }

    /// The records that what a client sent belongs to: while the secret is rotated there may be one under each, and
    /// either may have the outcome.
    pub(super) async fn look_up(&self, sent: Sent) -> Result<RecordsView, Refusal> {
        let key = IdempotencyKey::new(&sent.key)?;
        let scope = sent.caller.filter(|caller| !caller.is_empty());
        let scope = scope.map(Scope::new);
        let own = self.engine.store_key(&sent.endpoint, scope.as_ref(), &key);
        let other = self
            .engine
            .other_store_key(&sent.endpoint, scope.as_ref(), &key);
        let mut records = vec![];
        for key in [Some(own), other].into_iter().flatten() {
            records.extend(self.entry(&key).await?.as_ref().map(RecordView::from));
        }
        if records.is_empty() {
            return Err(Refusal::not_found());
        }
        let next = None;
        Ok(RecordsView { records, next })
    }

    /// The record of this whole ID, as it is listed.
    pub(super) async fn entry(&self, key: &StoreKey) -> Result<Option<Entry>, Refusal> {
        match self.find(KeyPrefix::from(key)).await? {
            Found::One(entry) => Ok(Some(*entry)),
            Found::None | Found::Several(_) => Ok(None),
        }
    }

    async fn find(&self, id: KeyPrefix) -> Result<Found, Refusal> {
        let _turn = self.turn().await?;
        let found = timeout(PATIENCE, self.engine.find(id)).await;
        Ok(found.map_err(|_| Refusal::busy())??)
    }

    pub(super) async fn series(&self) -> Result<Series, Refusal> {
        let _turn = self.turn().await?;
        Series::of(&self.engine.lists()?).await
    }

    pub(super) async fn audit(&self, query: &str) -> Result<EventsView, Refusal> {
        let events = self.engine.audit(input::limit(query)?).await?;
        let events = events.iter().map(AuditView::from).collect();
        Ok(EventsView { events })
    }

    /// One request scans at a time, so that any number of open pages cost the store what one costs it.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        match timeout(PATIENCE, self.scans.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            // Nobody closes the semaphore.
            Ok(Err(_)) | Err(_) => Err(Refusal::busy()),
        }
    }
}
