//! The link to the servers: to a single one, or to the nodes of a Cluster.

use std::sync::Arc;

use redis::{RedisResult, Value};

use super::{cluster::Cluster, script::Call, server::Server};

/// The link to a server, or to the nodes of a Cluster.
#[derive(Clone)]
pub(super) enum Link {
    Server(Arc<Server>),
    Cluster(Arc<Cluster>),
}

impl Link {
    /// Runs a script. `after_loss`: when its connection broke, it may be sent once more over a new one, because running it
    /// twice, the second time at any moment, equals running it once. If that fails too, the first error is returned: the
    /// first call may have been executed, whatever the server answers to the repetition.
    pub(super) async fn run(&self, call: &Call<'_>, after_loss: bool) -> RedisResult<Value> {
        let server = match self {
            Self::Server(server) => server,
            Self::Cluster(cluster) => return cluster.run(call, after_loss).await,
        };
        match server.call(call, false).await {
            // This is what a restart of the server looks like: the connection is gone, the server is available.
            Err(error) if after_loss && error.is_connection_dropped() => {
                server.call(call, false).await.map_err(|_| error)
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{runtime::Runtime, time::timeout};

    use super::{
        super::{
            fake::Fake,
            script::Scripts,
            source::{Source, TimeOuts},
        },
        *,
    };

    /// As for a store in a `static` that was opened in a test whose runtime has ended.
    #[tokio::test]
    async fn after_the_end_of_its_runtime_a_store_returns_errors() {
        let fake = Fake::new().await;
        let time_outs = TimeOuts {
            connect: Duration::from_secs(1),
            response: Duration::from_millis(900),
        };
        let source = Source::node(fake.info(), time_outs).expect("a source");
        let runtime = Runtime::new().expect("a runtime");
        let server = Server::new(source, runtime.handle().clone());
        let link = Link::Server(Arc::clone(&server));
        server.send(&redis::cmd("PING")).await.expect("an answer");
        runtime.shutdown_background();

        let scripts = Scripts::new(true);
        let call = scripts.renew.call("idempotent:a", &[b"", b"", b""]);
        for _ in 0..3 {
            let reply = timeout(Duration::from_secs(10), link.run(&call, true)).await;
            reply
                .expect("no time-out")
                .expect_err("there is no connection");
        }
    }
}
