//! [Listing](crate::store::inspect): what a list shows, that paging is complete, and that its work is bounded.
//!
//! A store that is not [`Inspectable`] passes, unless its harness [says that it is](super::Harness::INSPECTABLE).

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use super::{
    Subject,
    toolbox::{
        FINGERPRINT, acquire, attempt, complete, completed, get, key, outcome_with, release,
    },
};
use crate::{
    hex::Hex,
    scope::StoreKey,
    store::{
        error::StoreErrorKind,
        inspect::{self, Cursor, Entry, EntryState, Found, Inspectable, Query, StateKind, Stats},
        label::EndpointLabel,
        record::{ClaimMode, Outcome, Write},
        token::TraceId,
    },
};

const STATES: [StateKind; 4] = [
    StateKind::InFlight,
    StateKind::Unknown,
    StateKind::Completed,
    StateKind::Tombstone,
];

/// A list shows each record in its state, with what is left of its lease or how long ago that lapsed, and with its size
/// in the place of its response.
pub async fn a_list_shows_each_record_in_its_state(subject: Arc<Subject>) {
    let Some(list) = subject.inspectable() else {
        return;
    };
    four_states(&subject).await;
    let entries = all(list, &Query::new()).await;
    let state = |n: u8| entries[&key(n)].state;
    let EntryState::InFlight { remaining } = state(1) else {
        panic!("in flight, not {:?}", state(1))
    };
    assert!(
        remaining > subject.ticks(7) && remaining <= subject.ticks(10),
        "{remaining:?} of the lease are left"
    );
    let EntryState::Unknown { lapsed } = state(2) else {
        panic!("unknown, not {:?}", state(2))
    };
    assert!(
        lapsed >= subject.ticks(2) && lapsed < subject.ticks(4),
        "lapsed {lapsed:?} ago"
    );
    assert_eq!(state(3), EntryState::Completed);
    assert_eq!(state(4), EntryState::Tombstone);
    assert_eq!(entries.len(), 4);
    for (number, entry) in (1..).zip(entries.values()) {
        let what = (entry.fingerprint, entry.attempt);
        assert_eq!(what, (FINGERPRINT, 1), "key {number}");
        assert_eq!(entry.stored_bytes > 0, number == 3, "key {number}");
        let record = get(subject.store(), entry.key).await.expect("it is listed");
        let difference = entry.expires_in.abs_diff(record.expires_in);
        assert!(difference < subject.ticks(1), "key {number} expires");
    }
    let large = "x".repeat(5_000);
    completed(&subject, key(5), &outcome_with(&large)).await;
    let entries = all(list, &Query::new()).await;
    let grown = entries[&key(5)].stored_bytes - entries[&key(3)].stored_bytes;
    assert!((4_000..6_000).contains(&grown), "{grown} bytes more");
}

/// A list of one state shows the records in it and no others.
pub async fn a_list_of_one_state_shows_no_other(subject: Arc<Subject>) {
    let Some(list) = subject.inspectable() else {
        return;
    };
    four_states(&subject).await;
    for (n, state) in (1..).zip(STATES) {
        let listed = keys(list, &Query::new().state(state)).await;
        assert_eq!(listed, [key(n)], "{state}");
    }
}

/// A list of one endpoint shows its records and no others: an endpoint that begins with it is another one.
pub async fn a_list_of_one_endpoint_shows_no_other(subject: Arc<Subject>) {
    let Some(list) = subject.inspectable() else {
        return;
    };
    let endpoints = ["POST /orders/{id}", "POST /orders/{id}/lines", "pay 100 %_"];
    for (n, endpoint) in (1..).zip(endpoints) {
        let claim = subject.claim(key(n));
        let claim = claim.endpoint(EndpointLabel::new(endpoint));
        attempt(&acquire(subject.store(), &claim).await);
    }
    completed(&subject, key(4), &outcome_with("without an endpoint")).await;
    for (n, endpoint) in (1..).zip(endpoints) {
        let entries = all(list, &Query::new().endpoint(endpoint)).await;
        let listed: Vec<_> = entries.into_values().collect();
        let [entry] = &*listed else {
            panic!("{endpoint}: {listed:?}")
        };
        let shown = (entry.key, entry.endpoint.as_deref());
        assert_eq!(shown, (key(n), Some(endpoint)));
    }
    let none = Query::new().endpoint("POST /orders");
    assert_eq!(keys(list, &none).await, []);
    assert_eq!(all(list, &Query::new()).await[&key(4)].endpoint, None);
}

