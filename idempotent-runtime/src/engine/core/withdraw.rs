//! Withdrawing a claim in doubt: an acquire that was sent and not acknowledged.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::{Instrument, instrument::WithSubscriber};

use super::Core;
use crate::{
    backoff::Backoff,
    store::{Held, Write},
};

/// How long a store may be away before a claim in doubt is left to its lease.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(15 * 60);
/// At most so many claims in doubt are withdrawn at the same time.
const WITHDRAWALS: usize = 256;

/// Withdraws a claim whose acquire was never acknowledged.
///
/// The acquire may have been applied all the same, and would then block its key until it expires although nothing was
/// executed. The handler starts only after an acknowledged acquire, so nothing else uses this token, and giving it back
/// cannot undo anything. A claim that may have taken over a crashed execution is abandoned, not released: the record stays,
/// and with it the memory of the crash and the number of attempts.
pub(crate) fn withdraw(core: &Arc<Core>, held: Held, took_over: bool) {
    let Some(guard) = core.withdrawals.enter_within(WITHDRAWALS) else {
        tracing::warn!(key = %held.key, "a claim in doubt is left to its lease");
        return;
    };
    let core = Arc::clone(core);
    let task = async move {
        let _guard = guard;
        let started = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        while started.elapsed() < WITHDRAWN_WITHIN {
            let written = if took_over {
                core.store.abandon(&held.key, &held.token).await
            } else {
                core.store.release(&held.key, &held.token).await
            };
            match written {
                Ok(Write::Applied) => return core.wait_queues.notify(&held.key),
                // Not there: a delayed acquire may still arrive, but hardly after its own lease.
                Ok(_) if started.elapsed() >= held.lease => return,
                Ok(_) | Err(_) => sleep(backoff.pause()).await,
            }
        }
    };
    tokio::spawn(task.in_current_span().with_current_subscriber());
}
