//! [`Inspectable`]: what people who look at records ask a store, beside [`Store`](super::Store).
//!
//! No part of the promise depends on it, and no claim pays for it: a store needs no index beyond its key. An answer is what
//! the store held while it was made, record by record, not a snapshot of all of them at one moment.
//!
//! # The rules
//!
//! 1. **Entries never contain a response**, only its size. Nothing here reads stored bytes, so a damaged response is
//!    listed like any other.
//! 2. **Work is bounded.** A page looks at no more than [`Query::max_scan`] records and returns no more than
//!    [`Query::limit`]. Where a filter matches little, a page may be empty and still have a [`next`](Page::next) cursor.
//! 3. **Paging is complete.** Whoever follows the cursors to the end sees each record that was there throughout exactly
//!    once, whatever is inserted, changed or deleted meanwhile. A store that has no order of keys to page by may show a
//!    few records twice, and says so. A store whose servers have changed since the walk began refuses the cursor. The order
//!    is the store's own, and no order of time.
//! 4. **Expired records are absent**, purged or not, as in [`Store::get`](super::Store::get). They count towards
//!    `max_scan`.
//! 5. **A cursor is opaque** and belongs to the store that gave it. A text that is not one of its cursors is refused with
//!    [`StoreErrorKind::InvalidCursor`](super::StoreErrorKind::InvalidCursor).
//! 6. **Counts say how far they go.** [`Inspectable::stats`] looks at no more than `max_scan` records and says which share
//!    of the store that was. Keys are digests, so any part of them is a fair sample: [`Stats::estimate`] extrapolates.
//!
//! # For authors of stores
//!
//! A store that keeps its keys in order pages by the last key that it looked at: [`Cursor::after`], [`Cursor::key`],
//! [`KeyPrefix::lowest`], [`KeyPrefix::highest`] and [`share_of_keys`] are for it. The store offers the trait through
//! [`Store::inspectable`](super::Store::inspectable), and its harness says so with `Harness::INSPECTABLE`.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime},
};

use super::{erased::Operation, record::ClaimMode, token::TraceId};
use crate::{fingerprint::Fingerprint, scope::StoreKey};

mod cursor;
mod prefix;
mod scan;

pub use cursor::{Cursor, share_of_keys};
pub use prefix::{InvalidKeyPrefix, KeyPrefix};
pub use scan::{count, first, oldest};

/// Lists and counts the records of a store. See the [module documentation](self) for the rules.
///
/// Object-safe: [`Store::inspectable`](super::Store::inspectable) gives it, also for a store chosen at run time
/// ([`AnyStore`](super::AnyStore)). A method is implemented as `Box::pin(async move { … })`.
pub trait Inspectable: Send + Sync {
    /// One page of the records that match.
    ///
    /// # Errors
    ///
    /// [`InvalidCursor`](super::StoreErrorKind::InvalidCursor) for a cursor that is not this store's; otherwise as every
    /// operation.
    fn list<'a>(&'a self, query: &'a Query) -> Operation<'a, Page>;

    /// Counts the records by state, from this cursor on (`None`: from the beginning), looking at no more than `max_scan`
    /// of them. One page costs what a page of [`list`](Self::list) costs.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    fn stats<'a>(&'a self, cursor: Option<&'a Cursor>, max_scan: usize) -> Operation<'a, Stats>;
}

/// What to list, and how much of it. Unless set, all records, in pages of 100.
///
/// ```
/// use std::time::Duration;
/// use idempotent_runtime::store::inspect::{Query, StateKind};
///
/// // What has been in doubt for more than an hour.
/// let query = Query::new().state(StateKind::Unknown).older_than(Duration::from_secs(3600));
/// assert_eq!((query.limit(), query.max_scan()), (100, 10_000));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a query does nothing until a store lists it"]
pub struct Query {
    /// Records in this state only.
    pub state: Option<StateKind>,
    /// Records of this endpoint only, as logs name it and cut as [`EndpointLabel`](super::EndpointLabel) cuts it.
    pub endpoint: Option<Box<str>>,
    /// Records only that were created at least this long ago, and those of which the store does not know when.
    pub older_than: Option<Duration>,
    /// Records only whose key begins so.
    pub prefix: Option<KeyPrefix>,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
    limit: usize,
    max_scan: usize,
}

impl Query {
    /// The most entries of a page.
    pub const MAX_LIMIT: usize = 1_000;
    /// The most records that a page looks at.
    pub const MAX_SCAN: usize = 100_000;

    /// All records: at most 100 a page, which looks at no more than 10,000.
    pub fn new() -> Self {
        Self {
            state: None,
            endpoint: None,
            older_than: None,
            prefix: None,
            cursor: None,
            limit: 100,
            max_scan: 10_000,
        }
    }

