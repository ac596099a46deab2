//! [`RedisStore`]: records in Redis or Valkey, shared by all processes of a service.
//!
//! # The rules
//!
//! 1. A record is one key, a hash, so it works in a Cluster. Each operation is one script on it: one round trip,
//!    decided atomically by the server. A first execution costs two round trips, a replay one.
//! 2. The clock is the server's (`TIME`). The key's own expiry is the record's; there is nothing to purge.
//! 3. A key lives at least as long as its lease: acquire and renew set both in one step.
//! 4. Completions, releases and abandoned leases are published, so that waiters in other processes read the record at
//!    once: see [Waking waiters](#waking-waiters).
//! 5. An operation that meets a broken connection is sent once more over a new one, if a second copy is harmless whenever
//!    it arrives. It is not for a release, whose second answer differs, and not for an acquire, which would claim a key
//!    that was released meanwhile: their callers get the error.
//!
//! # What survives which failure
//!
//! | the server | acknowledged writes are kept |
//! |---|---|
//! | is killed, or its machine crashes, `appendfsync always` | yes |
//! | is killed, `appendfsync everysec` | yes, as long as its disk keeps up: during a slow flush, up to two seconds of writes are acknowledged from the server's own memory |
//! | its machine crashes, `appendfsync everysec` | all but the last second, or two while its disk is slow |
//! | fails over to a replica | what was replicated; more with [`wait_replicas`](RedisStoreBuilder::wait_replicas) |
//! | is killed or crashes, snapshots only | no: refused at start |
//! | reaches its memory limit, `noeviction` | yes: new keys are refused, executions in flight complete (version 7 and later) |
//! | reaches its memory limit, any other policy | no: refused at start |
//!
//! [`connect`](RedisStoreBuilder::connect) probes the server, or each primary of a Cluster (`INFO`, `CONFIG GET` of
//! `appendfsync` and `no-appendfsync-on-rewrite`), and refuses servers that can lose acknowledged writes, unless [that
//! weakness is accepted](RedisStoreBuilder::accept). If a primary of a Cluster does not answer, or no node
//! reports the primary of some slots, the probe is repeated for five seconds, in which a failover normally ends and the
//! new primary is probed. After that `connect` returns an error that names them. With
//! [`accept_unverified`](RedisStoreBuilder::accept_unverified) it
//! logs a warning instead and opens the store, as long as the Cluster serves other slots.
//!
//! With each connection that is made later, the server is probed again, since it may have been restarted, replaced, or
//! succeeded by a replica. If the store would not be opened on it, the log has an error and the operations fail until that
//! is changed. Other settings that are accepted are a warning. Another process is a warning as well, or an error if its
//! database is empty. Each is logged once. In a Cluster the primaries are probed when a connection to one was lost, and
//! once a minute; settings that are changed while a connection to a single server stays are not noticed.
//!
//! `appendfsync everysec`, the default of a server with an append-only file, is warned of and not refused. With it up to
//! one second of acknowledged claims and outcomes (two with a slow disk) is lost when the machine loses power, and retries
//! of those requests execute a second time. Where that is too much, as where each request moves money and nothing behind it
//! deduplicates by the key, set `appendfsync always`. Where it is not,
//! [`accept`](RedisStoreBuilder::accept)`(Weakness::AppendFsyncEverySecond)` ends the warning.
//!
//! # URLs
//!
//! | URL | |
//! |---|---|
//! | `redis://[user:password@]host[:port][/database]` | one server |
//! | `redis+sentinel://[user:password@]host[:port],…/primary[/database]` | sentinels, and the name of the primary they watch; the credentials are the server's |
//! | `redis+cluster://[user:password@]host[:port],…` | a Cluster, by some of its nodes |
//! | `redis+unix:///path` | a socket |
//!
//! `valkey` may be written for `redis`, and `rediss` for TLS (feature `redis-tls`). Certificates are checked against
//! the system's root certificates, or those in the file that the environment variable `SSL_CERT_FILE` names, as of a
//! private authority. The certificate of a Cluster's node, or of a primary behind sentinels, has to be valid for the
//! host that the nodes or sentinels announce, which is an IP address unless they are set to announce a name
//! (`cluster-announce-hostname` with `cluster-preferred-endpoint-type hostname`; `sentinel announce-hostnames yes`).
//!
//! # Sentinels
//!
//! List all of them, at least three. Several are asked at once. The store connects to the first server in the order of the
//! URL that a sentinel names and that confirms itself that it is the primary.
//!
//! A primary that is cut off from the others may have a sentinel with it, and both take it for the primary: processes
//! that reach it claim keys there, and those that reach its successor claim the same keys again. No client can prevent
//! that for all processes. The server can: with `min-replicas-to-write 1`, and `min-replicas-max-lag` shorter than the
//! sentinels' `down-after-milliseconds`, a primary without its replicas refuses writes. The store logs a warning when it
//! is opened by sentinels on a primary without this setting.
//!
//! # Clusters
//!
//! The URL need not list all nodes: the topology is read from those it lists, and later from all that are known. The
//! cluster client of the `redis` crate finds the node of each record and follows slots that move. What to expect:
//!
//! - A node that does not answer stops the operations for its own slots until another node owns them and the store has
//!   found that out, some seconds after the failover. While the slots are read anew, operations on other nodes wait; if
//!   a node accepts no connection at that moment, for up to the [`connect_timeout`](RedisStoreBuilder::connect_timeout).
//! - Nodes are recognised by their ids. If a primary sees no known node, as when another Cluster got its address, the store
//!   logs an error and carries out no operation until none of the primaries does: the other Cluster would accept claims
//!   that this one has completed. All primaries are asked, over connections of their own. One to which a connection was
//!   lost gets no operation before it has answered. A connection that broke while nothing was sent over it is found with
//!   the next operation, which may be sent over the client's next one: so do not give the address of a node to another
//!   Cluster. A service whose whole Cluster is replaced has to open its store again.
//!
//! # Records
//!
//! `idempotent:` and the store key in hexadecimal, with the fields `s` state (`R` in flight, `D` completed, `T`
//! tombstone), `f` fingerprint, `t` token, `a` attempt, `l` end of the lease in milliseconds, `i` trace id, `r` response,
//! `e` endpoint, `c` and `d` times of creation and completion in milliseconds, `m`, the token again if the claim was
//! transactional, and `w` the steps of an execution in flight, in raw bytes. `e`, `c`, `d` and `m` are missing in records of
//! earlier builds; processes of both may use
//! the same records.
//!
//! # Listing
//!
//! [`Inspectable`] walks through the keys of the server, or of each primary of a Cluster, with
//! `SCAN`, and reads of each record everything but its response. A whole key is read directly; a shorter prefix is a walk
//! through all names, without reading the other records. The server filters the names for a list; a count fetches those of
//! other keys too.
//!
//! - A page passes over the names of at most 10,000 keys of any kind, or `max_scan` if that is more.
//! - The order of a walk is that of the server's hash table. A record that is there throughout is not missed. While the
//!   table shrinks, as after many records have expired, a few may be shown twice.
//! - A cursor is valid while the same processes have the same slots. After a restart, a failover or a move of slots it is
//!   refused as [`InvalidCursor`](crate::store::StoreErrorKind::InvalidCursor): begin again. While a slot is being moved,
//!   and in a Cluster that does not serve all slots, a list is an error, since it could miss records.
//!
//! # Waking waiters
//!
//! A change of a record is published on a channel of its own, `idempotent:done:{` and the record's name and `}`, with
//! `SPUBLISH` from version 7 on and with `PUBLISH` before. A process subscribes to the channel of a record while a request
//! of it waits for that record. It makes a connection for it (in a Cluster, to each node with such a record), which ends
//! 30 seconds after the last request waited. So a message reaches the processes that need it and no others, and where
//! nobody waits a completion costs what it costs without push. [`push(false)`](RedisStoreBuilder::push) switches it off.
//!
//! Waiters poll as well, with pauses of at most half a second: a message that is lost costs that time.
//!
//! # Permissions
//!
//! With the prefix `idempotent:`, this user may do what the store needs and nothing else:
//!
//! ```text
//! ACL SETUSER app on >password ~idempotent:* resetchannels &idempotent:done:*
//!     +evalsha +eval +script|load +hmget +hset +hdel +del +exists +pexpire +pttl +time +publish
//!     +spublish +subscribe +unsubscribe +ssubscribe +sunsubscribe +ping +info +config|get
//! ```
//!
//! | in addition | for |
//! |---|---|
//! | `+select` | a database other than 0 |
//! | `+wait`, from Redis 7.2 on `+waitaof` | [`wait_replicas`](RedisStoreBuilder::wait_replicas) |
//! | `+cluster\|slots +asking` | a Cluster |
//! | `+scan +hstrlen` | listing |
//! | `+cluster\|nodes` | listing in a Cluster |
//! | `+role` | sentinels |
//!
//! Before version 7, leave `spublish`, `ssubscribe` and `sunsubscribe` out. Without the commands that publish or subscribe,
//! waiters poll; without `info` or `config|get` the durability is unknown and has to
//! be [accepted](RedisStoreBuilder::accept_unverified); without `script|load` each script is sent in full once.
//!
//! # Caveats
//!
//! - The number of attempts expires with its record: the next attempt starts at 1.
//! - Setting the server's clock forward shortens leases and ttls.
//!
//! # Example
//!
//! ```no_run
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use idempotent_runtime::{Idempotency, store::redis::RedisStore};
//!
//! let store = RedisStore::builder("redis://localhost").prefix("payments:").connect().await?;
//! let idempotency = Idempotency::builder().store(store).build()?;
//! # Ok(()) }
//! ```

