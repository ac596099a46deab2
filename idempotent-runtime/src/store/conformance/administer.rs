//! What operators do: [forgetting a completed record and keeping their acts](crate::store::admin).
//!
//! A store that is not [`Administrable`](crate::store::Administrable) passes, unless its harness [says that it
//! is](super::Harness::ADMINISTRABLE).

use std::{sync::Arc, time::SystemTime};

use super::{
    Subject,
    toolbox::{
        FINGERPRINT, OTHER_FINGERPRINT, acquire, attempt, complete, completed, get, key,
        outcome_with,
    },
};
use crate::store::{
    admin::{Action, Event, Seen, Stage},
    record::{Outcome, Write},
};

/// A completed record that is forgotten is absent, and its key executes again.
pub async fn a_forgotten_record_is_absent(subject: Arc<Subject>) {
    let Some(store) = subject.administrable() else {
        return;
    };
    completed(&subject, key(1), &outcome_with("done")).await;
    completed(&subject, key(2), &Outcome::Tombstone).await;
    completed(&subject, key(3), &outcome_with("kept")).await;
    for n in [1, 2] {
        let seen = Seen::new(key(n), FINGERPRINT, 1);
        assert_eq!(store.forget(&seen).await.expect("forget"), Write::Applied);
        assert!(get(subject.store(), key(n)).await.is_none());
        assert_eq!(store.forget(&seen).await.expect("forget"), Write::Missing);
        let next = acquire(subject.store(), &subject.claim(key(n))).await;
        assert_eq!(attempt(&next), 1);
    }
    assert!(get(subject.store(), key(3)).await.is_some(), "not this one");
}

/// Only the completed record that was seen is forgotten: not one in flight, not one that lapsed, not another one.
pub async fn only_what_was_seen_is_forgotten(subject: Arc<Subject>) {
    let Some(store) = subject.administrable() else {
        return;
    };
    let owner = subject.claim(key(1));
    attempt(&acquire(subject.store(), &owner).await);
    let seen = Seen::new(key(1), FINGERPRINT, 1);
    assert_eq!(store.forget(&seen).await.expect("in flight"), Write::Fenced);
    subject.advance(subject.ticks(20)).await;
    assert_eq!(store.forget(&seen).await.expect("unknown"), Write::Fenced);
    let outcome = outcome_with("late");
    assert_eq!(
        complete(subject.store(), &owner, &outcome).await,
        Write::Applied
    );
    for other in [
        Seen::new(key(1), OTHER_FINGERPRINT, 1),
        Seen::new(key(1), FINGERPRINT, 2),
    ] {
        let write = store.forget(&other).await.expect("another one");
        assert_eq!(write, Write::Fenced, "{other:?}");
    }
    assert!(get(subject.store(), key(1)).await.is_some());
    let absent = Seen::new(key(9), FINGERPRINT, 1);
    assert_eq!(store.forget(&absent).await.expect("absent"), Write::Missing);
}

/// Events come back as they were appended, the newest first, each with a time of the store's clock.
pub async fn events_are_kept_newest_first(subject: Arc<Subject>) {
    let Some(store) = subject.administrable() else {
        return;
    };
    assert_eq!(store.events(10).await.expect("none"), []);
    let events: Vec<_> = (0..5).map(event).collect();
    for event in &events {
        store.append(event).await.expect("append");
    }
    let kept = store.events(3).await.expect("three");
    let newest: Vec<_> = kept.iter().map(|kept| &kept.event).collect();
    assert_eq!(newest, [&events[4], &events[3], &events[2]]);
    assert!(
        kept.is_sorted_by(|newer, older| newer.at >= older.at),
        "{kept:?}"
    );
    for kept in &kept {
        let apart = SystemTime::now()
            .duration_since(kept.at)
            .unwrap_or_else(|ahead| ahead.duration());
        assert!(apart.as_secs() < 24 * 60 * 60, "{apart:?} from now");
    }
    let other = subject.second_handle().await;
    let other = other.administrable().expect("administrable as the first");
    assert_eq!(other.events(10).await.expect("all").len(), 5);
}

/// A purge deletes records and no events.
pub async fn a_purge_keeps_the_events(subject: Arc<Subject>) {
    let Some(store) = subject.administrable() else {
        return;
    };
    store.append(&event(1)).await.expect("append");
    completed(&subject, key(1), &outcome_with("done")).await;
    subject.advance(subject.ticks(200)).await;
    subject.store().purge_expired(100).await.expect("a purge");
    assert!(get(subject.store(), key(1)).await.is_none());
    assert_eq!(store.events(10).await.expect("one").len(), 1);
}

/// An event with texts that need care: quotes, backslashes, line breaks, other alphabets, no endpoint.
fn event(n: u8) -> Event {
    Event {
        act: format!("{n:016x}").into(),
        actor: "o'neill \"the\" \\ operator\n".into(),
        action: Action::Resolve,
        stage: if n.is_multiple_of(2) {
            Stage::Begun
        } else {
            Stage::Done
        },
        record: "ab".repeat(32).into(),
        endpoint: n.is_multiple_of(2).then(|| "POST /orders/{id}".into()),
        reason: "bezahlt laut Anbieter: 支払済み 🧾".into(),
        before: "unknown, attempt 1".into(),
        after: "".into(),
    }
}
