//! [`Primaries`]: the servers that a walk goes through, each known by its process and its slots.

use std::{fmt::Write as _, sync::Arc};

use futures_util::future::try_join_all;
use redis::{ErrorKind, RedisError, RedisResult, Value};

use super::{NAME, place::Place};
use crate::{
    digest::Framed,
    scope::StoreKey,
    store::{
        error::{StoreError, StoreErrorKind},
        inspect::Cursor,
        redis::{
            error::store_error,
            info::{Info, texts},
            link::Link,
            names,
            server::Server,
            topology::{Own, SLOTS},
        },
    },
};

/// The primaries in the order of their lowest slots. A single server has all slots.
pub(super) struct Primaries {
    all: Vec<Primary>,
    is_cluster: bool,
    /// A digest of which processes they are and which slots they have.
    id: u64,
}

struct Primary {
    server: Arc<Server>,
    run_id: String,
    /// How many keys it has.
    keys: u64,
    own: Own,
}

/// The names that one `SCAN` returned.
pub(super) struct Names {
    /// Those of records.
    pub(super) keys: Vec<StoreKey>,
    /// How many names came.
    pub(super) fetched: usize,
}

impl Primaries {
    pub(super) async fn read(link: &Link) -> Result<Self, StoreError> {
        let (servers, is_cluster) = match link {
            Link::Server(server) => (vec![Arc::clone(server)], false),
            Link::Cluster(cluster) => (cluster.primaries().await.map_err(store_error)?, true),
        };
        Self::of(servers, is_cluster).await
    }

    async fn of(servers: Vec<Arc<Server>>, is_cluster: bool) -> Result<Self, StoreError> {
        let asked = servers
            .into_iter()
            .map(|server| Primary::of(server, is_cluster));
        let mut all = try_join_all(asked).await?;
        // One without slots has no keys.
        all.retain(|primary| primary.own.first().is_some());
        all.sort_by_key(|primary| primary.own.first());
        if all.iter().any(|primary| primary.own.moving) {
            return Err(unsettled(
                "slots of the Redis Cluster are being moved: list when that has ended",
            ));
        }
        if !Own::cover(all.iter().map(|primary| &primary.own)) {
            return Err(unsettled(
                "the primaries of the Redis Cluster do not have all slots between them",
            ));
        }
        let mut digest = Framed::sha256("idempotent/redis-primaries/v1");
        for primary in &all {
            let mut slots = String::new();
            for (first, last) in &primary.own.slots {
                // Writing to a string does not fail.
                let _ = write!(slots, "{first}-{last} ");
            }
            digest.part(primary.run_id.as_bytes());
            digest.part(slots.as_bytes());
        }
        let mut id = [0; 8];
        id.copy_from_slice(&digest.finish()[..8]);
        Ok(Self {
            all,
            is_cluster,
            id: u64::from_be_bytes(id),
        })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// An error unless the same processes still have the same slots.
    pub(super) async fn still_the_same(&self) -> Result<(), StoreError> {
        let servers = self.all.iter().map(|primary| Arc::clone(&primary.server));
        let now = Self::of(servers.collect(), self.is_cluster).await?;
        if now.id == self.id {
            return Ok(());
        }
        Err(unsettled(
            "a Redis server was restarted or a slot moved while its keys were listed: list again",
        ))
    }

    /// Which share of all names so many are.
    pub(super) fn share(&self, names: usize) -> f64 {
        let all: u64 = self.all.iter().map(|primary| primary.keys).sum();
        #[expect(
            clippy::cast_precision_loss,
            reason = "a share of fewer than 2^52 names"
        )]
        let share = names as f64 / all.max(1) as f64;
        share.min(1.0)
    }

    /// The names from this place on, about `count` of them, and the place behind them.
    pub(super) async fn scan(
        &self,
        place: &Place,
        pattern: Option<&str>,
        count: usize,
        names: &names::Names,
    ) -> RedisResult<(Names, Place)> {
        let at = |primary: &Primary| primary.own.first() == Some(place.slot);
        let at = self.all.iter().position(at);
        let at = at.ok_or_else(|| unexpected("no primary begins with the slot of the cursor"))?;
        let mut scan = redis::cmd("SCAN");
        scan.arg(place.scan);
        if let Some(pattern) = pattern {
            scan.arg("MATCH").arg(pattern);
        }
        scan.arg("COUNT").arg(count);
        let reply = self.all[at].server.send(&scan).await?;
        let (next, found) = scanned(reply).ok_or_else(|| unexpected("the reply to SCAN"))?;
        let fetched = found.len();
        let mut keys: Vec<_> = found.iter().filter_map(|name| names.key(name)).collect();
        // In one reply a name may stand twice.
        keys.sort_unstable();
        keys.dedup();
        let then = match (next, self.all.get(at + 1)) {
            (0, None) => Place::end(),
            (0, Some(next)) => Place {
                slot: next.own.first().unwrap_or(SLOTS),
                ..Place::default()
            },
            (scan, _) => Place {
                slot: place.slot,
                scan,
                left: Vec::new(),
            },
        };
        Ok((Names { keys, fetched }, then))
    }
}

impl Primary {
    async fn of(server: Arc<Server>, is_cluster: bool) -> Result<Self, StoreError> {
        let info = server.send(&redis::cmd("INFO")).await;
        let info = Info::read(info.map_err(store_error)?);
        if info.get("role") != "master" {
            return Err(unsettled("a Redis server is not the primary any more"));
        }
        let Some(run_id) = info.run_id() else {
            let hidden = StoreError::new(NAME, StoreErrorKind::Refused);
            return Err(hidden
                .with_source("INFO does not tell the run id, by which a walk knows its server"));
        };
        let own = if is_cluster {
            let mut nodes = redis::cmd("CLUSTER");
            let nodes = server.send(nodes.arg("NODES")).await.map_err(store_error)?;
            Own::read(&texts(nodes).collect::<String>())
        } else {
            Own::all()
        };
        Ok(Self {
            keys: info.keys(server.source().db()),
            server,
            run_id,
            own,
        })
    }
}

/// The cursor and the names of a reply to `SCAN`.
fn scanned(reply: Value) -> Option<(u64, Vec<Vec<u8>>)> {
    let Value::Array(parts) = reply else {
        return None;
    };
    let [Value::BulkString(next), Value::Array(names)] = <[Value; 2]>::try_from(parts).ok()? else {
        return None;
    };
    let next = std::str::from_utf8(&next).ok()?.parse().ok()?;
    let names = names.into_iter().map(|name| match name {
        Value::BulkString(name) => Some(name),
        _ => None,
    });
    Some((next, names.collect::<Option<_>>()?))
}

/// The error for a cursor of a walk through other servers.
pub(super) fn others(cursor: &Cursor) -> StoreError {
    cursor.refused(NAME).with_source(
        "since the listing began, a Redis server was restarted, failed over, or slots have moved: its order of records is \
         another one",
    )
}

fn unsettled(why: &'static str) -> StoreError {
    StoreError::new(NAME, StoreErrorKind::Unavailable).with_source(why)
}

fn unexpected(what: &'static str) -> RedisError {
    (ErrorKind::Parse, "unexpected", what.to_owned()).into()
}
