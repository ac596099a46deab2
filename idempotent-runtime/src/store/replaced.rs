//! What the log says about a server that is not the one that a store was opened with.

use crate::observe;

/// What has changed behind an address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'a> {
    /// The server was restarted or replaced, and has records.
    Replaced { before: &'a str, now: &'a str },
    /// The database is empty, or its table is not the one of the start.
    Empty,
    /// The server may lose what it acknowledges, as this text says, and is not used.
    Weaker(&'a str),
}

/// Says so in the log and in a counter.
pub(crate) fn report(store: &'static str, change: Change<'_>) {
    let change = match change {
        Change::Replaced { before, now } => {
            tracing::warn!(
                store,
                before,
                now,
                "the server was restarted or replaced: retries of requests whose records it has not kept execute again"
            );
            "replaced"
        }
        Change::Empty => {
            tracing::error!(
                store,
                "the server was restarted or replaced, and its database is empty: retries of all earlier requests execute again. Check \
                 that its data was kept, and that the address leads to the right server"
            );
            "empty"
        }
        Change::Weaker(found) => {
            tracing::error!(
                store,
                found,
                "the server has become weaker than it was at the start, or was replaced by a weaker one: operations fail \
                 until that is mended"
            );
            "weaker"
        }
    };
    observe::server_changed(store, change);
}
