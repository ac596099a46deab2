//! Which answers of a handler become the outcome.

use http::{Extensions, StatusCode};

use crate::policy::Cache;

/// A handler's own decision about one response, put into the response's extensions.
///
/// It goes before the route's [`Cache`] policy and before the list of statuses that release the key. With axum
/// it is also a response part: `(Retention::Release, StatusCode::BAD_GATEWAY)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// This response is the outcome: retries replay it.
    Store,
    /// Nothing happened: the key may be used again, and the retry executes.
    Release,
}

/// Whether this response is kept as the outcome.
pub(crate) fn keeps(cache: Cache, status: StatusCode, extensions: &Extensions) -> bool {
    // After a switch of protocols there is no response that could be replayed, whoever decides.
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return false;
    }
    if let Some(decision) = extensions.get::<Retention>() {
        return *decision == Retention::Store;
    }
    if asks_again(status) {
        return false;
    }
    match cache {
        Cache::All => true,
        Cache::NoServerErrors => !status.is_server_error(),
        Cache::Success => status.is_success() || status.is_redirection(),
    }
}

/// Statuses that by their definition ask for the same request again (RFC 9110 sections 15.5.2, 15.5.8,
/// 15.5.9, 15.5.20 and 15.6.4; RFC 8470; RFC 6585; and 423 is not one: it is about another resource's state).
fn asks_again(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 407 | 408 | 421 | 425 | 429 | 503)
}
