//! [`RedisStore`]: records in Redis or Valkey, shared by all processes of a service.
//!
//! # The rules
//!
//! 1. A record is one key, a hash, so it works in a Cluster, and each operation is one script on it: one round
//!    trip, decided atomically where the record is. A first execution costs two, a replay one.
//! 2. The clock is the server's (`TIME`). The key's own expiry is the record's; there is nothing to purge.
//! 3. A key lives at least as long as its lease: acquire and renew set both in one step.
//! 4. Completions, releases and abandoned leases are published, so that who waits in another process looks
//!    at once. One connection per store listens.
//! 5. An operation that meets a broken connection is sent once more over a new one, where sending it twice is
//!    harmless; the server does the rest by token.
//!
//! # What survives what
//!
//! | the server | keeps what it acknowledged |
//! |---|---|
//! | killed, or its machine crashed, `appendfsync always` | yes |
//! | killed, `appendfsync everysec` | yes, as long as its disk keeps up: while a flush takes long, up to two seconds of writes are acknowledged from the server's own memory |
//! | its machine crashed, `appendfsync everysec` | all but the last second, or two while its disk is slow |
//! | failed over to a replica | what had been replicated; more with [`wait_replicas`](RedisStoreBuilder::wait_replicas) |
//! | killed or crashed, snapshots only | no: refused at start |
//! | at its memory limit, `noeviction` | yes: new keys are refused, running executions complete (from version 7 on) |
//! | at its memory limit, any other policy | no: refused at start |
//!
//! [`connect`](RedisStoreBuilder::connect) asks the server, or each primary of a Cluster (`INFO`, `CONFIG GET` of
//! `appendfsync` and `no-appendfsync-on-rewrite`), and refuses those that lose keys, unless told to
//! [accept that](RedisStoreBuilder::accept_weaker_durability). A primary of a Cluster that does not answer, or
//! slots whose primary no node names, are asked for again for five seconds, in which a failover is normally done and the
//! new primary asked instead; then the error names them, or, if weaker durability is accepted, a warning does, and the
//! store is opened as long as the Cluster serves other slots. All this is asked once: a server that is configured anew,
//! or a replica that takes over later, is the operator's to watch.
//!
//! `appendfsync everysec`, which is what a server with an append-only file has unless told otherwise, is accepted.
//! With it up to one second of acknowledged claims and outcomes, two under a slow disk, is lost when the machine
//! loses power, and the requests in it execute a second time when they are retried. Where that is too much, as it
//! is where each of them moves money and nothing behind it knows the key, set `appendfsync always`.
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
//! `valkey` may be written for `redis`, and `rediss` for TLS (feature `redis-tls`). Certificates are checked
//! against those of the system; the environment variable `SSL_CERT_FILE` names others, as of an authority of
//! one's own. The certificate of a Cluster's node, or of a primary behind sentinels, has to be valid for the host that
//! the nodes and sentinels tell, which is an IP address unless they were told to announce a name
//! (`cluster-announce-hostname` with `cluster-preferred-endpoint-type hostname`; `sentinel announce-hostnames yes`).
//!
//! All sentinels are asked at once, and the server is believed that more than half of those in the URL name, if it says
//! itself that it is the primary. As long as it is named by fewer, others are waited for 300 ms after each answer; then
//! the one that most name is believed, and of several the one that the first sentinel in the URL names. So name all
//! sentinels, at least three, in the same order in all processes: one alone may be cut off together with a former
//! primary.
//!
//! The nodes of a Cluster need not be named all: the others are learnt from them, and again when one fails, and about
//! once a minute while the store is in use. Nodes of which none was known are those of another Cluster, and are not
//! believed: a service whose Cluster is replaced as a whole has to open its store anew.
//!
//! # Records
//!
//! `idempotent:` and the store key in hexadecimal, with the fields `s` state (`R` running, `D` completed, `T`
//! tombstone), `f` fingerprint, `t` token, `a` attempt, `l` end of the lease in milliseconds, `i` trace id and
//! `r` response, all bytes as they are. The channel is `idempotent:done`; messages are store keys.
//!
//! # Permissions
//!
//! With the prefix `idempotent:`, this user may do all that the store does, and nothing else:
//!
//! ```text
//! ACL SETUSER app on >password ~idempotent:* resetchannels &idempotent:done
//!     +evalsha +eval +script|load +hmget +hset +hdel +del +exists +pexpire +pttl +time +publish
//!     +subscribe +ping +info +config|get
//! ```
//!
//! | besides | for |
//! |---|---|
//! | `+select` | a database other than 0 |
//! | `+wait`, from Redis 7.2 on `+waitaof` | [`wait_replicas`](RedisStoreBuilder::wait_replicas) |
//! | `+cluster\|slots +asking` | a Cluster |
//! | `+role` | sentinels |
//!
//! Without `publish` or `subscribe` waiters poll; without `info` or `config|get` the store has to be told to
//! [accept](RedisStoreBuilder::accept_weaker_durability) what it cannot see; without `script|load` each script is
//! sent in full once.
//!
//! # Caveats
//!
//! - A key that has expired is gone, and with it the number of its attempts: the next one starts at 1.
//! - A server whose clock is set forward shortens leases and retention by as much.
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

