//! Keeping a lease while work goes on.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{Idempotency, execution::Execution};
use crate::store::{Held, Write};

/// A lease that its owner keeps alive by a heartbeat.
///
/// 1. A beat every third of the lease, jittered, so that two may fail before the lease lapses.
/// 2. No timer before the work was first found pending: a handler that is done at once pays nothing.
/// 3. No beat after `max_lifetime`: the lease then lapses, and the handler can see it, but is not stopped.
pub(crate) struct Lease {
    engine: Idempotency,
    held: Held,
    execution: Execution,
    next_beat: Instant,
    /// No beat after this.
    end_of_life: Instant,
    taken: bool,
}

impl Lease {
    /// A lease whose acquire was sent at `acquired`: by this process's clock it lapses no later than the
    /// store's says.
    pub(crate) fn new(
        engine: Idempotency,
        held: Held,
        execution: Execution,
        acquired: Instant,
        max_lifetime: Duration,
    ) -> Self {
        execution.leased_until(acquired + held.lease);
        Self {
            engine,
            held,
            execution,
            next_beat: acquired + interval(held.lease),
            end_of_life: acquired + max_lifetime,
            taken: false,
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

    /// Runs the work to its end, beating meanwhile.
    pub(crate) async fn keep<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await
        {
            return done;
        }
        while !self.taken && self.next_beat <= self.end_of_life {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep_until(self.next_beat) => {}
            }
            // A beat still under way when the work is done is dropped: applied or not, the completion that
            // follows carries the same token.
            tokio::select! {
                biased;
                done = &mut work => return done,
                // Boxed: rare, and larger than everything else here.
                () = Box::pin(self.beat()) => {}
            }
        }
        work.await
    }

    /// Whether no other execution can own the key, asking the store where this process's clock leaves a doubt.
    ///
    /// A lapsed lease that the store still renews was taken by nobody in between: the token is unchanged. A shutdown
    /// that is over has given every lease away, whatever the clock says.
    pub(crate) async fn is_ours(&mut self) -> bool {
        if self.execution.lease_lost() {
            // Boxed: rare, and larger than everything else on the way to a handler.
            Box::pin(self.beat()).await;
        }
        !self.execution.lease_lost() && !self.engine.running().is_closed()
    }

    async fn beat(&mut self) {
        if self.engine.running().is_closed() {
            // The shutdown marked the key: a renewal would undo that, and end with the process.
            self.execution.lease_taken();
            self.taken = true;
            return;
        }
        let sent = Instant::now();
        match self.engine.ops().renew(&self.held).await {
            Ok(Write::Applied) => {
                self.execution.leased_until(sent + self.held.lease);
                self.next_beat = sent + interval(self.held.lease);
            }
            Ok(Write::Fenced | Write::Missing) => {
                tracing::warn!("the lease was taken over: another execution owns the key now");
                self.execution.lease_taken();
                self.taken = true;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the lease could not be renewed; trying again");
                self.next_beat = Instant::now() + interval(self.held.lease) / 4;
            }
        }
    }
}

/// A third of the lease, give or take a tenth of that; at least 4 ms, so that no lease makes a busy loop.
fn interval(lease: Duration) -> Duration {
    (lease / 3)
        .mul_f64(0.9 + rand::random::<f64>() / 5.0)
        .max(Duration::from_millis(4))
}
