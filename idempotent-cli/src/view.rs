//! What people see of a record in a terminal; what programs see is in `idempotent_runtime::view`.

use std::time::Duration;

use idempotent_runtime::{
    StoreKey,
    store::inspect::{Entry, EntryState, KeyPrefix},
    view,
};

/// All 64 digits of an ID.
pub(crate) fn id(key: &StoreKey) -> String {
    KeyPrefix::from(key).to_string()
}

/// A span of time: `2h 5m`, the two largest units.
pub(crate) fn span(span: Duration) -> String {
    let rounded = Duration::from_secs(span.as_secs());
    let text = humantime::format_duration(rounded).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// The state, and since when or how long still.
pub(crate) fn state(entry: &Entry) -> String {
    let name = view::state(entry.state.kind());
    match entry.state {
        EntryState::InFlight { remaining } => format!("{name}, lease {}", span(remaining)),
        EntryState::Unknown { lapsed } => format!("{name} for {}", span(lapsed)),
        EntryState::Completed | EntryState::Tombstone => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        assert_eq!(span(Duration::from_millis(999)), "0s");
        assert_eq!(span(Duration::from_secs(61)), "1m 1s");
        assert_eq!(span(Duration::from_secs(90_061)), "1day 1h");
    }
}