use std::{
    fmt::{self, Write as _},
    sync::{Arc, OnceLock},
    time::Duration,
};

use redis::Value;
use tokio::{runtime::Handle, task::AbortHandle};

use self::{
    confirm::Confirm,
    link::Link,
    script::{Call, Reply, Scripts, unreadable, write},
    wakeup::Wakes,
};
use super::{
    Store,
    error::{StoreError, StoreErrorKind},
    record::{Acquisition, Claim, Held, Outcome, Record, RecordState, Write},
    token::{Token, TraceId},
    wake::Wake,
};
use crate::{fingerprint::Fingerprint, response::StoredResponse, scope::StoreKey};

mod address;
mod builder;
mod check;
mod cluster;
mod confirm;
mod error;
#[cfg(test)]
mod fake;
mod link;
mod script;
mod server;
mod slots;
mod source;
mod wakeup;

pub use builder::RedisStoreBuilder;
pub use error::{ConnectError, Weakness};

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
    prefix: String,
    channel: String,
    wakes: Arc<Wakes>,
    /// Listens from the first engine on.
    listener: OnceLock<AbortHandle>,
    runtime: Handle,
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

    /// Starts from the default settings.
    pub fn builder(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder::new(url)
    }

    /// Runs a script that may arrive twice.
    async fn run(&self, call: &Call<'_>) -> Result<Value, StoreError> {
        self.0
            .link
            .run(call, true)
            .await
            .map_err(error::store_error)
    }

    /// Runs a script whose effect must be where the operator wants it before it counts.
    async fn confirmed(
        &self,
        call: &Call<'_>,
        matters: fn(&Value) -> bool,
    ) -> Result<Value, StoreError> {
        match &self.0.confirm {
            Some(confirm) => confirm.run(call, matters).await,
            None => self.run(call).await,
        }
    }

    /// At its memory limit the server refuses an acquire before it knows whether it is a repetition, and whoever
    /// holds a lease must not be refused: the reply to the first may have been lost. Renewals it takes (from
    /// version 7 on).
    async fn held_already(&self, claim: &Claim) -> Result<Option<Acquisition>, StoreError> {
        // Confirmed like the acquire whose place it takes.
        match self.renewed(&claim.held(), true).await {
            Ok(Write::Applied) => {}
            Ok(_) => return Ok(None),
            // A server that takes no renewals now is as full as it said.
            Err(error) if error.kind() == StoreErrorKind::Full => return Ok(None),
            Err(error) => return Err(error),
        }
        let record = self.get(&claim.key).await?;
        Ok(record.map(|record| Acquisition::Acquired {
            attempt: record.attempt,
        }))
    }

    /// Extends the lease. `confirm`: the caller has nothing else that tells of it.
    async fn renewed(&self, held: &Held, confirm: bool) -> Result<Write, StoreError> {
        let record = self.record(&held.key);
        let arguments: [&[u8]; 3] = [
            held.token.as_bytes(),
            &millis(held.lease),
            &millis(held.lease.saturating_add(held.ttl)),
        ];
        let call = self.0.scripts.renew.call(&record, &arguments);
        let answer = if confirm {
            self.confirmed(&call, applied).await?
        } else {
            self.run(&call).await?
        };
        write(&answer)
    }

    /// The name of the record's key.
    fn record(&self, key: &StoreKey) -> String {
        let mut name = String::with_capacity(self.0.prefix.len() + 64);
        name.push_str(&self.0.prefix);
        for byte in key.as_bytes() {
            // Writing to a string does not fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }
}

impl Store for RedisStore {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        let record = self.record(&claim.key);
        let flag = |yes| if yes { &b"1"[..] } else { b"0" };
        let arguments: [&[u8]; 7] = [
            claim.token.as_bytes(),
            claim.fingerprint.as_bytes(),
            &millis(claim.lease),
            &millis(claim.lease.saturating_add(claim.ttl)),
            flag(claim.take_over),
            claim.trace_id.as_ref().map_or(&[], |id| id.as_bytes()),
            flag(self.0.confirm.is_some()),
        ];
        let call = self.0.scripts.acquire.call(&record, &arguments);
        match self.confirmed(&call, tells_of_a_write).await {
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
        let arguments: [&[u8]; 6] = [
            held.token.as_bytes(),
            state,
            response,
            &millis(held.ttl),
            self.0.channel.as_bytes(),
            held.key.as_bytes(),
        ];
        let call = self.0.scripts.complete.call(&record, &arguments);
        write(&self.confirmed(&call, applied).await?)
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        let record = self.record(key);
        let arguments: [&[u8]; 3] = [token.as_bytes(), self.0.channel.as_bytes(), key.as_bytes()];
        let call = self.0.scripts.release.call(&record, &arguments);
        // Not repeated here: the second answer to a release is another one than the first.
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
        let arguments: [&[u8]; 3] = [token.as_bytes(), self.0.channel.as_bytes(), key.as_bytes()];
        write(
            &self
                .run(&self.0.scripts.abandon.call(&record, &arguments))
                .await?,
        )
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        let record = self.record(key);
        shown(self.run(&self.0.scripts.get.call(&record, &[])).await?)
    }

    /// Nothing to do: the server removes what expired, and nothing before.
    async fn purge_expired(&self, _limit: usize) -> Result<usize, StoreError> {
        Ok(0)
    }

    fn attach(&self, wake: Wake) {
        let shared = &self.0;
        shared.wakes.attach(wake);
        shared.listener.get_or_init(|| {
            let (link, wakes) = (shared.link.clone(), Arc::clone(&shared.wakes));
            let listen = wakeup::listen(link, shared.channel.clone(), wakes);
            shared.runtime.spawn(listen).abort_handle()
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get() {
            listener.abort();
        }
    }
}

/// Whether a script wrote.
fn applied(answer: &Value) -> bool {
    *answer == Value::Int(1)
}

/// Whether the script for acquire took the lease, or shows an outcome that a failover must not undo. Who is told
/// to come back may be told so by one server.
fn tells_of_a_write(answer: &Value) -> bool {
    let code = match answer {
        Value::Array(reply) => reply.first(),
        _ => None,
    };
    !matches!(code, Some(Value::Int(1 | 2 | 5)))
}

/// What the script for acquire answered.
fn acquisition(value: Value) -> Result<Acquisition, StoreError> {
    let mut reply = Reply::new(value)?;
    Ok(match reply.number::<i64>("no answer")? {
        0 => Acquisition::Acquired {
            attempt: reply.number("the attempt is no number")?,
        },
        1 => Acquisition::Mismatch,
        2 => Acquisition::InFlight {
            remaining: Duration::from_millis(reply.number("the lease is no time")?),
        },
        3 => Acquisition::Completed(response(reply.bytes())?),
        4 => Acquisition::Completed(Outcome::Tombstone),
        5 => Acquisition::Unknown,
        _ => return Err(unreadable("its fields make no record")),
    })
}

/// What the script for get answered.
fn shown(value: Value) -> Result<Option<Record>, StoreError> {
    let mut reply = Reply::new(value)?;
    if reply.is_empty() {
        return Ok(None);
    }
    let state = reply.bytes();
    let fingerprint = reply.bytes().and_then(|bytes| bytes[..].try_into().ok());
    let fingerprint = fingerprint.ok_or_else(|| unreadable("it has no fingerprint"))?;
    let attempt = reply.number("it has no attempt")?;
    let lease = reply.number("").ok().map(Duration::from_millis);
    // Somebody may have made the key permanent.
    let left: i64 = reply.number("it has no expiry")?;
    let expires_in = u64::try_from(left).map_or(Duration::MAX, Duration::from_millis);
    let trace_id = reply.bytes().and_then(|bytes| bytes[..].try_into().ok());
    let state = match (state.as_deref(), lease) {
        (Some(b"R"), Some(remaining)) => RecordState::InFlight { remaining },
        (Some(b"D"), _) => RecordState::Completed(response(reply.bytes())?),
        (Some(b"T"), _) => RecordState::Completed(Outcome::Tombstone),
        _ => return Err(unreadable("its state is none of ours")),
    };
    let fingerprint = Fingerprint::from_bytes(fingerprint);
    let trace_id = trace_id.and_then(TraceId::from_bytes);
    Ok(Some(Record::new(
        fingerprint,
        attempt,
        state,
        expires_in,
        trace_id,
    )))
}

fn response(stored: Option<bytes::Bytes>) -> Result<Outcome, StoreError> {
    let stored = stored.ok_or_else(|| unreadable("it has no response"))?;
    StoredResponse::from_bytes(stored)
        .map(Outcome::Response)
        .map_err(unreadable)
}

/// Milliseconds in digits. Rounded up, so that nothing is shorter than asked for, and no time is zero, at which
/// a key would be deleted; bounded by what the server can add to its clock.
fn millis(duration: Duration) -> Vec<u8> {
    const MOST: u128 = 1 << 50;
    let millis = duration.as_nanos().div_ceil(1_000_000);
    millis.clamp(1, MOST).to_string().into_bytes()
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.0.prefix)
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

    #[test]
    fn replies_that_make_no_sense_are_corrupt_records() {
        let text = |text: &[u8]| Value::BulkString(text.to_vec());
        for value in [
            Value::Nil,
            Value::Int(0),
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(0)]),
            Value::Array(vec![Value::Int(0), Value::Int(-1)]),
            Value::Array(vec![Value::Int(0), Value::Int(i64::MAX)]),
            Value::Array(vec![Value::Int(2), Value::Int(-1)]),
            Value::Array(vec![Value::Int(3), Value::Nil]),
            Value::Array(vec![Value::Int(3), text(b"\xff")]),
            Value::Array(vec![Value::Int(-1)]),
            Value::Array(vec![Value::Int(6)]),
        ] {
            let error = acquisition(value.clone()).expect_err("no acquisition");
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{value:?}");
        }
        for value in [
            vec![Value::Nil],
            vec![text(b"R"), text(b"short")],
            vec![
                text(b"R"),
                text(&[1; 32]),
                Value::Int(1),
                Value::Nil,
                Value::Int(5),
            ],
            vec![
                text(b"D"),
                text(&[1; 32]),
                Value::Int(1),
                Value::Nil,
                Value::Int(5),
            ],
            vec![
                text(b"X"),
                text(&[1; 32]),
                Value::Int(1),
                Value::Int(1),
                Value::Int(5),
            ],
        ] {
            let error = shown(Value::Array(value.clone())).expect_err("no record");
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{value:?}");
        }
    }
}
