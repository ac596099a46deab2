//! [`StoreError`]: why an operation failed, and whether repeating it may help.

use std::{error::Error, fmt};

/// Why an operation failed.
///
/// Names the store, says whether repeating the operation may help, and keeps its source.
#[derive(Debug)]
pub struct StoreError {
    store: &'static str,
    kind: StoreErrorKind,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What kind of failure a [`StoreError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The store could not be reached or did not answer; repeating may help.
    Unavailable,
    /// The store is at its configured capacity and accepts no new records.
    Full,
    /// The outcome is larger than the store accepts; repeating will not help, a smaller one would be stored.
    TooLarge,
    /// The record exists but cannot be read; repeating will not help.
    Corrupt,
    /// The store refused the statement (permissions, a missing table); repeating will not help.
    Refused,
    /// A list was continued with a cursor that this store did not give.
    InvalidCursor,
    /// The store does not list its records.
    NotInspectable,
}

impl StoreError {
    /// An error of the named store.
    #[must_use]
    pub fn new(store: &'static str, kind: StoreErrorKind) -> Self {
        Self {
            store,
            kind,
            source: None,
        }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether repeating the operation may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind == StoreErrorKind::Unavailable
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            StoreErrorKind::Unavailable => "did not answer",
            StoreErrorKind::Full => {
                "is full: raise its limits, shorten the ttl or move to a larger store"
            }
            StoreErrorKind::Corrupt => "holds a record that cannot be read",
            StoreErrorKind::TooLarge => {
                "does not accept a response this large: return a smaller one, or raise the store's limit"
            }
            StoreErrorKind::Refused => "refused the operation",
            StoreErrorKind::InvalidCursor => "did not give this cursor: begin again without one",
            StoreErrorKind::NotInspectable => "does not list its records",
        };
        write!(f, "the {} store {what}", self.store)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}
