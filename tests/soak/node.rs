//! Processes in effect: each has an engine, a server, connections to the store and a runtime of its own.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use idempotent_runtime::{Idempotency, Shutdown};
use tokio::runtime::{Builder, Runtime};

use crate::{
    ledger::Ledger,
    service::app,
    store::Backend,
    support::{Process, Server, detached, in_flight, waiters, withdrawals},
    watch::Watch,
};

/// One process.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) watch: Arc<Watch>,
    process: Process,
    server: Option<Server>,
    runtime: Option<Runtime>,
    /// Its tasks before its first request.
    first_tasks: usize,
}

/// What a process counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gauges {
    pub(crate) in_flight: usize,
    pub(crate) waiters: usize,
    pub(crate) detached: usize,
    pub(crate) withdrawals: usize,
    /// Tasks of its runtime beyond the first ones, each of which has to be a withdrawal.
    pub(crate) tasks: usize,
}

/// How many tasks a process at rest may have besides its first ones and its withdrawals: its store may have made more
/// connections.
pub(crate) const SPARE_TASKS: usize = 8;

impl Node {
    /// Starts one. An error if the store cannot be reached.
    pub(crate) async fn start(
        backend: &Arc<Backend>,
        place: usize,
        ledger: &Arc<Ledger>,
    ) -> Result<Self, String> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(3)
            .thread_name("soak-node")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let (backend, ledger) = (Arc::clone(backend), Arc::clone(ledger));
        let watch = Arc::new(Watch::default());
        let watched = Arc::clone(&watch);
        let started = runtime.spawn(async move {
            let process = backend
                .open(place, &watched)
                .await
                .map_err(|error| error.to_string())?;
            let server = Server::start(app(&process.engine, &ledger)).await;
            Ok::<_, String>((process, server))
        });
        let started = started.await.map_err(|error| error.to_string());
        let started = started.and_then(|started| started);
        let (process, server) = match started {
            Ok(started) => started,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        Ok(Self {
            address: server.address,
            watch,
            process,
            server: Some(server),
            first_tasks: runtime.metrics().num_alive_tasks(),
            runtime: Some(runtime),
        })
    }

    pub(crate) fn engine(&self) -> &Idempotency {
        &self.process.engine
    }

    pub(crate) fn gauges(&self) -> Gauges {
        let engine = self.engine();
        let tasks = self
            .runtime
            .as_ref()
            .map(|runtime| runtime.metrics().num_alive_tasks());
        Gauges {
            in_flight: in_flight(engine),
            waiters: waiters(engine),
            detached: detached(engine),
            withdrawals: withdrawals(engine),
            tasks: tasks.unwrap_or_default().saturating_sub(self.first_tasks),
        }
    }

    /// Runs something in the process.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.runtime {
            runtime.spawn(task);
        }
    }

    /// Ends the process at once, whatever it does.
    pub(crate) fn kill(self) {
        // First, so that no destructor reaches the store.
        self.process.cut_off();
    }

    /// Ends the process as a deployment does.
    pub(crate) async fn shut_down(self, deadline: Duration) -> Shutdown {
        self.watch.close();
        let engine = self.engine().clone();
        let report = match &self.runtime {
            Some(runtime) => {
                runtime
                    .spawn(async move { engine.shutdown(deadline).await })
                    .await
            }
            None => Ok(engine.shutdown(deadline).await),
        };
        self.process.cut_off();
        report.expect("a shutdown does not panic")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.server = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Gauges {
    /// Whether nothing goes on, besides withdrawals.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight + self.waiters + self.detached == 0
    }

    /// Whether there are no tasks without a reason.
    pub(crate) fn has_few_tasks(&self) -> bool {
        self.tasks <= self.withdrawals + SPARE_TASKS
    }
}