    /// Records in this state only.
    pub fn state(mut self, state: StateKind) -> Self {
        self.state = Some(state);
        self
    }

    /// Records of this endpoint only, as logs name it: `POST /orders/{id}`, or the route's name.
    pub fn endpoint(mut self, endpoint: &str) -> Self {
        self.endpoint = Some(super::label::cut(endpoint).into());
        self
    }

    /// Records only that were created at least this long ago, and those of which the store does not know when.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Records only whose key begins so.
    pub fn prefix(mut self, prefix: KeyPrefix) -> Self {
        self.prefix = Some(prefix);
        self
    }

    /// Goes on where the page ended that gave this cursor. The filters have to be the same.
    pub fn after(mut self, cursor: Option<Cursor>) -> Self {
        self.cursor = cursor;
        self
    }

    /// The most entries of a page: 100 unless set; from 1 to [`MAX_LIMIT`](Self::MAX_LIMIT), others are brought within.
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, Self::MAX_LIMIT);
        self
    }

    /// The most records that a page looks at: 10,000 unless set; from 1 to [`MAX_SCAN`](Self::MAX_SCAN), others are brought
    /// within.
    pub fn with_max_scan(mut self, max_scan: usize) -> Self {
        self.max_scan = max_scan.clamp(1, Self::MAX_SCAN);
        self
    }

    /// The most entries of a page.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The most records that a page looks at.
    #[must_use]
    pub fn max_scan(&self) -> usize {
        self.max_scan
    }

    /// Whether this entry is one of those asked for, `now` being the time by the store's clock. For stores that filter
    /// what they have read; the cursor does not count.
    #[must_use]
    pub fn matches(&self, entry: &Entry, now: SystemTime) -> bool {
        let old = |age| match entry.created_at {
            Some(created) => now.duration_since(created).is_ok_and(|since| since >= age),
            None => true,
        };
        self.state.is_none_or(|kind| entry.state.kind() == kind)
            && self
                .endpoint
                .as_deref()
                .is_none_or(|endpoint| entry.endpoint.as_deref() == Some(endpoint))
            && self.prefix.is_none_or(|prefix| prefix.matches(&entry.key))
            && self.older_than.is_none_or(old)
    }
}

impl Default for Query {
    fn default() -> Self {
        Self::new()
    }
}

/// Some of the records that match a [`Query`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Page {
    /// The records. May be none although more follow.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` if this was the last one.
    pub next: Option<Cursor>,
}

impl Page {
    /// A page as a store read it.
    #[must_use]
    pub fn new(entries: Vec<Entry>, next: Option<Cursor>) -> Self {
        Self { entries, next }
    }
}

/// What a list shows of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The record's identity. Logs show its first eight bytes.
    pub key: StoreKey,
    /// What the request asked for; [`Fingerprint::caller_digest`] is in it.
    pub fingerprint: Fingerprint,
    /// Its state.
    pub state: EntryState,
    /// The number of the newest lease.
    pub attempt: u32,
    /// How it was claimed.
    pub mode: ClaimMode,
    /// The endpoint that it was claimed for, as logs and metrics name it; `None` where the claim named none, and in a
    /// record of an earlier version.
    pub endpoint: Option<Cow<'static, str>>,
    /// When the key was first claimed, by the store's clock; `None` in a record of an earlier version.
    pub created_at: Option<SystemTime>,
    /// When it was completed, by the store's clock; `None` in flight, and in a record of an earlier version.
    pub completed_at: Option<SystemTime>,
    /// Time until it expires.
    pub expires_in: Duration,
    /// The bytes of the stored response, head and body, as they are stored: compressed and encrypted where that is
    /// configured. Zero in flight and for a tombstone.
    pub stored_bytes: u64,
    /// The W3C trace id of the execution.
    pub trace_id: Option<TraceId>,
}

impl Entry {
    /// An entry of which nothing else is known: a plain first attempt without an endpoint, times, size or trace id.
    #[must_use]
    pub fn new(
        key: StoreKey,
        fingerprint: Fingerprint,
        state: EntryState,
        expires_in: Duration,
    ) -> Self {
        Self {
            key,
            fingerprint,
            state,
            attempt: 1,
            mode: ClaimMode::Plain,
            endpoint: None,
            created_at: None,
            completed_at: None,
            expires_in,
            stored_bytes: 0,
            trace_id: None,
        }
    }
}

/// The state of a listed record.
///
/// Exhaustive on purpose: these are the states of the contract's [state machine](super#the-state-machine).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// An execution holds the key.
    InFlight {
        /// The rest of its lease.
        remaining: Duration,
    },
    /// The lease lapsed without an outcome.
    Unknown {
        /// How long ago it lapsed.
        lapsed: Duration,
    },
    /// The response is stored.
    Completed,
    /// Executed, but the response could not be stored.
    Tombstone,
}

