//! The list under a model checker that chooses who runs next at every lock.
//!
//! Run with `RUSTFLAGS="--cfg idempotent_shuttle" cargo test -p idempotent-runtime --features postgres --lib
//! interleavings`.

use shuttle::{
    future::block_on,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
};
use tokio::sync::SemaphorePermit;

use super::*;

/// One before whose every use somebody else may come in between.
pub(super) struct Semaphore {
    permits: tokio::sync::Semaphore,
    /// The checker chooses at what it knows only.
    chosen: AtomicU8,
}

impl Semaphore {
    pub(super) fn new(permits: usize) -> Self {
        Self {
            permits: tokio::sync::Semaphore::new(permits),
            chosen: AtomicU8::new(0),
        }
    }

    fn permits(&self) -> &tokio::sync::Semaphore {
        self.chosen.load(Ordering::SeqCst);
        &self.permits
    }

    pub(super) async fn acquire(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.permits().acquire().await
    }

    pub(super) fn add_permits(&self, permits: usize) {
        self.permits().add_permits(permits);
    }

    pub(super) fn forget_permits(&self, permits: usize) {
        self.permits().forget_permits(permits);
    }

    pub(super) fn close(&self) {
        self.permits().close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.permits().is_closed()
    }
}

/// Connections come back while others are given up and one is asked for. Whoever asks gets one: none is left that nobody
/// is lent.
#[test]
fn each_that_is_idle_is_lent_to_somebody() {
    let scenario = || {
        let idle = Arc::new(Idle::new(drop));
        idle.put(1);
        let since = Instant::now();
        let act = |act: fn(&Idle<u8>, Instant)| {
            let idle = Arc::clone(&idle);
            thread::spawn(move || act(&idle, since))
        };
        let acts = [
            act(|idle, since| idle.part_before(since)),
            act(|idle, _| idle.put(2)),
            act(|idle, _| idle.put(3)),
            act(|idle, _| drop(block_on(idle.take()))),
        ];
        for act in acts {
            act.join().expect("it ends");
        }
        while !lock(&idle.list).is_empty() {
            // Were a permit missing, this would wait for ever, which the checker reports.
            block_on(idle.take()).expect("it is open");
        }
    };
    shuttle::check_random(scenario, 3_000);
    shuttle::check_pct(scenario, 3_000, 3);
}