/// A list of what is older than an age shows what was created before, whatever has happened to it since.
pub async fn a_list_of_what_is_old_shows_nothing_younger(subject: Arc<Subject>) {
    let Some(list) = subject.inspectable() else {
        return;
    };
    let store = subject.store();
    let early = subject.claim(key(1));
    attempt(&acquire(store, &early).await);
    subject.advance(subject.ticks(8)).await;
    assert_eq!(
        complete(store, &early, &outcome_with("done")).await,
        Write::Applied
    );
    attempt(&acquire(store, &subject.claim(key(2))).await);
    let older = |ticks| Query::new().older_than(subject.ticks(ticks));
    assert_eq!(keys(list, &older(4)).await, [key(1)]);
    assert_eq!(keys(list, &older(0)).await, [key(1), key(2)]);
    assert_eq!(keys(list, &older(20)).await, []);
}

/// A list shows no record that has expired, purged or not, and no count counts it.
pub async fn a_list_hides_what_expired(subject: Arc<Subject>) {
    let Some(list) = subject.inspectable() else {
        return;
    };
    four_states(&subject).await;
    subject.advance(subject.ticks(115)).await;
    assert_eq!(keys(list, &Query::new()).await, []);
    attempt(&acquire(subject.store(), &subject.claim(key(9))).await);
    assert_eq!(keys(list, &Query::new()).await, [key(9)]);
    let stats = list.stats(None, 1_000).await.expect("stats");
    assert_eq!((stats.records(), stats.in_flight), (1, 1));
}

/// Whoever follows the cursors sees each record that is there throughout exactly once, while others come, go and complete.
pub async fn pages_show_each_record_that_stays_exactly_once(subject: Arc<Subject>) {
    let Some(list) = subject.inspectable() else {
        return;
    };
    let store = subject.store();
    let stays = |n: u8| key(n * 5);
    let staying: Vec<_> = (1..=40).map(|n| subject.claim(stays(n))).collect();
    for claim in &staying {
        attempt(&acquire(store, claim).await);
    }
    let passing: Vec<_> = (0..50).map(|n| subject.claim(key(n * 5 + 1))).collect();
    for claim in &passing[..25] {
        attempt(&acquire(store, claim).await);
    }
    let mut seen = Vec::new();
    let mut query = Query::new().with_limit(4);
    for round in 0..200 {
        let page = list.list(&query).await.expect("a page");
        assert!(page.entries.len() <= 4, "{} entries", page.entries.len());
        seen.extend(page.entries.iter().map(|entry| entry.key));
        // One goes, one comes, and one of those that stay completes.
        if let (Some(gone), Some(new)) = (passing.get(round), passing.get(25 + round)) {
            if round < 25 {
                assert_eq!(release(store, gone).await, Write::Applied);
            }
            attempt(&acquire(store, new).await);
        }
        if let Some(claim) = staying.get(round) {
            assert_eq!(
                complete(store, claim, &outcome_with("done")).await,
                Write::Applied
            );
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
        assert!(round < 199, "the pages do not end");
    }
    for claim in &staying {
        let times = seen.iter().filter(|seen| **seen == claim.key).count();
        assert_eq!(times, 1, "{:?} was seen {times} times", claim.key);
    }
    let mut once = seen.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "no record is shown twice");
}

