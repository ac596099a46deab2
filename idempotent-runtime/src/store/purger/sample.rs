//! Looks for unknown records, a bounded part of the store at a time.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::BATCH_TIME_OUT;
use crate::{
    observe::StoreMetrics,
    store::{
        Store,
        error::{StoreError, StoreErrorKind},
        inspect::{EntryState, Inspectable, Query, StateKind},
    },
};

/// What was found, in a part of the store.
#[derive(Clone, Copy, Default)]
struct Found {
    records: u64,
    /// The oldest of them: for how long it had been unknown, and when that was read.
    oldest: Option<(Duration, Instant)>,
}

/// Goes through the store again and again, one page per period.
pub(super) struct Sampler {
    every: Duration,
    next: Instant,
    query: Option<Query>,
    current: Found,
    /// The last complete look.
    last: Found,
}

impl Sampler {
    pub(super) fn new(records: usize, every: Duration) -> Self {
        let query = Query::new().state(StateKind::Unknown);
        let query = query.with_limit(Query::MAX_LIMIT).with_max_scan(records);
        Self {
            every,
            next: Instant::now(),
            query: (records > 0).then_some(query),
            current: Found::default(),
            last: Found::default(),
        }
    }

    /// Looks at the next part, once per period.
    pub(super) async fn sample(&mut self, store: &impl Store, metrics: &StoreMetrics) {
        let now = Instant::now();
        let (Some(query), Some(list)) = (&mut self.query, store.inspectable()) else {
            return;
        };
        if now < self.next {
            return;
        }
        self.next = now + self.every;
        match look(store.name(), list, query).await {
            Ok(part) => self.current = self.current.and(part),
            Err(error) => {
                let (store, error) = (store.name(), &error as &dyn std::error::Error);
                tracing::warn!(store, error, "unknown records could not be counted");
                // The metrics keep their values, and counting begins again.
                query.cursor = None;
                self.current = Found::default();
                return;
            }
        }
        let complete = query.cursor.is_none();
        if complete {
            self.last = std::mem::take(&mut self.current);
        }
        let records = self.last.records.max(self.current.records);
        let oldest = self.last.age().max(self.current.age());
        metrics.unknown(records, oldest);
    }
}

/// One page; the query then stands where the next one begins.
async fn look(
    name: &'static str,
    list: &dyn Inspectable,
    query: &mut Query,
) -> Result<Found, StoreError> {
    let page = timeout(BATCH_TIME_OUT, list.list(query));
    let page = page.await.unwrap_or_else(|elapsed| {
        let late = StoreError::new(name, StoreErrorKind::Unavailable);
        Err(late.with_source(elapsed))
    })?;
    query.cursor = page.next;
    let read = Instant::now();
    let lapsed = page.entries.iter().filter_map(|entry| match entry.state {
        EntryState::Unknown { lapsed } => Some(lapsed),
        _ => None,
    });
    Ok(Found {
        records: page.entries.len() as u64,
        oldest: lapsed.max().map(|lapsed| (lapsed, read)),
    })
}

impl Found {
    fn and(self, part: Self) -> Self {
        let older = part.age() > self.age();
        Self {
            records: self.records + part.records,
            oldest: if older { part.oldest } else { self.oldest },
        }
    }

    /// For how long the oldest has been unknown by now.
    fn age(&self) -> Duration {
        self.oldest
            .map_or(Duration::ZERO, |(lapsed, read)| lapsed + read.elapsed())
    }
}