impl EntryState {
    /// Which state it is.
    #[must_use]
    pub fn kind(self) -> StateKind {
        match self {
            Self::InFlight { .. } => StateKind::InFlight,
            Self::Unknown { .. } => StateKind::Unknown,
            Self::Completed => StateKind::Completed,
            Self::Tombstone => StateKind::Tombstone,
        }
    }
}

/// A state to filter by.
///
/// Exhaustive on purpose, as [`EntryState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// An execution holds the key, and its lease is live.
    InFlight,
    /// The lease lapsed without an outcome.
    Unknown,
    /// The response is stored.
    Completed,
    /// Executed, but the response could not be stored.
    Tombstone,
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::InFlight => "in flight",
            Self::Unknown => "unknown",
            Self::Completed => "completed",
            Self::Tombstone => "tombstone",
        })
    }
}

/// How many records of each state there are in a part of the store. The parts [add](Self::add) up.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Executions that hold their keys.
    pub in_flight: u64,
    /// Lapsed without an outcome.
    pub unknown: u64,
    /// Stored responses.
    pub completed: u64,
    /// Executed without a stored response.
    pub tombstones: u64,
    /// The bytes of the stored responses, as [`Entry::stored_bytes`] counts them.
    pub stored_bytes: u64,
    /// The share of the store that was looked at: 1 for all of it, from the beginning to the end. The store may only know
    /// it approximately, unless it is 1.
    pub share: f64,
    /// Where to go on counting; `None` if this reached the end.
    pub next: Option<Cursor>,
}

impl Stats {
    /// Counts one more record in this state, with this many stored bytes.
    pub fn count(&mut self, state: StateKind, stored_bytes: u64) {
        let counter = match state {
            StateKind::InFlight => &mut self.in_flight,
            StateKind::Unknown => &mut self.unknown,
            StateKind::Completed => &mut self.completed,
            StateKind::Tombstone => &mut self.tombstones,
        };
        *counter += 1;
        self.stored_bytes += stored_bytes;
    }

    /// All records that were counted.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.in_flight + self.unknown + self.completed + self.tombstones
    }

    /// Adds what was counted from this one's cursor on.
    pub fn add(&mut self, next: Self) {
        self.in_flight += next.in_flight;
        self.unknown += next.unknown;
        self.completed += next.completed;
        self.tombstones += next.tombstones;
        self.stored_bytes += next.stored_bytes;
        self.share = (self.share + next.share).min(1.0);
        self.next = next.next;
    }

    /// Whether the whole store was counted, if counting began at the beginning: else the numbers are a sample.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.next.is_none()
    }

    /// What one of the numbers here would be for the whole store: the number itself where all was counted, otherwise an
    /// estimate. From a sample with `n` records of a kind its standard error is about `1/√n` of it; from one with none it
    /// is zero and says little.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, of a number that is not negative; the cast saturates"
    )]
    pub fn estimate(&self, counted: u64) -> u64 {
        if self.is_exact() || self.share <= 0.0 {
            return counted;
        }
        (counted as f64 / self.share.min(1.0)).round() as u64
    }
}

/// What [`find`] found.
#[derive(Clone, Debug)]
pub enum Found {
    /// No record's key begins so.
    None,
    /// One does.
    One(Box<Entry>),
    /// Several do: the first few of them. More digits tell them apart.
    Several(Vec<Entry>),
}

/// How many candidates [`find`] shows.
const MAX_CANDIDATES: usize = 5;

/// Finds the record whose key begins so, as logs print it. Follows pages until two are found or none are left.
///
/// A store whose keys are in no order looks at all of them, page by page.
///
/// # Errors
///
/// As [`Inspectable::list`].
pub async fn find(store: &dyn Inspectable, prefix: KeyPrefix) -> Result<Found, super::StoreError> {
    let mut query = Query::new().prefix(prefix).with_limit(MAX_CANDIDATES);
    let mut found: Vec<Entry> = Vec::new();
    loop {
        let page = store.list(&query).await?;
        for entry in page.entries {
            // A store may show a record twice.
            if found.iter().all(|other| other.key != entry.key) {
                found.push(entry);
            }
        }
        if page.next.is_none() || found.len() > 1 {
            break;
        }
        query.cursor = page.next;
    }
    found.truncate(MAX_CANDIDATES);
    Ok(match found.len() {
        0 => Found::None,
        1 => found
            .pop()
            .map_or(Found::None, |entry| Found::One(Box::new(entry))),
        _ => Found::Several(found),
    })
}
