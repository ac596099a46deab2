//! The way to the servers: to a single one, or to the nodes of a Cluster.

use std::sync::Arc;

use redis::{RedisResult, Value};

use super::{cluster::Cluster, script::Call, server::Server};

/// The way to a server, or to the nodes of a Cluster.
#[derive(Clone)]
pub(super) enum Link {
    Server(Arc<Server>),
    Cluster(Arc<Cluster>),
}

impl Link {
    /// Runs a script. `repeat`: it may be sent once more over a new connection, because running it twice is
    /// the same as running it once. If that fails too, the first error stands: what was asked may have been done,
    /// whatever the server says of the repetition.
    pub(super) async fn run(&self, call: &Call<'_>, repeat: bool) -> RedisResult<Value> {
        let server = match self {
            Self::Server(server) => server,
            Self::Cluster(cluster) => return cluster.run(call, repeat).await,
        };
        match server.call(call, false).await {
            // What a restarted server looks like from here: the connection is gone, the server is there.
            Err(error) if repeat && error.is_connection_dropped() => {
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
            source::{Patience, Source},
        },
        *,
    };

    /// As when a store stands in a static, and the test that opened it ended with its runtime.
    #[tokio::test]
    async fn a_store_whose_runtime_is_gone_says_so() {
        let fake = Fake::new().await;
        let patience = Patience {
            connect: Duration::from_secs(1),
            respond: Duration::from_millis(900),
        };
        let source = Source::node(fake.info(), patience).expect("a source");
        let runtime = Runtime::new().expect("a runtime");
        let server = Server::new(source, runtime.handle().clone());
        let link = Link::Server(Arc::clone(&server));
        server.send(&redis::cmd("PING")).await.expect("an answer");
        runtime.shutdown_background();

        let scripts = Scripts::new(true);
        let call = scripts.renew.call("idempotent:a", &[b"", b"", b""]);
        for _ in 0..3 {
            let reply = timeout(Duration::from_secs(10), link.run(&call, true)).await;
            reply.expect("an end").expect_err("nobody connects");
        }
    }
}