use std::{fmt, sync::Arc, time::Duration};

use redis::Value;

use self::{
    confirm::Confirm,
    link::Link,
    names::Names,
    reply::{acquired_or_completed, acquisition, applied, stored_record},
    script::{Call, Scripts, write},
    wakeup::Listener,
};
use super::{
    Store,
    admin::Administrable,
    error::{StoreError, StoreErrorKind},
    inspect::Inspectable,
    label::EndpointLabel,
    record::{Acquisition, Claim, ClaimMode, Held, Outcome, Record, Write},
    steps::StepLog,
    token::Token,
    wake::Wake,
};
use crate::scope::StoreKey;

mod address;
mod admin;
mod builder;
mod check;
mod cluster;
mod confirm;
mod durability;
mod error;
#[cfg(test)]
mod fake;
mod identity;
mod info;
mod inspect;
mod link;
mod names;
mod nodes;
mod reply;
mod script;
mod server;
mod shared;
mod source;
mod steps;
mod topology;
mod wakeup;

pub use builder::RedisStoreBuilder;
pub use error::ConnectError;

const NAME: &str = "redis";

/// Keeps records in Redis or Valkey. See the [module documentation](self).
///
/// Clones share their connection.
#[derive(Clone)]
pub struct RedisStore(Arc<Shared>);

