//! The last hour by minute, read from the records themselves: no process has to have watched.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::error::Refusal;
use crate::{
    store::inspect::{self, Entry, EntryState, Inspectable, Query},
    view,
};

/// How many records are looked at. Keys are digests, so the first ones are a fair sample.
const SAMPLE: usize = 10_000;
const MINUTES: usize = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// What happened to the records that were looked at, the oldest minute first.
#[derive(Debug, Serialize)]
pub(super) struct Series {
    minutes: Vec<Minute>,
    /// How many were looked at.
    records: usize,
    /// Whether these are all: else they are a sample.
    complete: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Minute {
    /// Its beginning in UTC (RFC 3339).
    at: String,
    /// Responses stored in it.
    completed: u64,
    /// Executions in it whose response was not stored.
    tombstones: u64,
    /// Records of which the outcome was unknown at its end, and is now.
    unknown: u64,
    /// The 99th percentile of the time from claim to outcome, of what was completed in it, in seconds.
    p99_seconds: Option<f64>,
}

impl Series {
    pub(super) async fn of(store: &dyn Inspectable) -> Result<Self, Refusal> {
        let page = inspect::first(store, Query::new(), SAMPLE, SAMPLE as u64).await?;
        Ok(Self {
            minutes: minutes(&page.entries, SystemTime::now()),
            records: page.entries.len(),
            complete: page.next.is_none(),
        })
    }
}

fn minutes(entries: &[Entry], now: SystemTime) -> Vec<Minute> {
    let since_epoch = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let into_minute = Duration::from_secs(since_epoch.as_secs() % 60);
    // The last minute has begun and not ended.
    let first = now - into_minute - MINUTE * 59;
    let mut minutes = vec![Minute::default(); MINUTES];
    let mut spans: Vec<Vec<Duration>> = vec![vec![]; MINUTES];
    for (minute, start) in minutes.iter_mut().zip(0..) {
        minute.at = view::time(first + MINUTE * start);
    }
    for entry in entries {
        match entry.state {
            EntryState::InFlight { .. } => {}
            EntryState::Unknown { lapsed } => {
                let from = now
                    .checked_sub(lapsed)
                    .and_then(|at| index(at, first))
                    .unwrap_or(0);
                minutes[from..]
                    .iter_mut()
                    .for_each(|minute| minute.unknown += 1);
            }
            EntryState::Completed | EntryState::Tombstone => {
                let Some(at) = entry.completed_at.and_then(|at| index(at, first)) else {
                    continue;
                };
                if entry.state == EntryState::Completed {
                    minutes[at].completed += 1;
                } else {
                    minutes[at].tombstones += 1;
                }
                spans[at].extend(span(entry));
            }
        }
    }
    for (minute, spans) in minutes.iter_mut().zip(&mut spans) {
        minute.p99_seconds = p99(spans);
    }
    minutes
}

/// The minute of this time; a clock that is ahead counts as the last one.
fn index(at: SystemTime, first: SystemTime) -> Option<usize> {
    let since = at.duration_since(first).ok()?.as_secs() / 60;
    Some(
        usize::try_from(since)
            .unwrap_or(usize::MAX)
            .min(MINUTES - 1),
    )
}

/// From the first claim to the outcome.
fn span(entry: &Entry) -> Option<Duration> {
    entry.completed_at?.duration_since(entry.created_at?).ok()
}

/// By the nearest rank.
fn p99(spans: &mut [Duration]) -> Option<f64> {
    spans.sort_unstable();
    let rank = (spans.len() * 99).div_ceil(100);
    Some(spans.get(rank.checked_sub(1)?)?.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fingerprint, StoreKey};

    fn entry(state: EntryState, times: Option<(SystemTime, u64)>) -> Entry {
        let key = StoreKey::from_bytes([1; 32]);
        let print = Fingerprint::from_bytes([1; 32]);
        let mut entry = Entry::new(key, print, state, MINUTE);
        if let Some((completed, seconds)) = times {
            entry.completed_at = Some(completed);
            entry.created_at = Some(completed - Duration::from_secs(seconds));
        }
        entry
    }

    #[test]
    fn an_outcome_counts_in_its_minute_and_an_unknown_one_until_now() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_030);
        let ago = |minutes| now - MINUTE * minutes;
        let unknown = |minutes| EntryState::Unknown {
            lapsed: MINUTE * minutes,
        };
        let mut entries = vec![
            entry(EntryState::Tombstone, Some((ago(1), 1))),
            entry(unknown(2), None),
            entry(unknown(600), None),
            // Before the first minute, and by a clock that is ahead.
            entry(EntryState::Completed, Some((ago(61), 1))),
            entry(EntryState::Completed, Some((now + MINUTE, 1))),
        ];
        entries.extend((1..=100).map(|n| entry(EntryState::Completed, Some((ago(5), n)))));
        let minutes = minutes(&entries, now);
        assert_eq!(minutes.len(), 60);
        assert_eq!(minutes[59].at, "2023-11-14T22:13:00Z");
        assert_eq!(
            (minutes[54].completed, minutes[54].p99_seconds),
            (100, Some(99.0))
        );
        assert_eq!((minutes[58].tombstones, minutes[59].completed), (1, 1));
        let counted: u64 = minutes.iter().map(|minute| minute.completed).sum();
        assert_eq!(counted, 101);
        let unknown: Vec<_> = minutes.iter().map(|minute| minute.unknown).collect();
        assert_eq!(
            (unknown[0], unknown[56], unknown[57], unknown[59]),
            (1, 1, 2, 2)
        );
        assert_eq!(minutes[0].p99_seconds, None);
    }
}
