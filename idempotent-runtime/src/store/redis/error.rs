//! What can go wrong, at start and later.

use std::{error::Error, fmt};

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::NAME;
use crate::store::error::{StoreError, StoreErrorKind};

/// Why a [`RedisStore`](super::RedisStore) could not be opened.
///
/// No message contains the URL, which may contain a password.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be understood.
    Url {
        /// What is wrong with it.
        reason: &'static str,
        /// What the parser said, if it was asked.
        source: Option<RedisError>,
    },
    /// The URL asks for TLS, and the crate was built without the feature `redis-tls`.
    NoTls,
    /// The key prefix is empty, too long or has characters that keys should not have.
    Prefix {
        /// What was given.
        prefix: String,
    },
    /// The server did not answer.
    Unreachable {
        /// Why.
        source: RedisError,
    },
    /// Primaries of the Cluster did not answer for five seconds, or said that they are replicas, and no others took
    /// their place, so nobody knows whether they keep what they acknowledge. With
    /// [`accept_weaker_durability`](super::RedisStoreBuilder::accept_weaker_durability) the store is opened as long
    /// as the Cluster serves other slots.
    SilentNode {
        /// Host and port of each, as the Cluster tells them, with `, ` between them.
        node: String,
        /// Why the first of them could not be asked.
        source: RedisError,
    },
    /// For five seconds no node of the Cluster said who has these slots, or where that node is, so nobody knows
    /// whether it keeps what it acknowledges. With
    /// [`accept_weaker_durability`](super::RedisStoreBuilder::accept_weaker_durability) the store is opened as long
    /// as the Cluster serves other slots.
    Uncovered {
        /// The slots, as in `0-5460, 9999`.
        slots: String,
    },
    /// The server refuses the user name or the password.
    Authentication {
        /// What it said.
        source: RedisError,
    },
    /// The server does not permit a command that the store cannot do without.
    NotPermitted {
        /// Which one.
        command: &'static str,
        /// What it said.
        source: RedisError,
    },
    /// The server is no place for claims that must not be lost.
    Weak {
        /// Everything that was found.
        weaknesses: Vec<Weakness>,
    },
    /// The server does not permit to look whether it is such a place.
    Unverified {
        /// The command that it refused.
        command: &'static str,
        /// What it said.
        source: RedisError,
    },
    /// The server is older than what the scripts need.
    TooOld {
        /// Its version.
        version: String,
    },
    /// The server is a replica: writes go to its primary.
    Replica,
    /// The server is part of a Cluster, and the URL is one for a single server.
    PartOfCluster,
    /// The server is part of no Cluster, and the URL is one for a Cluster.
    NotCluster,
    /// [`wait_replicas`](super::RedisStoreBuilder::wait_replicas) cannot be had.
    Wait {
        /// Why.
        reason: &'static str,
    },
}

/// What makes a server lose claims or outcomes that it acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Weakness {
    /// No append-only file: whatever was written since the last snapshot is lost with the process.
    NoAppendOnlyFile,
    /// The append-only file is written, but its data is never flushed to the disk by the server.
    NeverFlushed,
    /// The append-only file is not flushed while the server rewrites it or saves a snapshot, which may take minutes.
    NotFlushedInRewrites,
    /// At its memory limit the server drops records, in flight or not.
    Evicts {
        /// Its `maxmemory-policy`.
        policy: String,
    },
}

impl ConnectError {
    /// The error for a command that failed while the store was opened.
    pub(super) fn of(command: &'static str, source: RedisError) -> Self {
        match source.kind() {
            ErrorKind::AuthenticationFailed => Self::Authentication { source },
            ErrorKind::InvalidClientConfig => Self::Url {
                reason: "the client refuses it",
                source: Some(source),
            },
            ErrorKind::Server(ServerErrorKind::NoPerm) => Self::NotPermitted { command, source },
            _ => match source.code() {
                Some("NOAUTH" | "WRONGPASS") => Self::Authentication { source },
                _ if denied(&source) => Self::NotPermitted { command, source },
                _ if says(&source, "cluster support disabled") => Self::NotCluster,
                _ => Self::Unreachable { source },
            },
        }
    }
}

