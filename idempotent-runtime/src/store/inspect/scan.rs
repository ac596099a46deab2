//! Many pages at once: what tools list, count and sort, each within a number of records.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::{Cursor, Entry, EntryState, Inspectable, Page, Query, Stats};
use crate::store::StoreError;

/// How many records one page looks at: a server answers it quickly.
const STEP: usize = 10_000;

/// The first `limit` records that match, in the order of the store. Looks at no more than `max_scan` records.
///
/// # Errors
///
/// As [`Inspectable::list`].
pub async fn first(
    store: &dyn Inspectable,
    query: Query,
    limit: usize,
    max_scan: u64,
) -> Result<Page, StoreError> {
    let mut entries = Vec::new();
    let next = scan(store, query, limit, max_scan, |entry| entries.push(entry)).await?;
    Ok(Page { entries, next })
}

/// Of the records that match, among the first `max_scan`, the `limit` that have been unknown for longest, those first.
///
/// # Errors
///
/// As [`Inspectable::list`].
pub async fn oldest(
    store: &dyn Inspectable,
    query: Query,
    limit: usize,
    max_scan: u64,
) -> Result<Page, StoreError> {
    let mut kept: BinaryHeap<Reverse<Aged>> = BinaryHeap::new();
    let keep = |entry: Entry| {
        kept.push(Reverse(Aged(entry)));
        if kept.len() > limit {
            kept.pop();
        }
    };
    let next = scan(store, query, usize::MAX, max_scan, keep).await?;
    let entries = kept.into_sorted_vec().into_iter();
    let entries = entries.map(|Reverse(Aged(entry))| entry).collect();
    Ok(Page { entries, next })
}

/// Counts the records by state, among the first `max_scan`, page by page, so that no statement is long.
///
/// # Errors
///
/// As [`Inspectable::stats`].
pub async fn count(store: &dyn Inspectable, max_scan: u64) -> Result<Stats, StoreError> {
    let mut counts = Stats::default();
    let mut left = max_scan.max(1);
    loop {
        let step = step(left);
        let page = store.stats(counts.next.as_ref(), step).await?;
        counts.add(page);
        left = left.saturating_sub(step as u64);
        if counts.next.is_none() || left == 0 {
            return Ok(counts);
        }
    }
}

/// Follows pages until `max_scan` records were looked at, `most` were found or none are left. Returns where it ended, unless
/// that was the end.
async fn scan(
    store: &dyn Inspectable,
    mut query: Query,
    most: usize,
    max_scan: u64,
    mut take: impl FnMut(Entry),
) -> Result<Option<Cursor>, StoreError> {
    let mut left = max_scan;
    let mut room = most;
    loop {
        let step = step(left);
        query = query
            .with_limit(room.min(Query::MAX_LIMIT))
            .with_max_scan(step);
        let page = store.list(&query).await?;
        left = left.saturating_sub(step as u64);
        room = room.saturating_sub(page.entries.len());
        page.entries.into_iter().for_each(&mut take);
        match page.next {
            Some(next) if left > 0 && room > 0 => query = query.after(Some(next)),
            next => return Ok(next),
        }
    }
}

fn step(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(STEP)
}

/// An entry, ordered by how long its outcome has been unknown.
struct Aged(Entry);

impl Aged {
    fn age(&self) -> Duration {
        match self.0.state {
            EntryState::Unknown { lapsed } => lapsed,
            _ => Duration::ZERO,
        }
    }
}

impl PartialEq for Aged {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Aged {}

impl PartialOrd for Aged {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Aged {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.age()
            .cmp(&other.age())
            .then_with(|| self.0.key.as_bytes().cmp(other.0.key.as_bytes()))
    }
}
