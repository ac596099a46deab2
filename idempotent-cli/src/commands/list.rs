//! `list`.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use idempotent_runtime::{
    store::inspect::{Cursor, Entry, EntryState, Inspectable, Query},
    view::RecordView,
};

use crate::{
    cli::{Filters, Global, List, State},
    failure::Failure,
    output::{self, Tabular},
    session::Session,
    view,
};

impl Tabular for RecordView {
    const COLUMNS: &'static [&'static str] = &[
        "ID",
        "STATE",
        "ENDPOINT",
        "ATTEMPT",
        "CREATED (UTC)",
        "EXPIRES IN",
        "BYTES",
    ];

    fn cells(&self) -> Vec<String> {
        let seconds = |seconds| view::span(Duration::from_secs(seconds));
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let state = match (self.unknown_for_seconds, self.lease_left_seconds) {
            (Some(lapsed), _) => format!("{} for {}", self.state, seconds(lapsed)),
            (_, Some(left)) => format!("{}, lease {}", self.state, seconds(left)),
            _ => self.state.to_owned(),
        };
        vec![
            self.id[..16].to_owned(),
            state,
            or_dash(&self.endpoint),
            self.attempt.to_string(),
            or_dash(&self.created_at),
            seconds(self.expires_in_seconds),
            self.stored_bytes.to_string(),
        ]
    }
}

pub(super) async fn run(global: &Global, session: &Session, list: List) -> Result<(), Failure> {
    let store = session.inspectable()?;
    let query = query(&list.filters).after(list.after.map(Cursor::new));
    let limit = usize::try_from(list.limit).unwrap_or(usize::MAX);
    let found = if list.filters.state == Some(State::Unknown) {
        oldest(store, query, limit, list.max_scan).await?
    } else {
        first(store, query, limit, list.max_scan).await?
    };
    let rows: Vec<_> = found.entries.iter().map(RecordView::from).collect();
    output::rows(global.output, &rows, "no such record")?;
    if let Some(cursor) = found.next {
        eprintln!("more may follow: --after {cursor}");
    }
    Ok(())
}

/// The filters, as the store takes them.
pub(super) fn query(filters: &Filters) -> Query {
    let mut query = Query::new();
    if let Some(state) = filters.state {
        query = query.state(state.into());
    }
    if let Some(endpoint) = &filters.endpoint {
        query = query.endpoint(endpoint);
    }
    if let Some(age) = filters.older_than {
        query = query.older_than(age);
    }
    query
}

/// Records that were found, and where to go on.
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    pub(super) next: Option<Cursor>,
}

/// The first `limit` records in the order of the store.
async fn first(
    store: &dyn Inspectable,
    query: Query,
    limit: usize,
    max_scan: u64,
) -> Result<Listing, Failure> {
    let mut entries: Vec<Entry> = vec![];
    let next = scan(
        store,
        query,
        max_scan,
        |query| query,
        |entry| entries.push(entry),
        limit,
    )
    .await?;
    Ok(Listing { entries, next })
}

/// Of the records up to `max_scan`, the `limit` that have been unknown for longest, those first.
pub(super) async fn oldest(
    store: &dyn Inspectable,
    query: Query,
    limit: usize,
    max_scan: u64,
) -> Result<Listing, Failure> {
    let mut kept: BinaryHeap<Reverse<Aged>> = BinaryHeap::new();
    let keep = |entry: Entry| {
        kept.push(Reverse(Aged(entry)));
        if kept.len() > limit {
            kept.pop();
        }
    };
    let next = scan(
        store,
        query,
        max_scan,
        |query| query.with_limit(Query::MAX_LIMIT),
        keep,
        usize::MAX,
    )
    .await?;
    let entries = kept
        .into_sorted_vec()
        .into_iter()
        .map(|Reverse(Aged(entry))| entry)
        .collect();
    Ok(Listing { entries, next })
}

/// Follows pages until `max_scan` records were looked at, `most` were found or none are left. Returns where it ended, unless
/// that was the end.
async fn scan(
    store: &dyn Inspectable,
    mut query: Query,
    max_scan: u64,
    size: impl Fn(Query) -> Query,
    mut take: impl FnMut(Entry),
    most: usize,
) -> Result<Option<Cursor>, Failure> {
    let mut left = max_scan;
    let mut room = most;
    loop {
        // Pages that a server answers quickly.
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(10_000);
        query = size(
            query
                .with_limit(room.min(Query::MAX_LIMIT))
                .with_max_scan(step),
        );
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
