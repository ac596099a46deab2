//! `show`.

use std::{io::Write as _, time::Duration};

use idempotent_runtime::{
    store::inspect::Entry,
    view::{self as shown, RecordView, RevealedView},
};

use crate::{
    ask,
    cli::{Format, Global, Show},
    failure::Failure,
    output::{self, Tabular},
    session::Session,
    view,
};

pub(super) async fn run(global: &Global, session: &Session, show: &Show) -> Result<(), Failure> {
    let entry = session.record(&show.which).await?;
    if show.body {
        return reveal(global, session, show, &entry).await;
    }
    output::one(global.output, &RecordView::from(&entry), &lines(&entry))
}

async fn reveal(
    global: &Global,
    session: &Session,
    show: &Show,
    entry: &Entry,
) -> Result<(), Failure> {
    ask::writes_allowed(global)?;
    if global.output == Format::Csv {
        return Err(Failure::Usage(
            "a response does not fit CSV: choose table, json or jsonl".into(),
        ));
    }
    let reason = ask::reason(show.reason.as_deref().unwrap_or_default())?;
    let engine = session.engine(Duration::from_secs(24 * 60 * 60))?;
    let actor = global.actor();
    let record = engine.operator(&actor, reason).reveal(&entry.key).await?;
    let revealed = RevealedView::new(entry, &record).map_err(|error| {
        Failure::Failed(format!("the response cannot be read ({error}): if responses are encrypted, set IDEMPOTENT_KEYRING").into())
    })?;
    print(global.output, entry, &revealed)
}

fn print(format: Format, entry: &Entry, revealed: &RevealedView) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, revealed)?;
            writeln!(out)?;
        }
        Format::Jsonl => {
            serde_json::to_writer(&mut out, revealed)?;
            writeln!(out)?;
        }
        Format::Table | Format::Csv => {
            let mut lines = lines(entry);
            if let Some(status) = revealed.status {
                lines.push(("status", status.to_string()));
            }
            for (name, value) in &revealed.headers {
                lines.push(("header", format!("{name}: {value}")));
            }
            if let Some(body) = &revealed.body {
                lines.push(("body", body.clone()));
            }
            drop(out);
            return output::one(Format::Table, &revealed.record, &lines);
        }
    }
    Ok(out.flush()?)
}

fn lines(entry: &Entry) -> Vec<(&'static str, String)> {
    let unknown = || "not known".to_owned();
    let mut lines = vec![
        ("id", view::id(&entry.key)),
        ("state", view::state(entry)),
        (
            "endpoint",
            entry
                .endpoint
                .as_deref()
                .map_or_else(unknown, str::to_owned),
        ),
        ("attempt", entry.attempt.to_string()),
        (
            "caller",
            RecordView::from(entry).caller.unwrap_or_else(unknown),
        ),
        (
            "created",
            entry.created_at.map_or_else(unknown, shown::time),
        ),
    ];
    if let Some(at) = entry.completed_at {
        lines.push(("completed", shown::time(at)));
    }
    lines.push(("expires in", view::span(entry.expires_in)));
    lines.push(("stored bytes", entry.stored_bytes.to_string()));
    if let Some(id) = entry.trace_id {
        lines.push(("trace id", id.to_string()));
    }
    lines
}

impl Tabular for RevealedView {
    const COLUMNS: &'static [&'static str] = &[];

    fn cells(&self) -> Vec<String> {
        vec![]
    }
}