/// A page looks at no more records than it may: a filter that matches nothing gets empty pages with cursors, and the last
/// one has none.
pub async fn a_filter_that_matches_nothing_gets_pages_with_an_end(subject: Arc<Subject>) {
    let Some(list) = subject.inspectable() else {
        return;
    };
    for n in 1..=30 {
        attempt(&acquire(subject.store(), &subject.claim(key(n))).await);
    }
    let mut query = Query::new().state(StateKind::Tombstone).with_max_scan(3);
    let mut pages = 0;
    loop {
        let page = list.list(&query).await.expect("a page");
        assert_eq!(page.entries, []);
        pages += 1;
        assert!(pages <= 100, "the pages do not end");
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    assert!(pages >= 10, "30 records in {pages} pages of 3");
}

/// A text that is no cursor of the store is refused as such, by lists and by counts.
pub async fn a_text_that_is_no_cursor_is_refused(subject: Arc<Subject>) {
    let Some(list) = subject.inspectable() else {
        return;
    };
    completed(&subject, key(1), &outcome_with("done")).await;
    for nonsense in ["", "nonsense", "-1", "k1-", "' or 1=1 --", "\u{1f4a3}"] {
        let cursor = Cursor::new(nonsense);
        let query = Query::new().after(Some(cursor.clone()));
        let error = list.list(&query).await.expect_err(nonsense);
        assert_eq!(error.kind(), StoreErrorKind::InvalidCursor, "{nonsense:?}");
        let error = list.stats(Some(&cursor), 10).await.expect_err(nonsense);
        assert_eq!(error.kind(), StoreErrorKind::InvalidCursor, "{nonsense:?}");
    }
}

/// A record is found by the first digits of its key, as logs print them. Fewer digits may be those of several records.
pub async fn a_record_is_found_by_its_first_digits(subject: Arc<Subject>) {
    let Some(list) = subject.inspectable() else {
        return;
    };
    let like = |first: [u8; 3], rest: u8| {
        let mut bytes = [rest; 32];
        bytes[..3].copy_from_slice(&first);
        StoreKey::from_bytes(bytes)
    };
    let (one, two) = (like([0xab, 0xcd, 0x17], 1), like([0xab, 0xcd, 0x18], 2));
    for key in [one, two, key(0), key(0xff), key(0xab)] {
        completed(&subject, key, &outcome_with("done")).await;
    }
    let find = async |digits: &str| {
        let found = inspect::find(list, digits.parse().expect("a prefix")).await;
        let mut keys: Vec<_> = match found.expect("find") {
            Found::None => Vec::new(),
            Found::One(entry) => vec![entry.key],
            Found::Several(entries) => entries.iter().map(|entry| entry.key).collect(),
        };
        keys.sort_unstable();
        keys
    };
    for record in [one, two, key(0), key(0xff), key(0xab)] {
        assert_eq!(
            find(&record.to_string()).await,
            [record],
            "as logs print it"
        );
        let whole = Hex(record.as_bytes()).to_string().to_uppercase();
        assert_eq!(find(&whole).await, [record], "the whole key");
    }
    assert_eq!(find("abcd").await, [one, two]);
    assert_eq!(find("abcd1").await, [one, two]);
    assert_eq!(find("abcd18").await, [two]);
    assert_eq!(find("abcd19").await, []);
    assert_eq!(find("0001").await, []);
}

/// Counts name each state, in one page or in several that add up, and say whether they are all.
pub async fn counts_of_pages_add_up(subject: Arc<Subject>) {
    let Some(list) = subject.inspectable() else {
        return;
    };
    let empty = list.stats(None, 10).await.expect("stats");
    assert!(empty.is_exact() && empty.records() == 0, "{empty:?}");
    four_states(&subject).await;
    for n in 5..=20 {
        attempt(&acquire(subject.store(), &subject.claim(key(n * 11))).await);
    }
    let counts = |stats: &Stats| {
        let Stats {
            in_flight,
            unknown,
            completed,
            tombstones,
            ..
        } = *stats;
        [in_flight, unknown, completed, tombstones]
    };
    let whole = list.stats(None, 1_000).await.expect("stats");
    assert_eq!(counts(&whole), [17, 1, 1, 1]);
    assert!(whole.is_exact() && whole.stored_bytes > 0, "{whole:?}");
    let mut sum = list.stats(None, 6).await.expect("stats");
    assert!(!sum.is_exact() && sum.records() <= 20, "{sum:?}");
    assert!(sum.share > 0.0 && sum.share <= 1.0, "{sum:?}");
    for _ in 0..50 {
        let Some(cursor) = sum.next.clone() else {
            break;
        };
        sum.add(list.stats(Some(&cursor), 6).await.expect("stats"));
    }
    assert_eq!(counts(&sum), counts(&whole));
    assert_eq!(sum.stored_bytes, whole.stored_bytes);
    assert!(sum.is_exact(), "{sum:?}");
}

/// A record keeps the endpoint, the mode and the trace id of its newest claim, and the times at which it was created and
/// completed. `Unknown` names the mode.
pub async fn a_record_keeps_what_its_claim_was_for(subject: Arc<Subject>) {
    let Some(list) = subject.inspectable() else {
        return;
    };
    let store = subject.store();
    let begun = SystemTime::now();
    let first = subject.claim(key(1));
    let first = first
        .endpoint(EndpointLabel::new("POST /first"))
        .mode(ClaimMode::Transactional);
    attempt(&acquire(store, &first).await);
    // A repetition and a renewal change none of it.
    attempt(&acquire(store, &first).await);
    store.renew(&first.held()).await.expect("renew");
    let (created_at, completed_at) =
        shown(&subject, list, "POST /first", ClaimMode::Transactional).await;
    assert_eq!(completed_at, None, "in flight");
    let created_at = created_at.expect("the time of the claim");
    if let Ok(early) = begun.duration_since(created_at) {
        // Harnesses move the clock of the store, and machines have clocks of their own.
        assert!(
            early.as_secs() < 3_600,
            "created {early:?} before the claim"
        );
    }
    subject.advance(subject.ticks(12)).await;
    let unknown = acquire(store, &subject.claim(key(1))).await;
    let crate::store::record::Acquisition::Unknown { lease, mode } = unknown else {
        panic!("expected unknown, not {unknown:?}")
    };
    assert_eq!((lease, mode), (first.token, ClaimMode::Transactional));

    let trace = TraceId::from_bytes([7; 16]);
    let second = subject.claim(key(1)).take_over(lease).trace_id(trace);
    let second = second.endpoint(EndpointLabel::new("POST /second"));
    assert_eq!(attempt(&acquire(store, &second).await), 2);
    let (kept, _) = shown(&subject, list, "POST /second", ClaimMode::Plain).await;
    assert_about(&subject, kept, created_at, 12);
    subject.advance(subject.ticks(3)).await;
    assert_eq!(
        complete(store, &second, &outcome_with("done")).await,
        Write::Applied
    );
    let (kept, completed_at) = shown(&subject, list, "POST /second", ClaimMode::Plain).await;
    assert_about(&subject, kept, created_at, 15);
    let took = completed_at
        .expect("the time of the completion")
        .duration_since(kept.expect("the time of the claim"))
        .expect("completed after its creation");
    assert!(
        took > subject.ticks(13) && took < subject.ticks(18),
        "completed {took:?} after its creation"
    );
}

/// What is damaged is listed: nothing reads the response.
pub async fn a_damaged_response_is_listed(subject: Arc<Subject>) {
    let Some(list) = subject.inspectable() else {
        return;
    };
    completed(&subject, key(1), &outcome_with("done")).await;
    if subject.corrupt(&key(1), b"\xff\xff\xff").await {
        assert_eq!(keys(list, &Query::new()).await, [key(1)]);
        let stats = list.stats(None, 10).await.expect("stats");
        assert_eq!(stats.completed, 1);
    }
}

/// One record in flight, one unknown, one completed and one tombstone, under the keys 1 to 4.
async fn four_states(subject: &Subject) {
    let store = subject.store();
    attempt(&acquire(store, &subject.claim(key(2))).await);
    subject.advance(subject.ticks(12)).await;
    completed(subject, key(3), &outcome_with("done")).await;
    completed(subject, key(4), &Outcome::Tombstone).await;
    subject.advance(subject.ticks(1)).await;
    attempt(&acquire(store, &subject.claim(key(1))).await);
}

/// What all pages show.
async fn all(list: &dyn Inspectable, query: &Query) -> BTreeMap<StoreKey, Entry> {
    let mut query = query.clone();
    let mut entries = BTreeMap::new();
    for _ in 0..100 {
        let page = list.list(&query).await.expect("a page");
        entries.extend(page.entries.into_iter().map(|entry| (entry.key, entry)));
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return entries,
        }
    }
    panic!("the pages do not end")
}

