//! Whether the server is a place for claims that must not be lost.

use std::collections::HashMap;

use redis::{RedisError, RedisResult, Value};

use super::{ConnectError, Weakness, error::denied, link::Link};

/// What the servers said about themselves.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Major and minor version of the oldest; nothing if they would not say.
    pub(super) version: Option<(u32, u32)>,
    /// Whether all of them have an append-only file.
    pub(super) append_only: bool,
}

/// What one server says.
struct Info(HashMap<String, String>);

/// Asks the servers, and refuses those that will not do.
///
/// `accept` says what the operator chose: to go on with a warning where durability is weak or unknown.
pub(super) async fn check(link: &Link, accept: bool) -> Result<Facts, ConnectError> {
    let infos = match link.ask_each(&redis::cmd("INFO")).await {
        Ok(value) => servers(value)
            .map(|text| Info::parse(&text))
            .collect::<Vec<_>>(),
        Err(error) => return unverified("INFO", error, accept).map(|()| Facts::default()),
    };
    let mut weaknesses = Vec::new();
    for info in &infos {
        info.refuse(matches!(link, Link::Cluster(_)))?;
        info.weaknesses(&mut weaknesses);
    }
    if infos.iter().any(Info::append_only) {
        for (command, setting, bad, weakness) in FLUSHES {
            match is_set(link, setting, bad).await {
                Ok(true) => weaknesses.push(weakness),
                Ok(false) => {}
                Err(error) => unverified(command, error, accept)?,
            }
        }
    }
    weaknesses.sort();
    weaknesses.dedup();
    if !weaknesses.is_empty() {
        if !accept {
            return Err(ConnectError::Weak { weaknesses });
        }
        for weakness in weaknesses {
            tracing::warn!("this Redis server can lose keys that it acknowledged: {weakness}");
        }
    }
    Ok(Facts {
        version: infos.iter().filter_map(Info::version).min(),
        append_only: infos.iter().all(Info::append_only),
    })
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

/// Whether a setting has this value on any of the servers.
async fn is_set(link: &Link, setting: &str, value: &str) -> RedisResult<bool> {
    let mut command = redis::cmd("CONFIG");
    let found = link.ask_each(command.arg("GET").arg(setting)).await?;
    Ok(servers(found).any(|found| found == value))
}

/// A server that does not answer is one thing, one that does not permit to ask another.
fn unverified(command: &'static str, error: RedisError, accept: bool) -> Result<(), ConnectError> {
    if !denied(&error) {
        return Err(ConnectError::of(command, error));
    }
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

/// The texts in a reply: one of a single server, one for each node of a Cluster, names and values of settings.
fn servers(value: Value) -> Box<dyn Iterator<Item = String> + Send> {
    match value {
        Value::BulkString(bytes) => Box::new(std::iter::once(
            String::from_utf8_lossy(&bytes).into_owned(),
        )),
        Value::VerbatimString { text, .. } | Value::SimpleString(text) => {
            Box::new(std::iter::once(text))
        }
        Value::Array(values) => Box::new(values.into_iter().flat_map(servers)),
        Value::Map(pairs) => Box::new(pairs.into_iter().flat_map(|(_, value)| servers(value))),
        _ => Box::new(std::iter::empty()),
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
    link: &Link,
    scripts: &super::script::Scripts,
) -> Result<(), ConnectError> {
    for command in scripts.load() {
        match link.send(&command).await {
            Err(error) if denied(&error) => {
                tracing::debug!("the Redis server does not permit SCRIPT LOAD: EVAL will do");
                return Ok(());
            }
            Err(error) => return Err(ConnectError::of("SCRIPT LOAD", error)),
            Ok(_) => {}
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
