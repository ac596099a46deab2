//! The audit: the store is well, no client is left, and every key is sent again until it has its final answer.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    answer::Answer,
    fleet::Fleet,
    ledger::{Entry, Ledger, Rule},
    order::{Protection, Route, Work},
    random::Random,
    traffic::send,
};

/// After this long a key counts as blocked for long.
const LONG: Duration = Duration::from_secs(10);

/// What an answer of the audit means.
enum Meaning {
    /// The key has come to its end.
    Final,
    /// It is blocked, at least for the moment.
    Again,
    /// The other request of this key came first.
    Rival,
}

/// Sends this key until it has its final answer. It may stay blocked for so long.
pub(crate) async fn audit(
    key: u64,
    fleet: &Fleet,
    ledger: &Ledger,
    random: &mut Random,
    patience: Duration,
) {
    let until = Instant::now() + patience;
    let since = Instant::now();
    let mut pause = Duration::from_millis(50);
    let (mut rival, mut last) = (false, None);
    while let Some(entry) = ledger.entry(key) {
        let Some(address) = fleet.address(random) else {
            sleep(pause).await;
            continue;
        };
        let (request, known) = (entry.order.request(rival), entry.shown.is_some());
        let sent = Instant::now();
        let answer = send(address, &request, random.between(0, 1) == 0).await;
        ledger.answered(key, rival, sent, &answer);
        // With what the answer itself has shown.
        let entry = ledger.entry(key).unwrap_or(entry);
        match meaning(&entry, &answer, fleet) {
            // An outcome that nobody had seen is replayed once.
            Meaning::Final if !known && entry.is_replayable() => {}
            Meaning::Final => {
                ledger.count(of_end(&answer));
                if since.elapsed() > LONG {
                    ledger.count(blocked_by(last.as_ref()));
                }
                return;
            }
            Meaning::Rival => rival = !rival,
            Meaning::Again => {}
        }
        last = Some(answer.clone());
        if Instant::now() >= until {
            let rule = if entry.is_replayable() {
                Rule::Lost
            } else {
                Rule::Blocked
            };
            let since = entry.acknowledged.map(|at| at.elapsed());
            let what = format!("{answer:?} for {patience:?} (shown {since:?} ago) to {entry:?}");
            ledger.violation(rule, what);
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

fn meaning(entry: &Entry, answer: &Answer, fleet: &Fleet) -> Meaning {
    let order = &entry.order;
    match answer {
        Answer::Outcome(_) | Answer::NotStored | Answer::Other(_) | Answer::Nothing => {
            Meaning::Final
        }
        // With `retry` the next request executes again, and one after the extractor of the attribute panicked, too.
        Answer::Panicked
            if order.route == Route::Retry
                || (order.protection == Protection::Attribute
                    && matches!(order.work, Work::PanicsExtracting(_))) =>
        {
            Meaning::Again
        }
        Answer::Panicked => Meaning::Final,
        Answer::Mismatch => Meaning::Rival,
        // A crash is no reason under `retry`, and none for what was acknowledged.
        Answer::Unknown
            if order.route != Route::Retry
                && !entry.is_replayable()
                && fleet.was_left_behind(order) =>
        {
            Meaning::Final
        }
        Answer::Refused
        | Answer::Unknown
        | Answer::Conflict
        | Answer::Unavailable
        | Answer::Cut
        | Answer::Left => Meaning::Again,
    }
}

fn of_end(answer: &Answer) -> &'static str {
    match answer {
        Answer::Outcome(_) => "keys at their end: an outcome",
        Answer::NotStored => "keys at their end: response_not_stored",
        Answer::Panicked => "keys at their end: handler_panicked",
        Answer::Unknown => "keys at their end: outcome_unknown, its process had ended",
        _ => "keys at their end: a violation",
    }
}

fn blocked_by(last: Option<&Answer>) -> &'static str {
    match last {
        Some(Answer::Unknown) => "keys blocked for more than 10 s: outcome_unknown",
        Some(Answer::Conflict) => "keys blocked for more than 10 s: conflict",
        Some(Answer::Unavailable) => "keys blocked for more than 10 s: 503",
        _ => "keys blocked for more than 10 s: other answers",
    }
}
