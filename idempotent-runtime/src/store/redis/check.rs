//! Checks that the servers keep acknowledged writes.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::{ErrorKind, RedisError, ServerErrorKind, cluster::NodeAddress};
use tokio::time::{Instant, sleep};

use super::{
    ConnectError, NAME,
    cluster::{Cluster, Next},
    durability::Durability,
    error::denied,
    link::Link,
    server::Server,
    topology::View,
};
use crate::store::weakness::Accepted;

/// How long the probe of a Cluster is repeated while it is incomplete, and the pause between two probes. A failover
/// normally ends within this time.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(250));

/// What the probe found out about all servers.
pub(super) struct ServerFacts {
    /// Major and minor version of the oldest server; `None` if the version of one is unknown.
    pub(super) version: Option<(u32, u32)>,
    /// Whether all of them have an append-only file.
    pub(super) append_only: bool,
    /// The servers that were probed.
    pub(super) servers: Vec<Arc<Server>>,
}

/// The probe of a Cluster.
struct ClusterProbe {
    view: View,
    probes: Vec<(NodeAddress, Arc<Server>, Durability)>,
    /// The primaries that could not be probed, and why.
    unreachable: Vec<(NodeAddress, RedisError)>,
}

/// Probes the servers, and returns an error if they may lose acknowledged writes.
///
/// What the operator accepted is a warning instead.
pub(super) async fn check(
    link: &Link,
    prefix: &str,
    accepted: Accepted,
) -> Result<ServerFacts, ConnectError> {
    let mut probes = Vec::new();
    let mut servers = Vec::new();
    let (mut all, mut view) = (true, None);
    match link {
        Link::Server(server) => {
            let probe = probe(server, false).await?;
            server.know(&probe, accepted);
            probes.push(probe);
            servers.push(Arc::clone(server));
        }
        Link::Cluster(cluster) => {
            let found = primaries(cluster).await?;
            all = found.is_complete();
            if !all {
                found.accepted(prefix, accepted).await?;
            }
            for (node, server, probe) in found.probes {
                cluster.know(node, &probe, accepted);
                probes.push(probe);
                servers.push(server);
            }
            view = Some((cluster, found.view));
        }
    }
    // Of all servers or of none: one that could not be probed may be the oldest.
    let infos: Option<Vec<_>> = probes.iter().map(|probe| probe.info.as_ref()).collect();
    let infos = infos.filter(|_| all).unwrap_or_default();
    let versions: Option<Vec<_>> = infos.iter().map(|info| info.version()).collect();
    let facts = ServerFacts {
        version: versions.and_then(|versions| versions.into_iter().min()),
        append_only: !infos.is_empty() && infos.iter().all(|info| info.append_only()),
        servers,
    };
    verdict(probes, accepted)?;
    if let Some((cluster, view)) = view {
        let opened = cluster.open(view, accepted).await;
        opened.map_err(|error| ConnectError::of("CLUSTER SLOTS", error))?;
    }
    Ok(facts)
}

/// Errors for what the probes found, or warnings if the operator accepts it.
fn verdict(probes: Vec<Durability>, accepted: Accepted) -> Result<(), ConnectError> {
    let mut found = Vec::new();
    for probe in probes {
        for (command, error) in probe.hidden {
            unverified(command, error, accepted)?;
        }
        found.extend(probe.found);
    }
    let judged = accepted.judge(NAME, found);
    judged.map_err(|found| ConnectError::Weak { found })
}

/// Probes all primaries of a Cluster, and repeats that for a while if one of them cannot be reached or is not known: it
/// may be about to be replaced.
async fn primaries(cluster: &Cluster) -> Result<ClusterProbe, ConnectError> {
    let end = Instant::now() + RETRY.0;
    loop {
        let found = ClusterProbe::now(cluster).await;
        let late = Instant::now() >= end;
        match found {
            Ok(found) if late || found.is_complete() => return Ok(found),
            // Incomplete, or no node answered this time.
            Ok(_) | Err(ConnectError::Unreachable { .. }) if !late => {}
            other => return other,
        }
        sleep(RETRY.1).await;
    }
}

impl ClusterProbe {
    async fn now(cluster: &Cluster) -> Result<Self, ConnectError> {
        let unread = |error| ConnectError::of("CLUSTER SLOTS", error);
        let view = cluster.view().await.map_err(unread)?;
        let servers = view.primaries().into_iter().map(|node| {
            let server = cluster.server(node).map_err(unread)?;
            Ok((node.clone(), server))
        });
        let servers = servers.collect::<Result<Vec<_>, ConnectError>>()?;
        let probes = servers.iter().map(|(_, server)| probe(server, true));
        let probes = join_all(probes).await;
        let (mut found, mut unreachable) = (Vec::new(), Vec::new());
        for ((node, server), probe) in servers.into_iter().zip(probes) {
            match probe {
                Ok(probe) => found.push((node, server, probe)),
                Err(ConnectError::Unreachable { source }) => unreachable.push((node, source)),
                // It was the primary until a moment ago. The new primary has to be probed.
                Err(ConnectError::Replica) => {
                    unreachable.push((node, (ErrorKind::Io, "it is a replica").into()));
                }
                Err(other) => return Err(other),
            }
        }
        Ok(Self {
            view,
            probes: found,
            unreachable,
        })
    }