/// Whether the server does not let us: by its ACL, or because the command was renamed or removed.
pub(super) fn denied(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) || says(error, "unknown command")
}

/// The one of two errors that tells more: what somebody said, rather than that somebody else was silent.
pub(super) fn telling(before: Option<RedisError>, next: RedisError) -> RedisError {
    before.filter(|error| !error.is_io_error()).unwrap_or(next)
}

fn says(error: &RedisError, words: &str) -> bool {
    error.detail().is_some_and(|detail| detail.contains(words))
}

/// The code of a server that is a replica.
pub(super) const READONLY: &str = "READONLY";

/// The error's code. Before version 7 the error of a script wraps the one of its command: then it is the command's.
pub(super) fn code(error: &RedisError) -> Option<&str> {
    let wrapped = || {
        let detail = error.detail()?;
        detail.split(": ").skip(1).find_map(|part| {
            let word = part.split(' ').next()?;
            let word = word.strip_prefix('-').unwrap_or(word);
            let is_code = word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase());
            is_code.then_some(word)
        })
    };
    let own = error.code();
    if error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError) {
        wrapped().or(own)
    } else {
        own
    }
}

/// The error of an operation.
pub(super) fn store_error(error: RedisError) -> StoreError {
    let kind = match (error.kind(), code(&error)) {
        (_, Some("OOM")) => StoreErrorKind::Full,
        (_, Some("WRONGTYPE")) => StoreErrorKind::Corrupt,
        // The last two are what a new connection meets while passwords rotate: it passes.
        (
            _,
            Some(
                READONLY | "MISCONF" | "NOREPLICAS" | "MASTERDOWN" | "LOADING" | "NOAUTH"
                | "WRONGPASS",
            ),
        )
        | (ErrorKind::AuthenticationFailed, _) => StoreErrorKind::Unavailable,
        (
            ErrorKind::InvalidClientConfig
            | ErrorKind::Server(
                ServerErrorKind::NoPerm
                | ServerErrorKind::ResponseError
                | ServerErrorKind::CrossSlot,
            ),
            _,
        ) => StoreErrorKind::Refused,
        // Everything about the way there, and servers that load, move, fail over or cannot write.
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(NAME, kind).with_source(error)
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { reason, .. } => write!(f, "the Redis URL cannot be used: {reason}"),
            Self::NoTls => f.write_str(
                "the Redis URL asks for TLS: build idempotent-runtime with the feature `redis-tls`",
            ),
            Self::Prefix { prefix } => write!(
                f,
                "{prefix:?} cannot begin a key: use 1 to 64 of letters, digits and `:` `-` `_` `.` `/`"
            ),
            Self::Unreachable { .. } => f.write_str(
                "the Redis server did not answer: check the host and port of the URL, and that it answers there",
            ),
            Self::SilentNode { node, .. } => write!(
                f,
                "primaries of the Redis Cluster cannot be asked, so nobody knows whether they keep what they \
                 acknowledge: bring them back or fail over, or choose `accept_weaker_durability()`: {node}"
            ),
            Self::Uncovered { slots } => write!(
                f,
                "no node of the Redis Cluster says who has the slots {slots}, or where that node is: see its answer to \
                 CLUSTER SLOTS (a host `?` means that `cluster-announce-hostname` is missing), or choose \
                 `accept_weaker_durability()`"
            ),
            Self::Authentication { .. } => {
                f.write_str("the Redis server refuses the user name or the password")
            }
            Self::NotPermitted { command, .. } => {
                write!(f, "the Redis server does not permit {command} to this user")
            }
            Self::Weak { weaknesses } => {
                f.write_str("this Redis server can lose keys that it acknowledged: ")?;
                for weakness in weaknesses {
                    write!(f, "{weakness}; ")?;
                }
                f.write_str("or choose `accept_weaker_durability()`")
            }
            Self::Unverified { command, .. } => write!(
                f,
                "the Redis server does not permit {command}, so nobody knows whether it keeps what it \
                 acknowledges: permit it, or choose `accept_weaker_durability()`"
            ),
            Self::TooOld { version } => {
                write!(
                    f,
                    "the Redis server has version {version}: use 6.0 or later"
                )
            }
            Self::Replica => {
                f.write_str("the Redis server is a replica: give the address of its primary")
            }
            Self::PartOfCluster => {
                f.write_str("the Redis server is part of a Cluster: use a redis+cluster:// URL")
            }
            Self::NotCluster => {
                f.write_str("the Redis server is part of no Cluster: use a redis:// URL")
            }
            Self::Wait { reason } => write!(f, "`wait_replicas` cannot be had: {reason}"),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreachable { source }
            | Self::SilentNode { source, .. }
            | Self::Authentication { source }
            | Self::NotPermitted { source, .. }
            | Self::Unverified { source, .. }
            | Self::Url {
                source: Some(source),
                ..
            } => Some(cause(source)),
            _ => None,
        }
    }
}

