//! Errors: why a store could not be opened, and what an error of an operation means.

use std::{error::Error, fmt};

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::NAME;
use crate::store::{
    error::{StoreError, StoreErrorKind},
    weakness::{FoundWeakness, write_found},
};

/// Why a [`RedisStore`](super::RedisStore) could not be opened.
///
/// No message contains the URL, which may contain a password.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be used.
    Url {
        /// Why, and the expected form.
        reason: &'static str,
        /// The parser's error, if it has one.
        source: Option<RedisError>,
    },
    /// The URL asks for TLS, and the crate was built without the feature `redis-tls`.
    NoTls,
    /// The key prefix is empty, too long or contains characters that are not allowed.
    Prefix {
        /// The prefix.
        prefix: String,
    },
    /// The server did not answer.
    Unreachable {
        /// Why.
        source: RedisError,
    },
    /// For five seconds, primaries of the Cluster did not answer or reported that they are replicas, and no others took
    /// over. So it is unknown whether they keep acknowledged writes. With
    /// [`accept_unverified`](super::RedisStoreBuilder::accept_unverified) the store is opened as long
    /// as the Cluster serves other slots.
    UnreachablePrimaries {
        /// Host and port of each, as the Cluster announces them, separated by `, `.
        nodes: String,
        /// The error of the first.
        source: RedisError,
    },
    /// For five seconds, no node of the Cluster reported which node owns these slots, or the address of that node. So
    /// it is unknown whether it keeps acknowledged writes. With
    /// [`accept_unverified`](super::RedisStoreBuilder::accept_unverified) the store is opened as long as
    /// the Cluster serves other slots.
    Uncovered {
        /// The slots, in the form `0-5460, 9999`.
        slots: String,
    },
    /// The server refuses the user name or the password.
    Authentication {
        /// The server's error.
        source: RedisError,
    },
    /// The user may not run a command that the store needs.
    NotPermitted {
        /// The command.
        command: &'static str,
        /// The server's error.
        source: RedisError,
    },
    /// The server may lose acknowledged writes.
    Weak {
        /// All weaknesses that were found and not [accepted](super::RedisStoreBuilder::accept).
        found: Vec<FoundWeakness>,
    },
    /// The user may not run a command that checks whether the server keeps acknowledged writes.
    Unverified {
        /// The command.
        command: &'static str,
        /// The server's error.
        source: RedisError,
    },
    /// The server is too old for the scripts.
    TooOld {
        /// Its version.
        version: String,
    },
    /// The server is a replica: writes go to its primary.
    Replica,
    /// The server is part of a Cluster, and the URL is for a single server.
    PartOfCluster,
    /// The server is not part of a Cluster, and the URL is for a Cluster.
    NotCluster,
    /// [`wait_replicas`](super::RedisStoreBuilder::wait_replicas) is not possible here.
    Wait {
        /// Why.
        reason: &'static str,
    },
}

