//! `stats`.

use idempotent_runtime::{store::inspect::count, view::StatsView};

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
    let max_scan = u64::try_from(stats.max_scan).unwrap_or(u64::MAX);
    let counts = count(session.inspectable()?, max_scan).await?;
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
