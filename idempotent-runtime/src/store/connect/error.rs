//! Why the store of a URL could not be opened.

use std::{error::Error, fmt};

/// Why the store of a URL could not be opened. No message contains the URL, which may contain a password.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// No store has this scheme.
    UnknownScheme {
        /// The part of the URL before the first `:`; empty if it cannot be a scheme.
        scheme: Box<str>,
    },
    /// A store is named, but not by a URL.
    NotAUrl {
        /// What to write instead.
        write: &'static str,
    },
    /// The URL of a server has no `//` behind its scheme, so that no host is named in it.
    NoHost {
        /// What to write instead.
        write: &'static str,
    },
    /// The store of this scheme is not compiled in.
    MissingFeature {
        /// The part of the URL before the first `:`.
        scheme: Box<str>,
        /// The feature of this crate that compiles the store in.
        feature: &'static str,
    },
    /// The Redis store could not be opened.
    #[cfg(feature = "redis")]
    Redis(crate::store::redis::ConnectError),
    /// The SQL store could not be opened.
    #[cfg(feature = "sql")]
    Sql(crate::store::sql::ConnectError),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownScheme { scheme } => write!(
                f,
                "no store has the scheme {scheme:?}: use memory:, sqlite://, postgres://, mysql:// or redis://"
            ),
            Self::NotAUrl { write } => {
                write!(
                    f,
                    "this is the name of a store and not a URL: write `{write}`"
                )
            }
            Self::NoHost { write } => {
                write!(
                    f,
                    "the URL names no host: write `//` after its scheme, as in `{write}`"
                )
            }
            Self::MissingFeature { scheme, feature } => write!(
                f,
                "support for `{scheme}:` URLs is not compiled in: build idempotent-runtime with the feature `{feature}`"
            ),
            #[cfg(feature = "redis")]
            Self::Redis(error) => error.fmt(f),
            #[cfg(feature = "sql")]
            Self::Sql(error) => error.fmt(f),
        }
    }
}

impl ConnectError {
    /// Whether the same attempt may succeed later, because a server is only not there yet.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(error) => error.is_of_a_server_that_starts(),
            #[cfg(feature = "sql")]
            Self::Sql(error) => error.is_of_a_server_that_starts(),
            _ => false,
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // This error's message is theirs, so their own source comes next.
            #[cfg(feature = "redis")]
            Self::Redis(error) => error.source(),
            #[cfg(feature = "sql")]
            Self::Sql(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(feature = "sql")]
impl From<crate::store::sql::ConnectError> for ConnectError {
    fn from(error: crate::store::sql::ConnectError) -> Self {
        Self::Sql(error)
    }
}
