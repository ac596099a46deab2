//! Listing: the walk through all records, shard by shard, in the order of their hashes.
//!
//! A hash table has no order in which a walk could go on after it has changed, and an ordered index would cost every claim.
//! But hashes are spread evenly: a slice of all possible hashes, its width by the number of records, holds about
//! [`SLICE`] of them. A slice is copied under the lock of its shard, which is held for a pass over hashes that lie side by
//! side (some 15,000 of a million records: less than the table needs to grow) and a look at the records of the slice. The
//! cursor is the last key, whose hash says where to go on.

use std::ops::RangeInclusive;

use tokio::task::yield_now;

use super::{MemoryStore, NAME, Shared, row::Row, usage::SHARDS};
use crate::{
    scope::StoreKey,
    store::{
        erased::Operation,
        error::StoreError,
        inspect::{Cursor, Entry, Inspectable, Page, Query, Stats},
    },
};

/// About how many records are looked at under one lock.
const SLICE: u64 = 256;

/// After how many records a walk lets other tasks of its thread go on.
const PAUSE_AFTER: usize = 1_024;

impl Inspectable for MemoryStore {
    fn list<'a>(&'a self, query: &'a Query) -> Operation<'a, Page> {
        Box::pin(async move {
            let mut page = Page::default();
            let Shared { table, clock, .. } = &*self.shared;
            let time = clock.wall(clock.now());
            // The first byte of a key says in which shard it is.
            let only = query
                .prefix
                .map(|prefix| table.place(&prefix.lowest()).shard);
            let walk = Walk {
                only,
                max_scan: query.max_scan(),
            };
            let see = |entry: Entry| {
                if query.matches(&entry, time) {
                    page.entries.push(entry);
                }
                page.entries.len() < query.limit()
            };
            let (_, next) = self.walk(query.cursor.as_ref(), &walk, see).await?;
            page.next = next;
            Ok(page)
        })
    }

    fn stats<'a>(&'a self, cursor: Option<&'a Cursor>, max_scan: usize) -> Operation<'a, Stats> {
        Box::pin(async move {
            let mut stats = Stats::default();
            let records = self.len();
            let walk = Walk {
                only: None,
                max_scan,
            };
            let see = |entry: Entry| {
                stats.count(entry.state.kind(), entry.stored_bytes);
                true
            };
            let (scanned, next) = self.walk(cursor, &walk, see).await?;
            #[expect(
                clippy::cast_precision_loss,
                reason = "a share of fewer than 2^52 records"
            )]
            let share = scanned as f64 / records.max(1) as f64;
            stats.share = match (cursor, &next) {
                (None, None) => 1.0,
                _ => share.min(1.0),
            };
            stats.next = next;
            Ok(stats)
        })
    }
}

/// Where a walk goes, and how far.
struct Walk {
    /// Through this shard only.
    only: Option<usize>,
    max_scan: usize,
}

impl MemoryStore {
    /// Shows the records behind the cursor until `see` has enough, or `max_scan` were looked at, expired ones included.
    /// Returns how many that were, and where to go on.
    async fn walk(
        &self,
        cursor: Option<&Cursor>,
        walk: &Walk,
        mut see: impl FnMut(Entry) -> bool,
    ) -> Result<(usize, Option<Cursor>), StoreError> {
        let Shared { table, clock, .. } = &*self.shared;
        let after = cursor.map(|cursor| cursor.key(NAME)).transpose()?;
        let behind = after.map(|key| table.place(&key));
        let first = behind.map_or(0, |place| place.shard);
        let now = clock.now();
        let (mut scanned, mut seen) = (0, 0);
        for shard in (first..SHARDS).filter(|shard| walk.only.is_none_or(|only| only == *shard)) {
            let begin = behind.filter(|place| place.shard == shard);
            let mut from = Some(begin.map_or(0, |place| place.hash));
            while let Some(first) = from {
                let hashes = slice(first, table.records(shard));
                from = hashes.end().checked_add(1);
                let entry = |row: &Row| row.entry(now, clock);
                let mut rows = table.rows(shard, &hashes, entry);
                rows.sort_unstable_by_key(|(place, _)| *place);
                seen += rows.len();
                for (place, entry) in rows {
                    if Some(place) <= begin {
                        continue;
                    }
                    scanned += 1;
                    let enough = entry.is_some_and(|entry| !see(entry));
                    if enough || scanned >= walk.max_scan {
                        let cursor = Cursor::after(&StoreKey::from_bytes(place.key));
                        return Ok((scanned, Some(cursor)));
                    }
                }
                // A small store is listed without a pause.
                if seen >= PAUSE_AFTER {
                    seen = 0;
                    yield_now().await;
                }
            }
        }
        Ok((scanned, None))
    }
}

/// The hashes from this one on among which there are about [`SLICE`] of this many records.
fn slice(first: u64, records: usize) -> RangeInclusive<u64> {
    let records = u64::try_from(records).unwrap_or(u64::MAX).max(1);
    let width = (u64::MAX / records).saturating_mul(SLICE);
    first..=first.saturating_add(width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_go_on_to_the_last_hash() {
        for records in [0, 1, 256, 257, 15_625, usize::MAX] {
            let mut from = Some(u64::MAX - 3 * (u64::MAX / 15_625 * SLICE));
            let mut slices = 0;
            while let Some(first) = from.filter(|_| slices < 9) {
                let hashes = slice(first, records);
                assert!(*hashes.start() == first && *hashes.end() > first || first == u64::MAX);
                from = hashes.end().checked_add(1);
                slices += 1;
            }
            assert!(from.is_none() || records == usize::MAX, "{records} records");
        }
    }
}