    fn is_complete(&self) -> bool {
        self.unreachable.is_empty() && self.view.gaps().is_empty()
    }

    /// Whether to use the Cluster although the probe is incomplete: an error if not, a warning if so.
    async fn accepted(&self, prefix: &str, accepted: Accepted) -> Result<(), ConnectError> {
        let first = self.unreachable.first().map(|(_, source)| source.clone());
        let slots = self.view.gaps();
        if !accepted.unverified {
            return Err(match first {
                Some(source) => {
                    let nodes = self.unreachable.iter().map(|(node, _)| node.to_string());
                    let nodes = nodes.collect::<Vec<_>>().join(", ");
                    ConnectError::UnreachablePrimaries { nodes, source }
                }
                None => ConnectError::Uncovered {
                    slots: slots.to_string(),
                },
            });
        }
        self.any_serves(prefix, first).await?;
        for (node, source) in &self.unreachable {
            let error: &dyn std::error::Error = source;
            tracing::warn!(
                error,
                "the primary {node} of the Redis Cluster cannot be reached: operations on its keys fail, and its \
                 durability is unknown"
            );
        }
        if !slots.is_empty() {
            tracing::warn!(
                "no node of the Redis Cluster reports the owner of the slots {slots}: operations on their keys fail, \
                 and the durability of their primaries is unknown"
            );
        }
        Ok(())
    }

    /// An error unless one of the probed primaries serves: without another node the Cluster may be down as a whole.
    async fn any_serves(
        &self,
        prefix: &str,
        mut why: Option<RedisError>,
    ) -> Result<(), ConnectError> {
        for (_, server, _) in &self.probes {
            // A node that serves redirects all keys but its own. One name could be in a slot that has no owner.
            for name in 0..NAMES {
                // A write that changes nothing, because the key does not exist. A read may be served where a write is
                // not.
                let mut probe = redis::cmd("PEXPIRE");
                probe.arg(format!("{prefix}served-{name}")).arg(1);
                let Err(error) = server.send(&probe).await else {
                    return Ok(());
                };
                let answers = matches!(error.kind(), ErrorKind::Server(ServerErrorKind::Moved))
                    || (Next::after(&error) == Next::End && !error.is_io_error());
                if answers {
                    // With a redirection, or a missing permission.
                    return Ok(());
                }
                let silent = error.is_io_error();
                why = Some(error);
                if silent {
                    break;
                }
            }
        }
        let no_primary = || RedisError::from((ErrorKind::Io, "no primary is known"));
        let source = why.unwrap_or_else(no_primary);
        Err(ConnectError::Unreachable { source })
    }
}

/// How many names are tried on a node. Each is in another slot.
const NAMES: u8 = 16;

/// An error or a warning for a command of the probe that the server does not permit.
fn unverified(
    command: &'static str,
    error: RedisError,
    accepted: Accepted,
) -> Result<(), ConnectError> {
    if !accepted.unverified {
        return Err(ConnectError::Unverified {
            command,
            source: error,
        });
    }
    let source: &dyn std::error::Error = &error;
    tracing::warn!(
        error = source,
        "the Redis user may not run {command}: the server's durability is unknown"
    );
    Ok(())
}

/// Probes a server. An error if it does not answer, or cannot be used whatever the operator accepts.
async fn probe(server: &Arc<Server>, by_cluster: bool) -> Result<Durability, ConnectError> {
    let said = server.durability().await;
    let said = said.map_err(|error| ConnectError::of("INFO", error))?;
    if let Some(info) = &said.info {
        info.refuse(by_cluster)?;
    }
    if said.is_loading() {
        let loading = ErrorKind::Server(ServerErrorKind::BusyLoading);
        let source = (loading, "it is loading its data").into();
        return Err(ConnectError::Unreachable { source });
    }
    Ok(said)
}

/// Loads the scripts. A server that does not permit it gets each script with its first call, and so does a node of a
/// Cluster that fails here, because the other nodes serve.
pub(super) async fn load(
    link: &Link,
    servers: &[Arc<Server>],
    scripts: &super::script::Scripts,
) -> Result<(), ConnectError> {
    for server in servers {
        for command in scripts.load() {
            match server.send(&command).await {
                Err(error) if denied(&error) => {
                    tracing::debug!(
                        "the Redis user may not run SCRIPT LOAD: scripts are sent by EVAL"
                    );
                    break;
                }
                Err(error) if matches!(link, Link::Cluster(_)) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(
                        error,
                        "a primary of the Redis Cluster did not load the scripts: they are sent by EVAL"
                    );
                    break;
                }
                Err(error) => return Err(ConnectError::of("SCRIPT LOAD", error)),
                Ok(_) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
