//! How races are run: 64 contenders, several threads, two handles on one store.

use std::{future::Future, sync::Arc};

use tokio::{sync::Barrier, task::JoinSet};

use super::{
    Subject,
    toolbox::{abandon, acquire, assert_in_flight, attempt, complete, key, outcome_with, renew},
};
use crate::{
    scope::StoreKey,
    store::{
        erased::ErasedStore,
        record::{Acquisition, Claim, Write},
    },
};

/// Contenders per key.
const CONTENDERS: u8 = 64;
/// How often a race is run, each time for another key.
pub(super) const ROUNDS: u8 = 16;
/// The contender that makes the late write: in the middle, so that others start before and after it.
const LATE_CONTENDER: u8 = CONTENDERS / 2;

/// Two handles on one store.
pub(super) struct Arena(Arc<Handles>);

struct Handles {
    subject: Arc<Subject>,
    second: Box<dyn ErasedStore>,
}

/// One of the contenders in a race.
pub(super) struct Contender {
    handles: Arc<Handles>,
    /// From 1 to the number of contenders.
    pub(super) number: u8,
}

/// The late write by the owner of an abandoned lease.
#[derive(Clone, Copy)]
pub(super) enum Late {
    Completion,
    Renewal,
}

impl Arena {
    pub(super) async fn new(subject: Arc<Subject>) -> Self {
        let second = subject.second_handle().await;
        Self(Arc::new(Handles { subject, second }))
    }

    pub(super) fn store(&self) -> &dyn ErasedStore {
        self.0.subject.store()
    }

    pub(super) fn claim(&self, key: StoreKey) -> Claim {
        self.0.subject.claim(key)
    }

    /// Starts all contenders at once and returns their answers.
    pub(super) async fn race<F>(&self, act: impl Fn(Contender) -> F) -> Vec<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let start = Arc::new(Barrier::new(CONTENDERS.into()));
        let mut contenders = JoinSet::new();
        for number in 1..=CONTENDERS {
            let act = act(Contender {
                handles: Arc::clone(&self.0),
                number,
            });
            let start = Arc::clone(&start);
            contenders.spawn(async move {
                start.wait().await;
                act.await
            });
        }
        contenders.join_all().await
    }

    /// Races one claim per contender.
    pub(super) async fn claims(&self, claim: impl Fn() -> Claim) -> Vec<Acquisition> {
        self.race(|contender| {
            let claim = claim();
            async move { acquire(contender.store(), &claim).await }
        })
        .await
    }

    /// Abandons a new record without letting time pass, and returns the claim that owned it.
    pub(super) async fn abandoned(&self, key: StoreKey) -> Claim {
        let old = self.claim(key);
        attempt(&acquire(self.store(), &old).await);
        assert_eq!(abandon(self.store(), &old).await, Write::Applied);
        old
    }

    /// Races a late write against take-overs; returns the write's answer and how many took over.
    pub(super) async fn late(&self, key: StoreKey, late: Late) -> (Write, usize) {
        let old = self.abandoned(key).await;
        let parts = |contender: Contender| {
            let old = old.clone();
            async move {
                let store = contender.store();
                match late {
                    _ if contender.number != LATE_CONTENDER => {
                        Err(acquire(store, &contender.claim(old.key).take_over(old.token)).await)
                    }
                    Late::Completion => Ok(complete(store, &old, &outcome_with("old")).await),
                    Late::Renewal => Ok(renew(store, &old).await),
                }
            }
        };
        let answers = self.race(parts).await;
        let taken = |answer: &&Result<Write, Acquisition>| {
            matches!(answer, Err(Acquisition::Acquired { .. }))
        };
        let taken = answers.iter().filter(taken).count();
        (
            answers
                .into_iter()
                .find_map(Result::ok)
                .expect("the late write"),
            taken,
        )
    }
}

impl Contender {
    /// Every other contender comes through the second handle.
    pub(super) fn store(&self) -> &dyn ErasedStore {
        if self.number.is_multiple_of(2) {
            &*self.handles.second
        } else {
            self.handles.subject.store()
        }
    }

    pub(super) fn claim(&self, key: StoreKey) -> Claim {
        self.handles.subject.claim(key)
    }
}

pub(super) fn rounds() -> impl Iterator<Item = StoreKey> {
    (1..=ROUNDS).map(key)
}

/// The attempts of those that acquired. All other answers must be in flight.
#[track_caller]
pub(super) fn winners(answers: &[Acquisition]) -> Vec<u32> {
    let mut winners = Vec::new();
    for answer in answers {
        match answer {
            Acquisition::Acquired { attempt } => winners.push(*attempt),
            other => assert_in_flight(other),
        }
    }
    winners
}
