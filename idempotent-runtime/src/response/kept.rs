//! Which headers of a response a route stores.

use http::HeaderName;

use crate::names::HeaderNames;

/// A route's choice among the headers that may be stored at all.
#[derive(Clone, Debug)]
pub(crate) enum StoredHeaders {
    /// These at most, and those without which the body cannot be read.
    Keep(HeaderNames),
    /// All but these.
    Drop(HeaderNames),
}

impl StoredHeaders {
    pub(super) fn keeps(&self, name: &HeaderName) -> bool {
        match self {
            Self::Keep(names) => describes_the_body(name) || names.contains(name),
            Self::Drop(names) => !names.contains(name),
        }
    }
}

/// A replay without them would be another answer.
fn describes_the_body(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-type" | "content-encoding" | "grpc-encoding"
    )
}