impl ConnectError {
    /// The error for a command that failed while the store was opened.
    pub(super) fn of(command: &'static str, source: RedisError) -> Self {
        match source.kind() {
            ErrorKind::AuthenticationFailed => Self::Authentication { source },
            ErrorKind::InvalidClientConfig => Self::Url {
                reason: "the client library does not accept it",
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

/// Whether the command is not available to the user: by the ACL, or because it was renamed or removed.
pub(super) fn denied(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) || says(error, "unknown command")
}

/// The more specific of two errors: one that a server sent rather than one of the connection.
pub(super) fn more_specific(before: Option<RedisError>, next: RedisError) -> RedisError {
    before.filter(|error| !error.is_io_error()).unwrap_or(next)
}

fn says(error: &RedisError, words: &str) -> bool {
    error.detail().is_some_and(|detail| detail.contains(words))
}

/// The error code of a replica.
pub(super) const READONLY: &str = "READONLY";

/// The error's code. Before version 7 the error of a script wraps that of its command: then it is the command's code.
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

/// The [`StoreError`] for an error of an operation.
pub(super) fn store_error(error: RedisError) -> StoreError {
    let kind = match (error.kind(), code(&error)) {
        (_, Some("OOM")) => StoreErrorKind::Full,
        (_, Some("WRONGTYPE")) => StoreErrorKind::Corrupt,
        // The last two are what a new connection gets while passwords rotate: they pass.
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
        // Errors of the connection, and of servers that are loading, moving, failing over or unable to write.
        _ => StoreErrorKind::Unavailable,
    };
    StoreError::new(NAME, kind).with_source(error)
}

impl ConnectError {
    /// Whether a server is not there yet: nobody listens, or it is loading its data.
    pub(in crate::store) fn is_of_a_server_that_starts(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::UnreachablePrimaries { .. }
            | Self::Uncovered { .. } => true,
            other => other
                .source()
                .and_then(|source| source.downcast_ref::<RedisError>())
                .is_some_and(|error| {
                    error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading)
                }),
        }
    }
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
                "{prefix:?} is not a valid key prefix: use 1 to 64 ASCII letters, digits and `:` `-` `_` `.` `/`"
            ),
            Self::Unreachable { .. } => f.write_str(
                "the Redis server did not answer: check the host and port of the URL, and that the server is available \
                 there",
            ),
            Self::UnreachablePrimaries { nodes, .. } => write!(
                f,
                "primaries of the Redis Cluster cannot be reached, so it is unknown whether they keep acknowledged \
                 writes: restart them or fail over, or choose `accept_unverified()`: {nodes}"
            ),
            Self::Uncovered { slots } => write!(
                f,
                "no node of the Redis Cluster reports the owner of the slots {slots}, or its address: check the answer \
                 to CLUSTER SLOTS (a host `?` means that `cluster-announce-hostname` is missing), or choose \
                 `accept_unverified()`"
            ),
            Self::Authentication { .. } => {
                f.write_str("the Redis server refuses the user name or the password")
            }
            Self::NotPermitted { command, .. } => {
                write!(f, "the Redis user may not run {command}: permit it by its ACL")
            }
            Self::Weak { found } => write_found("Redis", found, f),
            Self::Unverified { command, .. } => write!(
                f,
                "the Redis user may not run {command}, so it is unknown whether the server keeps acknowledged writes: \
                 permit it by its ACL, or choose `accept_unverified()`"
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
                f.write_str("the Redis server is not part of a Cluster: use a redis:// URL")
            }
            Self::Wait { reason } => write!(f, "`wait_replicas` is not possible: {reason}"),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreachable { source }
            | Self::UnreachablePrimaries { source, .. }
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

/// The error, or the one that it wraps and repeats word for word, so that a chain of errors prints no text twice.
fn cause(error: &RedisError) -> &(dyn Error + 'static) {
    match error.source() {
        Some(inner) if error.to_string().contains(&inner.to_string()) => inner,
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client's error for this line of a server.
    fn parsed(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        value
            .and_then(redis::Value::extract_error)
            .expect_err("an error")
    }

    #[test]
    fn the_error_of_a_command_is_found_in_that_of_its_script() {
        let wrapped = |rest: &str| {
            parsed(&format!(
                "ERR Error running script (call to f_d0a1b2): @user_script:17: {rest}"
            ))
        };
        let readonly = "READONLY You can't write against a read only replica.";
        for (error, expected) in [
            (parsed(readonly), StoreErrorKind::Unavailable),
            (
                parsed("WRONGPASS invalid username-password pair or user is disabled."),
                StoreErrorKind::Unavailable,
            ),
            (
                parsed("NOPERM this user has no permissions to run the 'evalsha' command"),
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
    fn a_replica_is_recognised_by_its_code() {
        let readonly = "READONLY You can't write against a read only replica.";
        let script = format!(
            "ERR Error running script (call to f_d0): @user_script:1: @user_script: 1: -{readonly}"
        );
        assert_eq!(code(&parsed(readonly)), Some(READONLY));
        assert_eq!(code(&parsed(&script)), Some(READONLY));
        assert_eq!(code(&parsed("ERR unknown command")), Some("ERR"));
    }
}
