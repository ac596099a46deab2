//! `audit`.

use idempotent_runtime::{store::Store as _, view::AuditView};

use crate::{
    cli::{Audit, Global},
    failure::Failure,
    output::{self, Tabular},
    session::Session,
};

impl Tabular for AuditView {
    const COLUMNS: &'static [&'static str] = &[
        "TIME (UTC)",
        "ACTOR",
        "ACTION",
        "STAGE",
        "RECORD",
        "BEFORE",
        "AFTER",
        "REASON",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.at.clone(),
            self.actor.clone(),
            self.action.clone(),
            self.stage.clone(),
            self.record.chars().take(16).collect(),
            self.before.clone(),
            self.after.clone(),
            self.reason.clone(),
        ]
    }
}

pub(super) async fn run(global: &Global, session: &Session, audit: &Audit) -> Result<(), Failure> {
    let store = session.store.administrable().ok_or_else(|| {
        Failure::Refused(format!("the {} store keeps no audit", session.store.name()))
    })?;
    let events = store.events(audit.limit).await?;
    let rows: Vec<_> = events.iter().map(AuditView::from).collect();
    output::rows(global.output, &rows, "nobody has changed anything")
}
