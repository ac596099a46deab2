//! Where races are run: many contenders, several threads, two handles.

use std::{future::Future, sync::Arc};

use tokio::{sync::Barrier, task::JoinSet};

use super::{
    Subject,
    toolbox::{abandon, acquire, answer, assert_in_flight, attempt, complete, key, renew},
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
/// How often a race is run, each time for a key of its own.
pub(super) const ROUNDS: u8 = 16;
/// The contender with a part of its own, where there is one: in the middle, to have others on both sides.
const ODD_ONE: u8 = CONTENDERS / 2;

/// Two handles on one store.
pub(super) struct Arena(Arc<Handles>);

struct Handles {
    subject: Arc<Subject>,
    second: Box<dyn ErasedStore>,
}

/// A contender's place in a race.
pub(super) struct Seat {
    handles: Arc<Handles>,
    /// From 1 to the number of contenders.
    pub(super) number: u8,
}

/// What the owner of an abandoned lease does in the end.
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

    /// Lets all contenders begin at once, and gives their answers.
    pub(super) async fn race<F>(&self, act: impl Fn(Seat) -> F) -> Vec<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let start = Arc::new(Barrier::new(CONTENDERS.into()));
        let mut contenders = JoinSet::new();
        for number in 1..=CONTENDERS {
            let act = act(Seat {
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

    /// A race of claims.
    pub(super) async fn claims(&self, claim: impl Fn() -> Claim) -> Vec<Acquisition> {
        self.race(|seat| {
            let claim = claim();
            async move { acquire(seat.store(), &claim).await }
        })
        .await
    }

    /// A record whose lease was ended without an outcome, and who owned it. No time has passed.
    pub(super) async fn abandoned(&self, key: StoreKey) -> Claim {
        let old = self.claim(key);
        attempt(&acquire(self.store(), &old).await);
        assert_eq!(abandon(self.store(), &old).await, Write::Applied);
        old
    }

    /// A late write against take-overs: its answer, and how many took over.
    pub(super) async fn late(&self, key: StoreKey, late: Late) -> (Write, usize) {
        let old = self.abandoned(key).await;
        let parts = |seat: Seat| {
            let old = old.clone();
            async move {
                let store = seat.store();
                match late {
                    _ if seat.number != ODD_ONE => {
                        Err(acquire(store, &seat.claim(old.key).take_over(true)).await)
                    }
                    Late::Completion => Ok(complete(store, &old, &answer("old")).await),
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

impl Seat {
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

/// The attempts that were acquired, after a look at all the others: they must be in flight.
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