/// The error, or what it wraps and repeats word for word: nobody is to read the same twice.
fn cause(error: &RedisError) -> &(dyn Error + 'static) {
    match error.source() {
        Some(inner) if error.to_string().contains(&inner.to_string()) => inner,
        _ => error,
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAppendOnlyFile => {
                f.write_str("it has no append-only file (set `appendonly yes`)")
            }
            Self::NeverFlushed => {
                f.write_str("it never flushes (set `appendfsync everysec` or `always`)")
            }
            Self::NotFlushedInRewrites => f.write_str(
                "it does not flush while it rewrites its file (set `no-appendfsync-on-rewrite no`)",
            ),
            Self::Evicts { policy } => write!(
                f,
                "it evicts by {policy} at its memory limit (set `maxmemory-policy noeviction`)"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client makes of this line.
    fn said(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        value
            .and_then(redis::Value::extract_error)
            .expect_err("an error")
    }

    #[test]
    fn the_error_of_a_command_is_seen_through_the_one_of_its_script() {
        let wrapped = |rest: &str| {
            said(&format!(
                "ERR Error running script (call to f_d0a1b2): @user_script:17: {rest}"
            ))
        };
        let readonly = "READONLY You can't write against a read only replica.";
        for (error, expected) in [
            (said(readonly), StoreErrorKind::Unavailable),
            (
                said("WRONGPASS invalid username-password pair or user is disabled."),
                StoreErrorKind::Unavailable,
            ),
            (
                said("NOPERM this user has no permissions to run the 'evalsha' command"),
                StoreErrorKind::Refused,
            ),
            (
                wrapped(&format!("@user_script: 17: -{readonly}")),
                StoreErrorKind::Unavailable,
            ),
            (
                wrapped("@user_script: 17: -MISCONF Errors writing to the AOF file: No space left"),
                StoreErrorKind::Unavailable,
            ),
            (
                wrapped("@user_script: 17: -NOREPLICAS Not enough good replicas to write."),
                StoreErrorKind::Unavailable,
            ),
            (
                wrapped("-OOM command not allowed when used memory > 'maxmemory'."),
                StoreErrorKind::Full,
            ),
            (
                wrapped("WRONGTYPE Operation against a key holding the wrong kind of value"),
                StoreErrorKind::Corrupt,
            ),
            (
                wrapped("attempt to compare nil with number"),
                StoreErrorKind::Refused,
            ),
        ] {
            let shown = error.to_string();
            assert_eq!(store_error(error).kind(), expected, "{shown}");
        }
    }

    #[test]
    fn a_replica_is_known_by_its_code() {
        let readonly = "READONLY You can't write against a read only replica.";
        let script = format!(
            "ERR Error running script (call to f_d0): @user_script:1: @user_script: 1: -{readonly}"
        );
        assert_eq!(code(&said(readonly)), Some(READONLY));
        assert_eq!(code(&said(&script)), Some(READONLY));
        assert_eq!(code(&said("ERR unknown command")), Some("ERR"));
    }
}
