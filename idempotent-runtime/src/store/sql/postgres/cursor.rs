//! How far a purge has come in the order of expiry.
//!
//! What was deleted stays in the index until the table is vacuumed. So a purge goes on where the last one ended, and
//! does not pass all of that again.
//!
//! 1. A batch that is full ends where its last record was. The next one goes on from there.
//! 2. One that is not full has come to the present. Behind it may lie what it passed over, because somebody had locked
//!    it, and what was written later and expired earlier. So it is followed by a look from the beginning.
//! 3. That look passes what was deleted. If it is quick, the next batch begins there too. If it takes long, as after
//!    millions of deletions, or is not answered in time, the next batch goes on in the present, and the next look comes
//!    after a [`REST`].

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a look may take that is repeated with each batch that is not full.
const QUICK: Duration = Duration::from_millis(500);
/// How long to purge without a look after one that took longer. A vacuum comes within some minutes of such a purge.
const REST: Duration = Duration::from_secs(5 * 60);

/// Shared by all who purge by one store. Who purges beside may set it back or forth, which costs a look.
#[derive(Default)]
pub(super) struct Cursor(Mutex<Place>);

#[derive(Default)]
struct Place {
    /// An expiry in microseconds since 1970, from which on there may be something to purge; 0 for all.
    from: i64,
    /// Until when there is to be no look.
    rest: Option<Instant>,
}

impl Cursor {
    /// Where the next batch begins.
    pub(super) fn from(&self) -> i64 {
        self.place().from
    }

    /// A batch was full and ended with this expiry.
    pub(super) fn go_on(&self, from: i64) {
        self.place().from = from;
    }

    /// A batch came to the present. Whether a look is due; one that does not end counts as one that takes long.
    pub(super) fn arrive(&self, present: i64) -> bool {
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
    pub(super) fn looked(&self, since: Instant) {
        if since.elapsed() <= QUICK {
            *self.place() = Place::default();
        }
    }

    /// A look found more than it was to delete.
    pub(super) fn found(&self, from: i64) {
        *self.place() = Place { from, rest: None };
    }

    /// It is whole at any moment.
    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
