//! The lists of a plain store, and what may be wrong with them.

use idempotent_runtime::{
    StoreKey,
    store::{
        Inspectable, Operation, Outcome, StoreError, StoreErrorKind,
        inspect::{Cursor, Entry, EntryState, Page, Query, Stats, share_of_keys},
    },
};

use super::{Flaw, row::Row, store::BrokenStore};

impl Inspectable for BrokenStore {
    fn list<'a>(&'a self, query: &'a Query) -> Operation<'a, Page> {
        Box::pin(async move {
            let found = self.behind(query.cursor.as_ref())?;
            let mut page = Page::default();
            let (mut scanned, total) = (0, found.len());
            for (place, entry) in found {
                scanned += 1;
                if let Some(entry) = entry.filter(|entry| self.matches(query, entry)) {
                    page.entries.push(entry);
                }
                let full = page.entries.len() == query.limit();
                let tired = scanned >= query.max_scan() && !self.is(Flaw::ScansAll);
                if (full || tired) && scanned < total {
                    page.next = Some(place);
                    break;
                }
            }
            if self.is(Flaw::EndsAtAnEmptyPage) && page.entries.is_empty() {
                page.next = None;
            }
            Ok(page)
        })
    }

    fn stats<'a>(&'a self, cursor: Option<&'a Cursor>, max_scan: usize) -> Operation<'a, Stats> {
        Box::pin(async move {
            let found = self.behind(cursor)?;
            let mut stats = Stats::default();
            let total = found.len();
            let mut last = None;
            for (place, entry) in found.into_iter().take(max_scan) {
                if let Some(entry) = entry {
                    stats.count(entry.state.kind(), entry.stored_bytes);
                    last = Some(entry.key);
                }
                stats.next = Some(place);
            }
            if total <= max_scan || self.is(Flaw::CountsOnePage) {
                (stats.next, last) = (None, None);
            }
            stats.share = share_of_keys(None, last.as_ref());
            Ok(stats)
        })
    }
}

impl BrokenStore {
    /// What is behind the cursor, each record with the cursor that follows it; `None` for those that have expired.
    fn behind(&self, cursor: Option<&Cursor>) -> Result<Vec<(Cursor, Option<Entry>)>, StoreError> {
        let now = self.now();
        let mut rows = self.rows().clone();
        rows.sort_unstable_by_key(|row| row.key);
        if self.is(Flaw::ListReadsResponses) && rows.iter().any(|row| row.unreadable) {
            return Err(StoreError::new("broken", StoreErrorKind::Corrupt));
        }
        let by_number = self.is(Flaw::PagesByNumber);
        let begin = match cursor {
            None => 0,
            Some(cursor) if by_number => {
                let number = cursor.as_str().parse();
                number.map_err(|_| cursor.refused("broken"))?
            }
            Some(cursor) => match cursor.key("broken") {
                Ok(key) => rows.partition_point(|row| row.key <= key),
                Err(_) if self.is(Flaw::AnyCursor) => 0,
                Err(error) => return Err(error),
            },
        };
        let entry = |(number, row): (usize, &Row)| {
            let place = if by_number {
                Cursor::new((number + 1).to_string())
            } else {
                Cursor::after(&row.key)
            };
            let shown = !row.expired(now) || self.is(Flaw::ListsExpired);
            (place, shown.then(|| self.entry(row)))
        };
        Ok(rows.iter().enumerate().skip(begin).map(entry).collect())
    }

    fn entry(&self, row: &Row) -> Entry {
        let now = self.now();
        let left = row.lease_until.saturating_duration_since(now);
        let lapsed = now.saturating_duration_since(row.lease_until);
        let state = match &row.outcome {
            Some(Outcome::Response(_)) => EntryState::Completed,
            Some(Outcome::Tombstone) => EntryState::Tombstone,
            None if left.is_zero() && !self.is(Flaw::ListsNoUnknown) => {
                EntryState::Unknown { lapsed }
            }
            None => EntryState::InFlight { remaining: left },
        };
        let size = match &row.outcome {
            Some(Outcome::Response(response)) => response.as_bytes().len() as u64,
            _ => 0,
        };
        let record = self.shown(row, now);
        let mut entry = Entry::new(row.key, row.fingerprint, state, record.expires_in);
        entry.attempt = row.attempt;
        entry.mode = record.mode;
        entry.endpoint = record.endpoint;
        entry.trace_id = record.trace_id;
        (entry.created_at, entry.completed_at) = (record.created_at, record.completed_at);
        entry.stored_bytes = size;
        entry
    }

    fn matches(&self, query: &Query, entry: &Entry) -> bool {
        let mut query = query.clone();
        let mut entry = entry.clone();
        let now = self.wall(self.now());
        if self.is(Flaw::EndpointsByTheirBeginning)
            && let (Some(asked), Some(endpoint)) = (&query.endpoint, &entry.endpoint)
            && endpoint.starts_with(&**asked)
        {
            query.endpoint = None;
        }
        if self.is(Flaw::AgeSinceCompletion) && entry.completed_at.is_some() {
            entry.created_at = entry.completed_at;
        }
        if self.is(Flaw::PrefixByWholeBytes)
            && let Some(prefix) = query.prefix.take()
        {
            let same = |key: &StoreKey| key.as_bytes()[..2] == prefix.lowest().as_bytes()[..2];
            return same(&entry.key) && query.matches(&entry, now);
        }
        query.matches(&entry, now)
    }
}
