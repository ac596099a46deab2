//! `stats`.

use idempotent_runtime::{store::inspect::Stats as Counts, view::StatsView};

use crate::{
    cli::{Global, Stats},
    failure::Failure,
    output::{self, Tabular},
    session::Session,
};

impl Tabular for StatsView {
    const COLUMNS: &'static [&'static str] = &[];

    fn cells(&self) -> Vec<String> {
        vec![]
    }
}

pub(super) async fn run(global: &Global, session: &Session, stats: &Stats) -> Result<(), Failure> {
    let counts = count(session, stats.max_scan).await?;
    let row = StatsView::from(&counts);
    let about = if row.exact { "" } else { "about " };
    let number = |number: u64| format!("{about}{number}");
    output::one(
        global.output,
        &row,
        &[
            ("in flight", number(row.in_flight)),
            ("unknown", number(row.unknown)),
            ("completed", number(row.completed)),
            ("tombstones", number(row.tombstones)),
            ("stored bytes", number(row.stored_bytes)),
        ],
    )?;
    if !row.exact {
        eprintln!(
            "estimated from {} records; a higher --max-scan counts more of them",
            counts.records()
        );
    }
    Ok(())
}

/// Counts page by page, so that no statement is long.
async fn count(session: &Session, max_scan: usize) -> Result<Counts, Failure> {
    let store = session.inspectable()?;
    let mut counts = Counts::default();
    let mut left = max_scan.max(1);
    loop {
        let step = left.min(10_000);
        let page = store.stats(counts.next.as_ref(), step).await?;
        counts.add(page);
        left -= step;
        if counts.next.is_none() || left == 0 {
            return Ok(counts);
        }
    }
}