struct Shared {
    link: Link,
    scripts: Scripts,
    confirm: Option<Confirm>,
    names: Arc<Names>,
    /// `None` if push is off.
    listener: Option<Arc<Listener>>,
}

impl RedisStore {
    /// Opens the store with the default settings.
    ///
    /// # Errors
    ///
    /// As [`RedisStoreBuilder::connect`].
    pub async fn connect(url: impl Into<String>) -> Result<Self, ConnectError> {
        Self::builder(url).connect().await
    }

    /// The default settings.
    pub fn builder(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url)
    }

    /// Runs a script that may be executed twice.
    async fn run(&self, call: &Call<'_>) -> Result<Value, StoreError> {
        self.0
            .link
            .run(call, true)
            .await
            .map_err(error::store_error)
    }

    /// Runs a script that may be executed twice, and whose write replicas must confirm, if that is set.
    async fn confirmed(&self, call: &Call<'_>) -> Result<Value, StoreError> {
        match &self.0.confirm {
            Some(confirm) => confirm.run(call, applied, true).await,
            None => self.run(call).await,
        }
    }

    /// Runs the script for acquire. Not repeated here when its reply was lost: the caller has to know that a copy of it may
    /// still arrive (contract, rule 3).
    async fn claimed(&self, call: &Call<'_>) -> Result<Value, StoreError> {
        let answer = match &self.0.confirm {
            Some(confirm) => return confirm.run(call, acquired_or_completed, false).await,
            None => self.0.link.run(call, false).await,
        };
        answer.map_err(error::store_error)
    }

    /// Whether the claim holds the lease already. At its memory limit the server refuses an acquire before the script
    /// can tell whether it is a repetition. The owner of a lease must not be refused: the reply to its first acquire
    /// may have been lost. The server accepts renewals (version 7 and later).
    async fn held_already(&self, claim: &Claim) -> Result<Option<Acquisition>, StoreError> {
        // Confirmed like the acquire that it replaces.
        match self.renewed(&claim.held(), true).await {
            Ok(Write::Applied) => {}
            Ok(_) => return Ok(None),
            // The server accepts no renewals either: the error of the acquire stands.
            Err(error) if error.kind() == StoreErrorKind::Full => return Ok(None),
            Err(error) => return Err(error),
        }
        let record = self.get(&claim.key).await?;
        Ok(record.map(|record| Acquisition::Acquired {
            attempt: record.attempt,
        }))
    }

    /// Extends the lease. `confirm`: replicas must confirm it if that is set.
    async fn renewed(&self, held: &Held, confirm: bool) -> Result<Write, StoreError> {
        let record = self.record(&held.key);
        let arguments: [&[u8]; 3] = [
            held.token.as_bytes(),
            &millis(held.lease),
            &millis(held.lease.saturating_add(held.ttl)),
        ];
        let call = self.0.scripts.renew.call(&record, &arguments);
        let answer = if confirm {
            self.confirmed(&call).await?
        } else {
            self.run(&call).await?
        };
        write(&answer)
    }

    /// The name of the record's key.
    fn record(&self, key: &StoreKey) -> String {
        self.0.names.record(key)
    }

    /// How the scripts announce that a record has changed: the command, empty if they do not, and the channel's head.
    fn announcing(&self) -> [&[u8]; 2] {
        let listener = self.0.listener.as_ref();
        let command = listener.map_or("", |listener| listener.publish());
        [command.as_bytes(), self.0.names.channels().as_bytes()]
    }
}

