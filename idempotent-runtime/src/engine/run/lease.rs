//! The lease of an execution, and the heartbeat that keeps it.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::{
    backoff::nearly,
    engine::core::Core,
    execution::Execution,
    store::{Held, Write},
};

/// A lease that its owner renews by a heartbeat.
///
/// 1. A renewal every third of the lease, jittered, so that two may fail before the lease lapses.
/// 2. No timer before the handler was first found pending: a handler that returns at once pays nothing.
/// 3. No renewal after `max_lifetime`: the lease then lapses. The handler can see that, and is not stopped.
pub(crate) struct Lease {
    core: Arc<Core>,
    held: Held,
    execution: Execution,
    next_beat: Instant,
    /// No renewal after this.
    end_of_life: Instant,
    /// Another execution has taken the key over, or a shutdown has given it away.
    lost: bool,
}

impl Lease {
    /// A lease whose acquire was sent at `acquired`: by this process's clock it lapses no later than the
    /// store's says.
    pub(crate) fn new(
        core: Arc<Core>,
        held: Held,
        execution: Execution,
        acquired: Instant,
        max_lifetime: Duration,
    ) -> Self {
        execution.leased_until(acquired + held.lease);
        Self {
            core,
            held,
            execution,
            next_beat: acquired + interval(held.lease),
            end_of_life: acquired + max_lifetime,
            lost: false,
        }
    }

    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    pub(crate) fn execution(&self) -> &Execution {
        &self.execution
    }

    /// When the heartbeat ends.
    pub(crate) fn end_of_life(&self) -> Instant {
        self.end_of_life
    }

    /// Runs a future to its end and renews the lease meanwhile.
    pub(crate) async fn renew_while<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        if let Poll::Ready(done) =
            poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
        {
            return done;
        }
        while !self.lost && self.next_beat <= self.end_of_life {
            tokio::select! {
                biased;
                done = &mut future => return done,
                () = sleep_until(self.next_beat) => {}
            }
            // A renewal that is under way when the future is done is dropped. Whether it is applied does not matter:
            // the completion that follows carries the same token.
            tokio::select! {
                biased;
                done = &mut future => return done,
                // Boxed: rare, and larger than everything else here.
                () = Box::pin(self.beat()) => {}
            }
        }
        future.await
    }

    /// Whether no other execution can own the key. Asks the store where this process's clock cannot tell.
    ///
    /// If the store renews a lapsed lease, nobody has taken it over: the token is unchanged. A shutdown whose deadline has
    /// passed has given every lease away, whatever the clock says.
    pub(crate) async fn is_ours(&mut self) -> bool {
        if self.execution.lease_lost() {
            // Boxed: rare, and larger than everything else on the way to a handler.
            Box::pin(self.beat()).await;
        }
        !self.execution.lease_lost() && !self.core.in_flight.is_closed()
    }

    async fn beat(&mut self) {
        if self.core.in_flight.is_closed() {
            // The shutdown has marked the key: a renewal would undo that.
            self.execution.lose_lease();
            self.lost = true;
            return;
        }
        let sent = Instant::now();
        match self.core.store.renew(&self.held).await {
            Ok(Write::Applied) => {
                self.execution.leased_until(sent + self.held.lease);
                self.next_beat = sent + interval(self.held.lease);
            }
            Ok(Write::Fenced | Write::Missing) => {
                tracing::warn!("the lease was taken over: another execution owns the key now");
                self.execution.lose_lease();
                self.lost = true;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the lease could not be renewed; trying again");
                self.next_beat = Instant::now() + interval(self.held.lease) / 4;
            }
        }
    }
}

/// About a third of the lease; at least 4 ms, so that no lease makes a busy loop.
fn interval(lease: Duration) -> Duration {
    nearly(lease / 3).max(Duration::from_millis(4))
}
