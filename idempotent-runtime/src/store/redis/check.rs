//! Whether the servers are a place for claims that must not be lost.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::{RedisError, RedisResult, Value};
use tokio::time::{Instant, sleep};

use super::{
    ConnectError, Weakness,
    cluster::{Cluster, Node},
    error::denied,
    link::{Link, Server},
};

/// How long a primary of a Cluster that cannot be asked is asked again, and the pause in between. A failover is
/// normally done by then.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(250));

/// What the servers said about themselves.
pub(super) struct Facts {
    /// Major and minor version of the oldest; nothing if one would not say.
    pub(super) version: Option<(u32, u32)>,
    /// Whether all of them have an append-only file.
    pub(super) append_only: bool,
    /// All that were asked.
    pub(super) servers: Vec<Arc<Server>>,
}

/// What one server says.
struct Info(HashMap<String, String>);

/// What was found on one server.
struct Exam {
    /// Nothing if it would not say.
    info: Option<Info>,
    weaknesses: Vec<Weakness>,
    /// The commands that it did not permit.
    hidden: Vec<(&'static str, RedisError)>,
}

/// A primary of a Cluster that could not be asked, and why.
struct Silent(Arc<Node>, RedisError);

/// Asks the servers, and refuses those that will not do.
///
/// `accept` says what the operator chose: to go on with a warning where durability is weak or unknown.
pub(super) async fn check(link: &Link, prefix: &str, accept: bool) -> Result<Facts, ConnectError> {
    let mut exams = Vec::new();
    let mut servers = Vec::new();
    match link {
        Link::Server(server) => {
            exams.push(Exam::of(server, false).await?);
            servers.push(Arc::clone(server));
        }
        Link::Cluster(cluster) => {
            let (found, silent) = primaries(cluster).await?;
            if let Some(silent) = silent {
                without(cluster, silent, &found, prefix, accept).await?;
            }
            for (node, exam) in found {
                exams.push(exam);
                servers.push(Arc::clone(&node.server));
            }
        }
    }
    let infos: Option<Vec<_>> = exams.iter().map(|exam| exam.info.as_ref()).collect();
    let versions = infos.iter().flatten().filter_map(|info| info.version());
    let facts = Facts {
        version: versions.min(),
        append_only: infos.is_some_and(|infos| infos.iter().all(|info| info.append_only())),
        servers,
    };
    verdict(exams, accept)?;
    Ok(facts)
}

/// Errors for what was found, or warnings if the operator accepts it.
fn verdict(exams: Vec<Exam>, accept: bool) -> Result<(), ConnectError> {
    let mut weaknesses = Vec::new();
    for exam in exams {
        for (command, error) in exam.hidden {
            unverified(command, error, accept)?;
        }
        weaknesses.extend(exam.weaknesses);
    }
    weaknesses.sort();
    weaknesses.dedup();
    if !weaknesses.is_empty() && !accept {
        return Err(ConnectError::Weak { weaknesses });
    }
    for weakness in weaknesses {
        tracing::warn!("this Redis server can lose keys that it acknowledged: {weakness}");
    }
    Ok(())
}

/// Examines all primaries of a Cluster, again for a while if one of them cannot be asked: it may be about to be
/// replaced.
async fn primaries(
    cluster: &Cluster,
) -> Result<(Vec<(Arc<Node>, Exam)>, Option<Silent>), ConnectError> {
    let end = Instant::now() + PATIENCE.0;
    loop {
        let nodes = cluster.primaries().await;
        let nodes = nodes.map_err(|error| ConnectError::of("CLUSTER SLOTS", error))?;
        let exams = nodes.iter().map(|node| Exam::of(&node.server, true));
        let exams = join_all(exams).await;
        let (mut found, mut silent) = (Vec::new(), None);
        for (node, exam) in nodes.into_iter().zip(exams) {
            match exam {
                Ok(exam) => found.push((node, exam)),
                Err(ConnectError::Unreachable { source }) => silent = Some(Silent(node, source)),
                Err(other) => return Err(other),
            }
        }
        if silent.is_none() || Instant::now() >= end {
            return Ok((found, silent));
        }
        sleep(PATIENCE.1).await;
    }
}

/// Whether the Cluster is to be used without one of its primaries.
async fn without(
    cluster: &Cluster,
    Silent(silent, source): Silent,
    found: &[(Arc<Node>, Exam)],
    prefix: &str,
    accept: bool,
) -> Result<(), ConnectError> {
    let node = silent.to_string();
    if !accept {
        return Err(ConnectError::SilentNode { node, source });
    }
    let Some((other, _)) = found.first() else {
        return Err(ConnectError::Unreachable { source });
    };
    if let Err(source) = cluster.serves(other, prefix).await {
        return Err(ConnectError::Unreachable { source });
    }
    let error: &dyn std::error::Error = &source;
    tracing::warn!(
        error,
        "the primary {node} of the Redis Cluster cannot be asked: keys that are there get errors, and its \
         durability is unknown"
    );
    Ok(())
}

/// Settings under which an append-only file is not flushed: the command that asks, the setting, the value that is
/// none to rely on, and what is the matter then.
const FLUSHES: [(&str, &str, &str, Weakness); 2] = [
    (
        "CONFIG GET appendfsync",
        "appendfsync",
        "no",
        Weakness::NeverFlushed,
    ),
    (
        "CONFIG GET no-appendfsync-on-rewrite",
        "no-appendfsync-on-rewrite",
        "yes",
        Weakness::NotFlushedInRewrites,
    ),
];

/// Whether a setting has this value.
async fn is_set(server: &Arc<Server>, setting: &str, value: &str) -> RedisResult<bool> {
    let mut command = redis::cmd("CONFIG");
    let found = server.send(command.arg("GET").arg(setting)).await?;
    Ok(texts(found).any(|found| found == value))
}

/// A server that does not permit to look.
fn unverified(command: &'static str, error: RedisError, accept: bool) -> Result<(), ConnectError> {
    if !accept {
        return Err(ConnectError::Unverified {
            command,
            source: error,
        });
    }
    let source: &dyn std::error::Error = &error;
    tracing::warn!(
        error = source,
        "the Redis server does not permit {command}: its durability is unknown"
    );
    Ok(())
}

/// The texts in a reply: what a server says of itself, or names and values of settings.
fn texts(value: Value) -> Box<dyn Iterator<Item = String> + Send> {
    match value {
        Value::BulkString(bytes) => Box::new(std::iter::once(
            String::from_utf8_lossy(&bytes).into_owned(),
        )),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => {
            Box::new(std::iter::once(text))
        }
        Value::Array(values) => Box::new(values.into_iter().flat_map(texts)),
        Value::Map(pairs) => Box::new(pairs.into_iter().flat_map(|(_, value)| texts(value))),
        _ => Box::new(std::iter::empty()),
    }
}

impl Exam {
    /// What the server says. An error if it does not answer, or will not do whatever the operator chose.
    async fn of(server: &Arc<Server>, by_cluster: bool) -> Result<Self, ConnectError> {
        let mut exam = Self {
            info: None,
            weaknesses: Vec::new(),
            hidden: Vec::new(),
        };
        let info = match server.send(&redis::cmd("INFO")).await {
            Ok(value) => Info::parse(&texts(value).collect::<String>()),
            Err(error) => return exam.hide("INFO", error),
        };
        info.refuse(by_cluster)?;
        info.weaknesses(&mut exam.weaknesses);
        let append_only = info.append_only();
        exam.info = Some(info);
        for (command, setting, bad, weakness) in FLUSHES.into_iter().filter(|_| append_only) {
            match is_set(server, setting, bad).await {
                Ok(true) => exam.weaknesses.push(weakness),
                Ok(false) => {}
                Err(error) => exam = exam.hide(command, error)?,
            }
        }
        Ok(exam)
    }

