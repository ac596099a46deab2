//! The ledger: what handlers did and what clients were shown, kept outside of what is tested, and compared at once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    answer::{Answer, Shown},
    order::{BRIEF_TTL, LEASE, MAX_LIFETIME, Order, Route, Work},
};

/// Stores count in milliseconds, and round.
const CLOCK_STEP: Duration = Duration::from_millis(10);

/// A rule of the run that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// A key was executed twice, under `retry` as the same attempt.
    ExecutedTwice,
    /// An acknowledged outcome was not replayed.
    Lost,
    /// Two answers showed two outcomes.
    Differing,
    /// An answer that this request cannot have, or an outcome of no execution.
    Unexpected,
    /// A key stayed blocked without a reason that the run recorded.
    Blocked,
    /// A request got neither an answer nor an end of its connection.
    Unanswered,
    /// Something was still counted as in flight, waiting, detached or withdrawn although nothing went on.
    NotIdle,
    /// Tasks grew.
    Tasks,
    /// Memory grew.
    Memory,
}

/// The counts and the violations of a run, and its keys.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    keys: Mutex<HashMap<u64, Entry>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    violations: Mutex<Vec<(Rule, String)>>,
}

/// What is known of one key.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) order: Order,
    pub(crate) starts: Vec<Start>,
    /// The outcome that was shown first.
    pub(crate) shown: Option<Shown>,
    /// When it was acknowledged to a client.
    pub(crate) acknowledged: Option<Instant>,
    /// Whether a client heard that the outcome is unknown.
    unknown: bool,
    /// How often the handler or its extractor refused the request.
    refusals: u32,
}

/// One start of a handler.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    attempt: u32,
    rival: bool,
    at: Instant,
    effect: bool,
    released: bool,
    /// When its stream ended.
    ended: Option<Instant>,
}

impl Ledger {
    /// A new key.
    pub(crate) fn order(&self, order: Order) {
        let entry = Entry {
            order,
            starts: Vec::new(),
            shown: None,
            acknowledged: None,
            unknown: false,
            refusals: 0,
        };
        self.keys().insert(order.key, entry);
        self.count("keys");
    }

    /// What is known of this key, if it is not forgotten.
    pub(crate) fn entry(&self, key: u64) -> Option<Entry> {
        self.keys().get(&key).cloned()
    }

    /// Forgets the keys for which this says so. An hour of them would look like a leak.
    pub(crate) fn forget(&self, forgets: impl Fn(u64) -> bool) {
        let mut keys = self.keys();
        keys.retain(|&key, _| !forgets(key));
        keys.shrink_to_fit();
    }

    /// The handler starts as this attempt. Returns the number of the execution, from 1.
    pub(crate) fn start(&self, key: u64, attempt: u32, rival: bool) -> usize {
        let mut keys = self.keys();
        let Some(entry) = keys.get_mut(&key) else {
            drop(keys);
            self.violation(
                Rule::Unexpected,
                format!("key {key} executes after its audit"),
            );
            return 0;
        };
        let broken = entry.start(attempt, rival);
        let (number, order) = (entry.starts.len(), entry.order);
        let starts = broken.then(|| entry.starts.clone());
        drop(keys);
        self.count("executions");
        if attempt > 1 {
            self.count("executions after a take-over");
        }
        if let Some(starts) = starts {
            self.violation(
                Rule::ExecutedTwice,
                format!("{order:?} started: {starts:?}"),
            );
        }
        number
    }

    /// The execution has its effect.
    pub(crate) fn effect(&self, key: u64, number: usize) {
        self.of_start(key, number, |start| start.effect = true);
        self.count("effects");
        let last = self
            .entry(key)
            .map(|entry| (entry.order.route, entry.starts.len()));
        if last.is_some_and(|(route, last)| route == Route::Retry && last > number) {
            self.count("effects after another process had taken over");
        }
    }

    /// The execution says that nothing happened, and that the key is free.
    pub(crate) fn released(&self, key: u64, number: usize) {
        self.of_start(key, number, |start| start.released = true);
    }

    /// The stream of the execution has ended.
    pub(crate) fn ended(&self, key: u64, number: usize) {
        self.of_start(key, number, |start| start.ended = Some(Instant::now()));
    }

    /// Whether the request is refused once more, of so many times.
    pub(crate) fn refuses(&self, key: u64, times: u32) -> bool {
        let mut keys = self.keys();
        let Some(entry) = keys.get_mut(&key) else {
            return false;
        };
        let refuses = entry.refusals < times;
        entry.refusals += u32::from(refuses);
        refuses
    }

    /// Makes the starts of this key earlier by this.
    #[cfg(test)]
    pub(crate) fn start_earlier(&self, key: u64, by: Duration) {
        if let Some(entry) = self.keys().get_mut(&key) {
            entry.starts.iter_mut().for_each(|start| start.at -= by);
        }
    }

    fn of_start(&self, key: u64, number: usize, change: impl FnOnce(&mut Start)) {
        let mut keys = self.keys();
        let starts = keys.get_mut(&key).map(|entry| &mut entry.starts);
        if let Some(start) = starts.and_then(|starts| starts.get_mut(number.wrapping_sub(1))) {
            change(start);
        }
    }

    /// A client got this answer to the request that it sent at that instant, or to its rival.
    pub(crate) fn answered(&self, key: u64, rival: bool, sent: Instant, answer: &Answer) {
        self.count(answer.name());
        let mut keys = self.keys();
        let Some(entry) = keys.get_mut(&key) else {
            return;
        };
        let known = entry.clone();
        let broken = entry.judge(rival, sent, answer);
        let late = known.unknown && known.shown.is_none() && entry.shown.is_some();
        drop(keys);
        if late {
            self.count("outcomes shown after `outcome_unknown`");
        }
        if let Some(rule) = broken {
            self.violation(rule, format!("{answer:?} to {known:?} (rival: {rival})"));
        }
    }