impl Store for RedisStore {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        let record = self.record(&claim.key);
        let flag = |yes| if yes { &b"1"[..] } else { b"0" };
        let arguments: [&[u8]; 9] = [
            claim.token.as_bytes(),
            claim.fingerprint.as_bytes(),
            &millis(claim.lease),
            &millis(claim.lease.saturating_add(claim.ttl)),
            claim
                .take_over
                .as_ref()
                .map_or(&[], |lease| lease.as_bytes()),
            claim.trace_id.as_ref().map_or(&[], |id| id.as_bytes()),
            flag(self.0.confirm.is_some()),
            claim.endpoint.map_or("", EndpointLabel::as_str).as_bytes(),
            flag(claim.mode == ClaimMode::Transactional),
        ];
        let call = self.0.scripts.acquire.call(&record, &arguments);
        match self.claimed(&call).await {
            Ok(answer) => acquisition(answer),
            Err(error) if error.kind() == StoreErrorKind::Full => {
                self.held_already(claim).await?.ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.renewed(held, false).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        let record = self.record(&held.key);
        let (state, response): (&[u8], &[u8]) = match outcome {
            Outcome::Response(response) => (b"D", response.as_bytes()),
            Outcome::Tombstone => (b"T", b""),
        };
        let [publish, channels] = self.announcing();
        let arguments: [&[u8]; 6] = [
            held.token.as_bytes(),
            state,
            response,
            &millis(held.ttl),
            publish,
            channels,
        ];
        let call = self.0.scripts.complete.call(&record, &arguments);
        write(&self.confirmed(&call).await?)
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let record = self.record(key);
        let [publish, channels] = self.announcing();
        let arguments: [&[u8]; 3] = [token.as_bytes(), publish, channels];
        let call = self.0.scripts.release.call(&record, &arguments);
        // Not repeated here: the second answer to a release differs from the first.
        write(
            &self
                .0
                .link
                .run(&call, false)
                .await
                .map_err(error::store_error)?,
        )
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let record = self.record(key);
        let [publish, channels] = self.announcing();
        let arguments: [&[u8]; 3] = [token.as_bytes(), publish, channels];
        write(
            &self
                .run(&self.0.scripts.abandon.call(&record, &arguments))
                .await?,
        )
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let record = self.record(key);
        stored_record(self.run(&self.0.scripts.get.call(&record, &[b""])).await?)
    }

    /// Does nothing: the server itself removes expired keys.
    async fn purge_expired(&self, _limit: usize) -> Result<usize, StoreError> {
        Ok(0)
    }

    fn attach(&self, wake: Wake) {
        if let Some(listener) = &self.0.listener {
            listener.attach(wake);
        }
    }

    fn step_log(&self) -> Option<&dyn StepLog> {
        Some(self)
    }

    fn administrable(&self) -> Option<&dyn Administrable> {
        Some(self)
    }

    fn inspectable(&self) -> Option<&dyn Inspectable> {
        Some(self)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.stop();
        }
    }
}

/// Milliseconds in digits. Rounded up, so that no time is shorter than requested, and none is zero, which would delete
/// the key; bounded by what the server can add to its clock.
fn millis(duration: Duration) -> Vec<u8> {
    const MAX: u128 = 1 << 50;
    let millis = duration.as_nanos().div_ceil(1_000_000);
    millis.clamp(1, MAX).to_string().into_bytes()
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.0.names.prefix())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_up_and_bounded() {
        for (nanos, expected) in [(0, "1"), (1, "1"), (1_000_000, "1"), (1_000_001, "2")] {
            assert_eq!(millis(Duration::from_nanos(nanos)), expected.as_bytes());
        }
        assert_eq!(millis(Duration::MAX), b"1125899906842624");
    }
}
