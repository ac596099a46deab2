//! Whether the server is still the one of the start, and as durable: asked of each new connection.
//!
//! A failover, a restored backup or a changed address leads new connections to another server, and each of them to one with
//! other settings. Nothing else would say so. It costs one round trip for a connection and none for an operation.
//!
//! | found | then |
//! |---|---|
//! | a weakness that was not accepted | an error in the log; the connection is closed, and its operation fails |
//! | another table, or none | an error in the log: retries of all earlier requests execute again |
//! | another server with the same table, as after a failover | a warning in the log |
//!
//! The pool of an application makes its connections itself. There, a connection is asked when another one was lost, and
//! one a minute.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};
use tokio::time::Instant;

use super::{ConnectError, TableName, probe::Probe, server::ServerDialect};
use crate::store::{
    error::StoreErrorKind,
    replaced::{Change, report},
    weakness::Accepted,
};

/// How often a connection of an application's pool is asked.
const INTERVAL: Duration = Duration::from_secs(60);

/// What a server reports.
pub(super) struct Observed {
    pub(super) probe: Probe,
    /// What identifies the server, or the copy of its data; `None` if it does not say.
    pub(super) server: Option<String>,
    /// When the table was made: the same on each replica and in each backup.
    pub(super) table: Option<String>,
}

pub(super) struct Watch {
    /// All that is asked of a server, in one message.
    full: SqlStr,
    /// Without what not all of them permit.
    reduced: SqlStr,
    accepted: Accepted,
    /// `None` until the server was asked at the start.
    known: Mutex<Option<Known>>,
}

/// The server of the start, or the last one that was reported.
struct Known {
    server: Option<String>,
    table: Option<String>,
    /// Whether it answers the full questions.
    full: bool,
    /// What the last connection was refused for.
    refused: Option<String>,
    /// When a connection of an application's pool is asked again.
    due: Instant,
}

impl Watch {
    pub(super) fn new<D: ServerDialect>(table: &TableName, accepted: Accepted) -> Self {
        let (full, reduced) = D::QUESTIONS;
        let file = |file| D::SYNTAX.statement(file, table).sql;
        let reduced = file(reduced);
        // The names of tables are all that is inserted.
        let full = match full {
            Some(full) => {
                let both = format!("{};\n{}", reduced.as_str(), file(full).as_str());
                AssertSqlSafe(both).into_sql_str()
            }
            None => reduced.clone(),
        };
        Self {
            full,
            reduced,
            accepted,
            known: Mutex::new(None),
        }
    }

    /// Learns the server of the start.
    ///
    /// # Errors
    ///
    /// If it has a weakness that was not accepted.
    pub(super) async fn learn<D: ServerDialect>(
        &self,
        connection: &mut D::Connection,
    ) -> Result<(), ConnectError> {
        let (observed, full) = match D::observe(connection, self.full.clone()).await {
            Ok(observed) => (Ok(observed), true),
            // A server that does not permit it all answers with the same error each time.
            Err(_) => (D::observe(connection, self.reduced.clone()).await, false),
        };
        let refused = super::setup::refused::<D>("report its settings");
        let Observed {
            probe,
            server,
            table,
        } = observed.map_err(refused)?;
        probe.judge(D::STORE, self.accepted)?;
        *self.known() = Some(Known {
            server,
            table,
            full,
            refused: None,
            due: Instant::now() + INTERVAL,
        });
        Ok(())
    }

    /// Recognises the server of a new connection, once the one of the start is known.
    ///
    /// # Errors
    ///
    /// If it does not answer, or has a weakness that was not accepted.
    pub(super) async fn recognise<D: ServerDialect>(
        &self,
        connection: &mut D::Connection,
    ) -> Result<(), sqlx::Error> {
        let question = match &*self.known() {
            None => return Ok(()),
            Some(known) if known.full => self.full.clone(),
            Some(_) => self.reduced.clone(),
        };
        let Observed {
            probe,
            server,
            table,
        } = match D::observe(connection, question).await {
            Ok(observed) => observed,
            // There is no such table. The operation finds that out too, and fails.
            Err(error) if D::classify(&error).kind == StoreErrorKind::Refused => Observed {
                probe: Probe::default(),
                server: None,
                table: None,
            },
            Err(error) => return Err(error),
        };
        let weak = probe.refusal(D::STORE, self.accepted);
        let mut known = self.known();
        let Some(known) = known.as_mut() else {
            return Ok(());
        };
        if let Some(weak) = weak {
            let text = weak.to_string();
            if known.refused.as_ref() != Some(&text) {
                report(D::STORE, Change::Weaker(&text));
                known.refused = Some(text);
            }
            return Err(sqlx::Error::Io(io::Error::other(weak)));
        }
        known.refused = None;
        known.compare(D::STORE, server, table);
        Ok(())
    }

    /// Whether to ask a connection of an application's pool now.
    pub(super) fn is_due(&self) -> bool {
        match &mut *self.known() {
            Some(known) if known.refused.is_some() => true,
            Some(known) if known.due <= Instant::now() => {
                known.due = Instant::now() + INTERVAL;
                true
            }
            _ => false,
        }
    }

    /// A connection of an application's pool was lost, or could not be asked.
    pub(super) fn doubt(&self) {
        if let Some(known) = &mut *self.known() {
            known.due = Instant::now();
        }
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        // The value is consistent whenever the lock is free, so a poisoned lock is as good.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Reports another table or server, and remembers it.
    fn compare(&mut self, store: &'static str, server: Option<String>, table: Option<String>) {
        if table != self.table {
            report(store, Change::Empty);
        } else if let (Some(before), Some(now)) = (&self.server, &server)
            && before != now
        {
            report(store, Change::Replaced { before, now });
        }
        self.table = table;
        self.server = server.or(self.server.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reported_is_the_server_to_compare_with() {
        let some = |text: &str| Some(text.to_owned());
        let mut known = Known {
            server: some("a"),
            table: some("monday"),
            full: true,
            refused: None,
            due: Instant::now(),
        };
        known.compare("postgres", None, some("monday"));
        assert_eq!(
            known.server,
            some("a"),
            "one that does not say changes nothing"
        );
        known.compare("postgres", some("b"), some("monday"));
        assert_eq!(known.server, some("b"));
        known.compare("postgres", some("b"), None);
        assert_eq!(known.table, None);
    }
}