    pub(crate) fn count(&self, what: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what).or_default() += 1;
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.counts.lock();
        counts.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn violation(&self, rule: Rule, what: String) {
        let violations = self.violations.lock();
        let mut violations = violations.unwrap_or_else(PoisonError::into_inner);
        violations.push((rule, what));
    }

    pub(crate) fn violations(&self) -> Vec<(Rule, String)> {
        let violations = self.violations.lock();
        violations.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Notes a start, and says whether it breaks the rule of its route.
    fn start(&mut self, attempt: u32, rival: bool) -> bool {
        let now = Instant::now();
        let mut before = self.starts.iter().filter(|start| !start.released);
        let twice = match self.order.route {
            Route::Refuse | Route::NoWait => before.next().is_some(),
            // Distinct attempts from 1 on: there are never more starts than attempts.
            Route::Retry => before.any(|start| start.attempt == attempt),
            // An outcome expires its ttl after the end of the execution, a claim later.
            Route::Brief => before.any(|start| now - start.at + CLOCK_STEP < BRIEF_TTL),
        };
        self.starts.push(Start {
            attempt,
            rival,
            at: now,
            effect: false,
            released: false,
            ended: None,
        });
        twice
    }

    /// Notes an answer, and says which rule it breaks.
    fn judge(&mut self, rival: bool, sent: Instant, answer: &Answer) -> Option<Rule> {
        let work = self.order.work;
        match answer {
            Answer::Outcome(shown) => self.outcome(rival, shown),
            // Never an answer to what was sent after the outcome was acknowledged, also while the store is away.
            Answer::NotStored | Answer::Panicked | Answer::Refused
                if self.is_replayable()
                    && self.order.route != Route::Retry
                    && self.acknowledged.is_some_and(|at| at < sent) =>
            {
                Some(Rule::Lost)
            }
            Answer::NotStored => {
                let outlived = self.starts.iter().any(|start| self.outlived(start));
                (!work.leaves_a_tombstone() && !outlived).then_some(Rule::Unexpected)
            }
            Answer::Panicked => (!work.panics()).then_some(Rule::Unexpected),
            Answer::Refused => (!work.refuses()).then_some(Rule::Unexpected),
            Answer::Mismatch => (!self.order.rivals).then_some(Rule::Unexpected),
            Answer::Unknown => {
                self.unknown = true;
                None
            }
            Answer::Conflict | Answer::Unavailable | Answer::Cut | Answer::Left => None,
            Answer::Nothing => Some(Rule::Unanswered),
            Answer::Other(_) => Some(Rule::Unexpected),
        }
    }

    /// Whether an outcome was shown that every later answer has to repeat.
    pub(crate) fn is_replayable(&self) -> bool {
        let Some(shown) = &self.shown else {
            return false;
        };
        let start = self.starts.get(shown.execution - 1);
        self.order.route != Route::Brief
            && self.order.work != Work::Floods
            && !start.is_some_and(|start| self.outlived(start))
    }

    /// Whether this execution was a stream that may have gone on for longer than a lifetime, which counts from the claim: it
    /// leaves a tombstone. A starved machine makes such streams.
    fn outlived(&self, start: &Start) -> bool {
        let ended = start.ended.unwrap_or_else(Instant::now);
        matches!(self.order.work, Work::Streams(_)) && ended - start.at + LEASE > MAX_LIFETIME
    }

    fn outcome(&mut self, rival: bool, shown: &Shown) -> Option<Rule> {
        let start = shown.execution.checked_sub(1);
        let start = start.and_then(|index| self.starts.get(index));
        let happened = start.is_some_and(|start| {
            start.rival == rival && (start.effect || self.order.work == Work::Fails)
        });
        if shown.key != self.order.key || !happened {
            return Some(Rule::Unexpected);
        }
        match &self.shown {
            // What is not stored is shown to its own client only.
            Some(_) if self.order.work == Work::Floods => Some(Rule::Unexpected),
            Some(first) if self.is_replayable() && first != shown => Some(Rule::Differing),
            Some(_) => None,
            None => {
                self.shown = Some(shown.clone());
                self.acknowledged = Some(Instant::now());
                None
            }
        }
    }
}

impl Work {
    /// Whether it may end as executed without a response.
    pub(crate) const fn leaves_a_tombstone(self) -> bool {
        matches!(self, Self::Floods | Self::PanicsInBody | Self::BreaksOff)
    }

    /// Whether a client may hear of a panic.
    pub(crate) const fn panics(self) -> bool {
        matches!(
            self,
            Self::Panics(_) | Self::PanicsLate | Self::PanicsExtracting(_)
        )
    }

    /// Whether a client may hear that nothing happened.
    pub(crate) const fn refuses(self) -> bool {
        matches!(
            self,
            Self::Refuses(_) | Self::Releases(_) | Self::Rejects(_)
        )
    }
}

/// The body of an outcome: its first line says which execution it is of.
pub(crate) fn outcome(key: u64, execution: usize, nonce: u64, size: usize) -> Bytes {
    let filler = (0..size).map(|at| b'a' + u8::try_from((nonce >> (at % 60)) % 26).unwrap_or(0));
    let mut body = format!("order {key} execution {execution} nonce {nonce}\n").into_bytes();
    body.extend(filler);
    Bytes::from(body)
}