async fn keys(list: &dyn Inspectable, query: &Query) -> Vec<StoreKey> {
    all(list, query).await.into_keys().collect()
}

/// The times of key 1, which a list and a look at the record show alike, beside this endpoint and mode.
async fn shown(
    subject: &Subject,
    list: &dyn Inspectable,
    endpoint: &str,
    mode: ClaimMode,
) -> (Option<SystemTime>, Option<SystemTime>) {
    let record = get(subject.store(), key(1)).await.expect("a record");
    let entry = all(list, &Query::new())
        .await
        .remove(&key(1))
        .expect("an entry");
    assert_eq!(
        (entry.endpoint.as_deref(), entry.mode),
        (Some(endpoint), mode)
    );
    assert_eq!(
        (record.endpoint.as_deref(), record.mode),
        (Some(endpoint), mode)
    );
    assert_eq!(entry.trace_id, record.trace_id);
    let times = (record.created_at, record.completed_at);
    assert_eq!((entry.created_at, entry.completed_at), times);
    times
}

/// Whether a time of creation is still the same. A harness that moves stored times back instead of waiting may move this
/// one with them, by `passed` ticks.
#[track_caller]
fn assert_about(subject: &Subject, kept: Option<SystemTime>, created: SystemTime, passed: u32) {
    let kept = kept.expect("the time of the claim");
    let moved = created.duration_since(kept).unwrap_or_default();
    let later = kept.duration_since(created).unwrap_or_default();
    assert!(
        later < subject.ticks(1) && moved < subject.ticks(passed + 2),
        "the creation moved from {created:?} to {kept:?}"
    );
}