    /// A server that does not answer is one thing, one that does not permit to ask another.
    fn hide(mut self, command: &'static str, error: RedisError) -> Result<Self, ConnectError> {
        if !denied(&error) {
            return Err(ConnectError::of(command, error));
        }
        self.hidden.push((command, error));
        Ok(self)
    }
}

impl Info {
    fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.get("redis_version").split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    fn append_only(&self) -> bool {
        self.get("aof_enabled") == "1"
    }

    /// What no choice of the operator mends.
    fn refuse(&self, by_cluster: bool) -> Result<(), ConnectError> {
        if self.version().is_some_and(|version| version < (6, 0)) {
            return Err(ConnectError::TooOld {
                version: self.get("redis_version").to_owned(),
            });
        }
        if self.get("cluster_enabled") == "1" && !by_cluster {
            return Err(ConnectError::PartOfCluster);
        }
        if matches!(self.get("role"), "slave" | "replica") && !by_cluster {
            return Err(ConnectError::Replica);
        }
        Ok(())
    }

    fn weaknesses(&self, found: &mut Vec<Weakness>) {
        if !self.append_only() {
            found.push(Weakness::NoAppendOnlyFile);
        }
        let policy = self.get("maxmemory_policy");
        // Without a limit nothing is ever evicted, whatever the policy.
        if self.get("maxmemory") != "0" && policy != "noeviction" {
            found.push(Weakness::Evicts {
                policy: policy.to_owned(),
            });
        }
    }
}

/// Makes the servers know the scripts. Those that do not permit it are told with the first call of each.
pub(super) async fn load(
    servers: &[Arc<Server>],
    scripts: &super::script::Scripts,
) -> Result<(), ConnectError> {
    for server in servers {
        for command in scripts.load() {
            match server.send(&command).await {
                Err(error) if denied(&error) => {
                    tracing::debug!("the Redis server does not permit SCRIPT LOAD: EVAL will do");
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
mod tests {
    use super::*;

    fn weaknesses(text: &str) -> Vec<Weakness> {
        let mut found = Vec::new();
        Info::parse(text).weaknesses(&mut found);
        found
    }

    #[test]
    fn what_can_lose_keys_is_found() {
        assert_eq!(
            weaknesses("aof_enabled:1\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n"),
            []
        );
        assert_eq!(
            weaknesses("aof_enabled:1\r\nmaxmemory:9\r\nmaxmemory_policy:noeviction\r\n"),
            []
        );
        let found = weaknesses("aof_enabled:0\r\nmaxmemory:9\r\nmaxmemory_policy:volatile-ttl\r\n");
        let policy = "volatile-ttl".to_owned();
        assert_eq!(
            found,
            [Weakness::NoAppendOnlyFile, Weakness::Evicts { policy }]
        );
        // A server that says nothing is not trusted.
        assert_eq!(weaknesses("").len(), 2);
    }

    #[test]
    fn servers_that_will_not_do_are_refused() {
        let refused = |text: &str| Info::parse(text).refuse(false).expect_err(text);
        assert!(matches!(
            refused("redis_version:5.0.14"),
            ConnectError::TooOld { .. }
        ));
        assert!(matches!(refused("role:slave"), ConnectError::Replica));
        assert!(matches!(
            refused("cluster_enabled:1"),
            ConnectError::PartOfCluster
        ));
        assert!(Info::parse("cluster_enabled:1").refuse(true).is_ok());
    }
}
