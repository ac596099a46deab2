//! How a purge goes through what has expired, where that stays in the index after it was deleted: until PostgreSQL
//! vacuums the table, or `InnoDB` purges it. A batch goes on where the last one ended, and does not pass all of that again.
//!
//! 1. A batch that is full ends where its last record was. The next one goes on from there.
//! 2. One that is not full has come to the present. Behind it may lie what it passed over, because somebody had locked
//!    it, and what was written later and expired earlier. So it is followed by a look from the beginning.
//! 3. That look passes what was deleted. If it is quick, the next batch begins there too. If it takes long, as after
//!    millions of deletions, or is given up for that, the next batch goes on in the present, and the next look comes
//!    after a [`REST`].
//! 4. The first batch of a process is such a look, too. Where the database cannot clean up, because somebody keeps an old
//!    snapshot of it, what expired before may stay until it can.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a look may take that is repeated with each batch that is not full.
const QUICK: Duration = Duration::from_millis(500);
/// How long to purge without a look after one that took longer. Databases clean up within some minutes of such a purge.
const REST: Duration = Duration::from_secs(5 * 60);

/// Beyond all expiries, and within what each database takes for a time: the year 9999.
const FAR: i64 = 253_370_764_800_000_000;

/// A database's own deletion.
pub(super) trait Expired: Sync {
    /// Deletes at most this many expired records, those first that expired first, from this expiry on (microseconds
    /// since 1970).
    fn purge_from(
        &self,
        from: i64,
        limit: i64,
    ) -> impl Future<Output = Result<Batch, sqlx::Error>> + Send;

    /// Whether it was given up because it took too long, by the server or the client.
    fn took_too_long(&self, error: &sqlx::Error) -> bool;
}

pub(super) struct Batch {
    pub(super) purged: i64,
    /// From where on there may be more: where a full batch ended, or the present (microseconds since 1970).
    pub(super) until: i64,
}

/// Deletes at most this many, and says how many that were.
pub(super) async fn purge(
    cursor: &Cursor,
    expired: &impl Expired,
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let (from, began) = (cursor.from(), Instant::now());
    let batch = expired.purge_from(from, limit).await;
    if from == 0
        && let Err(error) = &batch
        && expired.took_too_long(error)
    {
        // The next batch passes nothing, and is told the present.
        cursor.arrive(FAR);
    }
    let Batch { mut purged, until } = batch?;
    if purged >= limit {
        cursor.go_on(until);
    } else {
        let due = cursor.arrive(until);
        if from == 0 {
            cursor.looked(began);
        } else if due {
            purged += look(cursor, expired, limit - purged).await;
        }
    }
    Ok(purged.unsigned_abs())
}

/// Deletes what the batches before had to pass over. If that fails, theirs count all the same.
async fn look(cursor: &Cursor, expired: &impl Expired, limit: i64) -> i64 {
    let began = Instant::now();
    match expired.purge_from(0, limit).await {
        Ok(Batch { purged, until }) => {
            if purged >= limit {
                cursor.found(until);
            } else {
                cursor.looked(began);
            }
            purged
        }
        Err(error) => {
            if !expired.took_too_long(&error) {
                cursor.look_again();
            }
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "what a purge had to pass over is looked for later");
            0
        }
    }
}

/// Shared by all who purge by one store. Who purges beside may set it back or forth, which costs a look.
#[derive(Debug, Default)]
pub(super) struct Cursor(Mutex<Place>);

#[derive(Debug, Default)]
struct Place {
    /// An expiry in microseconds since 1970, from which on there may be something to purge; 0 for all.
    from: i64,
    /// Until when there is to be no look.
    rest: Option<Instant>,
}

impl Cursor {
    /// Where the next batch begins.
    fn from(&self) -> i64 {
        self.place().from
    }

    /// A batch was full and ended with this expiry.
    fn go_on(&self, from: i64) {
        self.place().from = from;
    }

    /// A batch came to the present. Whether a look is due; one that does not end counts as one that takes long.
    fn arrive(&self, present: i64) -> bool {
        let mut place = self.place();
        place.from = present;
        let now = Instant::now();
        let due = place.rest.is_none_or(|rest| rest <= now);
        if due {
            place.rest = Some(now + REST);
        }
        due
    }

    /// A look that began at this moment came to the present, so that nothing is left that has expired.
    fn looked(&self, since: Instant) {
        if since.elapsed() <= QUICK {
            *self.place() = Place::default();
        }
    }

    /// A look came to nothing, for a reason that says nothing of the next one.
    fn look_again(&self) {
        self.place().rest = None;
    }

    /// A look found more than it was to delete.
    fn found(&self, from: i64) {
        *self.place() = Place { from, rest: None };
    }

    /// It is whole at any moment.
    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
