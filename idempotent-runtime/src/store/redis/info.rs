//! What a server reports about itself: the reply to `INFO`.

use std::collections::HashMap;

use redis::Value;

use super::ConnectError;
use crate::store::weakness::{FoundWeakness, Weakness};

/// The reply of one server to `INFO`.
pub(super) struct Info(HashMap<String, String>);

impl Info {
    /// Reads the reply.
    pub(super) fn read(reply: Value) -> Self {
        Self::parse(&texts(reply).collect::<String>())
    }

    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(super) fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.get("redis_version").split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    pub(super) fn append_only(&self) -> bool {
        self.get("aof_enabled") == "1"
    }

    /// An error for what the operator cannot accept.
    pub(super) fn refuse(&self, by_cluster: bool) -> Result<(), ConnectError> {
        if self.version().is_some_and(|version| version < (6, 0)) {
            return Err(ConnectError::TooOld {
                version: self.get("redis_version").to_owned(),
            });
        }
        if self.get("cluster_enabled") == "1" && !by_cluster {
            return Err(ConnectError::PartOfCluster);
        }
        if matches!(self.get("role"), "slave" | "replica") {
            return Err(ConnectError::Replica);
        }
        Ok(())
    }

    pub(super) fn weaknesses(&self, found: &mut Vec<FoundWeakness>) {
        if !self.append_only() {
            found.push(FoundWeakness::new(Weakness::AppendOnlyOff, "no"));
        }
        let policy = self.get("maxmemory_policy");
        // Without a limit no key is ever evicted, whatever the policy.
        if self.get("maxmemory") != "0" && policy != "noeviction" {
            found.push(FoundWeakness::new(Weakness::Eviction, policy));
        }
    }

    /// Identifies the server until it ends.
    pub(super) fn run_id(&self) -> Option<String> {
        self.0.get("run_id").cloned()
    }

    /// Whether the database has any keys.
    pub(super) fn has_keys(&self, db: i64) -> bool {
        self.0.contains_key(&format!("db{db}"))
    }

    /// How many keys the database has.
    pub(super) fn keys(&self, db: i64) -> u64 {
        let keys = self.get(&format!("db{db}")).strip_prefix("keys=");
        let keys = keys.and_then(|keys| keys.split(',').next()?.parse().ok());
        keys.unwrap_or_default()
    }

    /// Whether it accepts writes also while it has no replica.
    pub(super) fn writes_alone(&self) -> bool {
        !self.0.contains_key("min_slaves_good_slaves")
    }
}

/// The texts in a reply: the reply to `INFO`, or names and values of settings.
pub(super) fn texts(value: Value) -> Box<dyn Iterator<Item = String> + Send> {
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
