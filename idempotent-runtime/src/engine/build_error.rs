//! Why an engine cannot be built.

use std::{error::Error, fmt, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};

/// Settings that cannot work together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// No store was given, and the crate was built without the `memory` feature.
    NoStore,
    /// Routes commit their records with their rows, and the store has no transactions for that.
    NoTransactions {
        /// The name of the store.
        store: &'static str,
    },
    /// The secret has fewer than 16 bytes, which can be guessed.
    ShortSecret {
        /// How many it has.
        length: usize,
    },
    /// The other secret is the same as the own one, so that nothing would be rotated.
    SameSecret,
    /// The default policy has a name, which would make one endpoint of all routes.
    DefaultName {
        /// What was given.
        name: String,
    },
    /// The default policy's lease is longer than its `max_lifetime`.
    LeaseOverLifetime {
        /// The lease.
        lease: Duration,
        /// The lifetime.
        max_lifetime: Duration,
    },
    /// The status for mismatches is not a client error.
    MismatchStatus {
        /// What was given.
        status: StatusCode,
    },
    /// The header for outcomes is also the one that marks replays.
    SameHeader {
        /// Its name.
        name: HeaderName,
    },
    /// The challenge for callers that are not known does not begin with the name of a scheme.
    Challenge {
        /// What was given.
        challenge: HeaderValue,
    },
    /// `max_detached` is zero: no execution could outlive its client, so none could ever start.
    NoRoom,
    /// Both a caller and a scope say who calls.
    CallerAndScope,
    /// The store time-out is zero, so that no store could ever answer, or longer than an hour.
    StoreTimeout {
        /// What was given.
        timeout: Duration,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStore => f.write_str(
                "no store: call `.store(…)`, or enable the `memory` feature for an in-memory one",
            ),
            Self::NoTransactions { store } => write!(
                f,
                "routes need transactions and the store ({store}) has none: keep the records in the handlers' own database, \
                 by PostgresStore, MySqlStore or SqliteStore"
            ),
            Self::ShortSecret { length } => {
                write!(
                    f,
                    "the secret has {length} bytes; use at least 16 random ones"
                )
            }
            Self::SameSecret => f.write_str(
                "the secret and the other one, under which records are found too, are the same; leave the other one out",
            ),
            Self::DefaultName { name } => write!(
                f,
                "the default policy has the name {name:?}, which would make one endpoint of all routes; name routes"
            ),
            Self::LeaseOverLifetime {
                lease,
                max_lifetime,
            } => write!(
                f,
                "the lease ({lease:?}) is longer than max_lifetime ({max_lifetime:?}); shorten the lease"
            ),
            Self::MismatchStatus { status } => {
                write!(
                    f,
                    "a mismatch is the client's error: {status} is not a 4xx status"
                )
            }
            Self::SameHeader { name } => write!(
                f,
                "`{name}` is the header for outcomes and the one for replays: give one of them another name"
            ),
            Self::Challenge { challenge } => write!(
                f,
                "the challenge {challenge:?} does not begin with the name of a scheme, as `Bearer realm=\"api\"` does"
            ),
            Self::NoRoom => f.write_str(
                "max_detached is 0, so no execution could start: every client may leave; allow at least 1",
            ),
            Self::CallerAndScope => f.write_str(
                "both `caller` and `scope` are set, and each says whose keys are one namespace; keep `caller`, which returns \
                 the scope",
            ),
            Self::StoreTimeout { timeout } => {
                write!(
                    f,
                    "the store time-out is {timeout:?}; give it more than zero and at most an hour"
                )
            }
        }
    }
}

impl Error for BuildError {}
