//! The list under a model checker that chooses which thread runs next at every lock.
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

/// A semaphore before whose every use the checker may switch threads.
pub(super) struct Semaphore {
    permits: tokio::sync::Semaphore,
    /// The checker switches threads only at the types it knows.
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

/// Connections are released while others are evicted and one is acquired. Afterwards each idle connection can be
/// acquired: none has lost its permit.
#[test]
fn every_idle_connection_can_be_acquired() {
    let scenario = || {
        let idle = Arc::new(Idle::new(drop));
        idle.release(1);
        let since = Instant::now();
        let act = |act: fn(&Idle<u8>, Instant)| {
            let idle = Arc::clone(&idle);
            thread::spawn(move || act(&idle, since))
        };
        let acts = [
            act(|idle, since| idle.invalidate_before(since)),
            act(|idle, _| idle.release(2)),
            act(|idle, _| idle.release(3)),
            act(|idle, _| drop(block_on(idle.acquire()))),
        ];
        for act in acts {
            act.join().expect("no panic");
        }
        while !lock(&idle.list).is_empty() {
            // Were a permit missing, this would not end, which the checker reports as a deadlock.
            block_on(idle.acquire()).expect("it is open");
        }
    };
    shuttle::check_random(scenario, 3_000);
    shuttle::check_pct(scenario, 3_000, 3);
}
