//! The purge of PostgreSQL and MySQL, where a deleted row stays in the index until PostgreSQL vacuums the table or
//! `InnoDB` purges the row. Each batch continues where the last one ended, so that it need not scan the deleted entries
//! again.
//!
//! 1. A full batch ends at its last record. The next batch continues from there.
//! 2. A partial batch has reached the current time. Rows that were locked may remain behind it, and so may rows that
//!    were written later and expired earlier. So it is followed by a rescan from the beginning.
//! 3. A rescan reads the entries of deleted rows. If it is quick, the next batch starts from the beginning too. If it
//!    takes long, as after millions of deletions, or is cancelled for that reason, the next batch continues at the
//!    current time, and the next rescan follows after [`RESCAN_INTERVAL`].
//! 4. The first batch of a process is a rescan too. While the database cannot clean up, because a transaction keeps an
//!    old snapshot, rows that expired earlier may remain until it can.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    dialect::Dialect,
    operations::{Access, Records},
};

/// A rescan that is at most this long is repeated with each partial batch.
const QUICK_RESCAN: Duration = Duration::from_millis(500);
/// The time between two rescans that take longer. Databases clean up within some minutes of such a purge.
const RESCAN_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Later than all expiries, and within each database's range of times: the year 9999.
const FAR: i64 = 253_370_764_800_000_000;

pub(super) struct Batch {
    pub(super) purged: i64,
    /// How many records it looked at: those that were not due yet were moved on.
    pub(super) seen: i64,
    /// The time from which on there may be more records (microseconds since 1970): where a full batch ended, else the
    /// current time.
    pub(super) until: i64,
}

/// Deletes at most `limit` records and returns how many it deleted: fewer only if no others are due, or if moving on those
/// that are not takes long, as after a migration.
pub(super) async fn purge<D: Dialect, A: Access<D>>(
    records: &mut Records<'_, D, A>,
    cursor: &Cursor,
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let (mut purged, began) = (0, Instant::now());
    loop {
        let left = limit - purged;
        let (batch, full) = next(records, cursor, left).await?;
        purged += batch;
        if !full || purged >= limit || began.elapsed() > QUICK_RESCAN {
            return Ok(purged.unsigned_abs());
        }
    }
}

/// One batch: how many it deleted, and whether there may be more.
async fn next<D: Dialect, A: Access<D>>(
    records: &mut Records<'_, D, A>,
    cursor: &Cursor,
    limit: i64,
) -> Result<(i64, bool), sqlx::Error> {
    let (from, began) = (cursor.from(), Instant::now());
    let batch = records.batch(from, limit).await;
    if from == 0
        && let Err(error) = &batch
        && D::took_too_long(error)
    {
        // The next batch finds nothing to scan, and learns the current time.
        cursor.reach_present(FAR);
    }
    let Batch {
        mut purged,
        seen,
        until,
    } = batch?;
    let full = seen >= limit;
    if full {
        cursor.advance(until);
    } else {
        let due = cursor.reach_present(until);
        if from == 0 {
            cursor.end_rescan(began);
        } else if due {
            purged += rescan(records, cursor, limit - purged).await;
        }
    }
    Ok((purged, full))
}

/// Deletes the records that earlier batches skipped. Its failure does not fail the batch before it.
async fn rescan<D: Dialect, A: Access<D>>(
    records: &mut Records<'_, D, A>,
    cursor: &Cursor,
    limit: i64,
) -> i64 {
    let began = Instant::now();
    match records.batch(0, limit).await {
        Ok(Batch {
            purged,
            seen,
            until,
        }) => {
            if seen >= limit {
                cursor.continue_at(until);
            } else {
                cursor.end_rescan(began);
            }
            purged
        }
        Err(error) => {
            if !D::took_too_long(&error) {
                cursor.rescan_soon();
            }
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                "expired records that a purge skipped could not be deleted; a later purge retries"
            );
            0
        }
    }
}

/// Where the next batch starts. All purges of one store share it. Concurrent purges may move it back or forth, which
/// costs a rescan.
#[derive(Debug, Default)]
pub(super) struct Cursor(Mutex<Position>);

#[derive(Debug, Default)]
struct Position {
    /// The expiry from which on there may be records to purge, in microseconds since 1970; 0 for the beginning.
    from: i64,
    /// No rescan before this moment.
    next_rescan: Option<Instant>,
}

impl Cursor {
    /// Where the next batch starts.
    fn from(&self) -> i64 {
        self.position().from
    }

    /// A full batch ended at this expiry.
    fn advance(&self, from: i64) {
        self.position().from = from;
    }

    /// A batch reached the current time. Returns whether a rescan is due, and counts it as a long one until it ends.
    fn reach_present(&self, present: i64) -> bool {
        let mut position = self.position();
        position.from = present;
        let now = Instant::now();
        let due = position.next_rescan.is_none_or(|next| next <= now);
        if due {
            position.next_rescan = Some(now + RESCAN_INTERVAL);
        }
        due
    }

    /// A rescan that began at this moment reached the current time: no expired record is left.
    fn end_rescan(&self, since: Instant) {
        if since.elapsed() <= QUICK_RESCAN {
            *self.position() = Position::default();
        }
    }

    /// A rescan failed, but not because it takes long: the next batch may rescan again.
    fn rescan_soon(&self) {
        self.position().next_rescan = None;
    }

    /// A rescan deleted as many records as it was allowed to, up to this expiry.
    fn continue_at(&self, from: i64) {
        *self.position() = Position {
            from,
            next_rescan: None,
        };
    }

    /// The position is consistent whenever the lock is free, so a poisoned lock is as good.
    fn position(&self) -> MutexGuard<'_, Position> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
