//! `resolve` and `release`.

use std::{io::Read as _, path::Path, time::Duration};

use bytes::Bytes;
use http::Response;
use idempotent_runtime::{
    Idempotency, Resolution,
    store::inspect::{Entry, EntryState, oldest},
};

use super::list;
use crate::{
    ask,
    cli::{Consent, Filters, Global, Release, Resolve, State},
    failure::Failure,
    session::Session,
    view,
};

/// The largest response that is read from a file: the engine's default.
const MAX_BODY: u64 = 1 << 20;

pub(super) async fn release(
    global: &Global,
    session: &Session,
    release: &Release,
) -> Result<(), Failure> {
    ask::writes_allowed(global)?;
    let reason = ask::reason(&release.consent.reason)?;
    let entry = unknown(session.by_whole_id(release.id).await?)?;
    let act = Act {
        global,
        consent: &release.consent,
        reason,
        response: None,
    };
    act.on_one(&session.engine(DAY)?, &entry).await
}

/// How long an engine that stores nothing would keep it.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn run(
    global: &Global,
    session: &Session,
    resolve: Resolve,
) -> Result<(), Failure> {
    ask::writes_allowed(global)?;
    let reason = ask::reason(&resolve.consent.reason)?;
    let response = response(&resolve)?;
    let engine = session.engine(resolve.ttl)?;
    let act = Act {
        global,
        consent: &resolve.consent,
        reason,
        response,
    };
    if let Some(id) = resolve.id {
        let entry = unknown(session.by_whole_id(id).await?)?;
        return act.on_one(&engine, &entry).await;
    }
    let entries = all(session, &resolve).await?;
    act.on_all(&engine, &entries).await
}

/// Refuses a record whose outcome is known, or that still executes.
fn unknown(entry: Entry) -> Result<Entry, Failure> {
    match entry.state {
        EntryState::Unknown { .. } => Ok(entry),
        EntryState::InFlight { remaining } => Err(Failure::Refused(format!(
            "the record's execution is in flight, and its lease has {} left: nothing was changed",
            view::span(remaining)
        ))),
        EntryState::Completed | EntryState::Tombstone => Err(Failure::Refused(
            "the record's outcome is known already: nothing was changed".into(),
        )),
    }
}

/// All unknown records that the filters name, unless there are too many.
async fn all(session: &Session, resolve: &Resolve) -> Result<Vec<Entry>, Failure> {
    let most = resolve.max.unwrap_or_default();
    let filters = Filters {
        state: Some(State::Unknown),
        endpoint: resolve.endpoint.clone(),
        older_than: resolve.older_than,
    };
    let found = oldest(
        session.inspectable()?,
        list::query(&filters),
        most.saturating_add(1),
        u64::MAX,
    )
    .await?;
    if found.entries.len() > most {
        return Err(Failure::Refused(format!(
            "more than {most} records match, which `--max` allows: nothing was changed"
        )));
    }
    if found.entries.is_empty() {
        return Err(Failure::NotFound("no unknown record matches".into()));
    }
    Ok(found.entries)
}

/// The response of the command line; `None` for "not executed".
fn response(resolve: &Resolve) -> Result<Option<Response<Bytes>>, Failure> {
    let Some(status) = resolve.status else {
        return Ok(None);
    };
    let file = resolve.body_file.as_deref().unwrap_or(Path::new("-"));
    let mut response = Response::new(read(file)?);
    *response.status_mut() = status;
    for (name, value) in &resolve.headers {
        response.headers_mut().append(name, value.clone());
    }
    Ok(Some(response))
}

fn read(file: &Path) -> Result<Bytes, Failure> {
    let mut body = vec![];
    let source: Box<dyn std::io::Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let opened = std::fs::File::open(file);
        Box::new(opened.map_err(|error| {
            Failure::Usage(format!("{} cannot be opened: {error}", file.display()))
        })?)
    };
    source.take(MAX_BODY + 1).read_to_end(&mut body)?;
    if body.len() as u64 > MAX_BODY {
        return Err(Failure::Usage(format!(
            "the body is larger than {MAX_BODY} bytes: answer with less"
        )));
    }
    Ok(body.into())
}

/// What is to be done, and in whose name.
struct Act<'a> {
    global: &'a Global,
    consent: &'a Consent,
    reason: &'a str,
    response: Option<Response<Bytes>>,
}

impl Act<'_> {
    async fn on_one(&self, engine: &Idempotency, entry: &Entry) -> Result<(), Failure> {
        let what = self.what();
        if self.consent.dry_run {
            println!("would {what} {}", view::id(&entry.key));
            return Ok(());
        }
        eprintln!(
            "{}  {}  {}",
            view::id(&entry.key),
            entry.endpoint.as_deref().unwrap_or("-"),
            view::state(entry)
        );
        ask::consent(
            self.consent,
            &format!("{} this record?", capitalised(&what)),
        )?;
        self.apply(engine, entry).await?;
        println!("{} {}", self.done(), view::id(&entry.key));
        Ok(())
    }

    async fn on_all(&self, engine: &Idempotency, entries: &[Entry]) -> Result<(), Failure> {
        let what = self.what();
        if self.consent.dry_run {
            for entry in entries {
                println!("would {what} {}", view::id(&entry.key));
            }
            return Ok(());
        }
        ask::consent(
            self.consent,
            &format!("{} {} records?", capitalised(&what), entries.len()),
        )?;
        let mut failed = 0;
        for entry in entries {
            match self.apply(engine, entry).await {
                Ok(()) => println!("{} {}", self.done(), view::id(&entry.key)),
                Err(failure) => {
                    failed += 1;
                    eprintln!("{}: {failure}", view::id(&entry.key));
                }
            }
        }
        if failed == 0 {
            return Ok(());
        }
        Err(Failure::Partly(format!(
            "{failed} of {} records were not changed",
            entries.len()
        )))
    }

    async fn apply(&self, engine: &Idempotency, entry: &Entry) -> Result<(), Failure> {
        let resolution = match &self.response {
            Some(response) => Resolution::Completed(response.clone()),
            None => Resolution::NotExecuted,
        };
        let actor = self.global.actor();
        Ok(engine
            .operator(&actor, self.reason)
            .resolve(&entry.key, resolution)
            .await?)
    }

    fn what(&self) -> String {
        match &self.response {
            Some(response) => format!("resolve with status {}", response.status().as_u16()),
            None => "release".into(),
        }
    }

    fn done(&self) -> &'static str {
        if self.response.is_some() {
            "resolved"
        } else {
            "released"
        }
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars).collect()
}
