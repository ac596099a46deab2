//! `list`.

use std::time::Duration;

use idempotent_runtime::{
    store::inspect::{Cursor, Query, first, oldest},
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
