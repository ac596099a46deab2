//! Which responses of a handler become the outcome, and which release the key.

use http::{Extensions, StatusCode};

use crate::policy::Cache;

/// A handler's own decision about one response, put into the response's extensions.
///
/// It takes precedence over the route's [`Cache`] policy and over the statuses that release the key. With axum it is also
/// a response part: `(Retention::Release, StatusCode::BAD_GATEWAY)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retention {
    /// This response is the outcome: retries replay it.
    Store,
    /// Nothing happened: the key may be used again, and the retry executes.
    Release,
}

/// Whether this response is stored as the outcome.
pub(crate) fn is_cacheable(cache: Cache, status: StatusCode, extensions: &Extensions) -> bool {
    // After a switch of protocols no response could be replayed, whatever the handler or the policy decides.
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

/// Statuses that by their definition ask for the same request again: 401, 407, 408, 421 and 503 (RFC 9110,
/// sections 15.5.2, 15.5.8, 15.5.9, 15.5.20 and 15.6.4), 425 (RFC 8470, section 5.2) and 429 (RFC 6585, section 4).
fn asks_again(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 407 | 408 | 421 | 425 | 429 | 503)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(cache: Cache, status: u16) -> bool {
        is_cacheable(
            cache,
            StatusCode::from_u16(status).unwrap(),
            &Extensions::new(),
        )
    }

    #[test]
    fn statuses_that_ask_again_release_whatever_the_policy() {
        for cache in [Cache::All, Cache::NoServerErrors, Cache::Success] {
            for status in [101, 401, 407, 408, 421, 425, 429, 503] {
                assert!(!kept(cache, status), "{cache:?} {status}");
            }
        }
    }

    #[test]
    fn each_policy_keeps_what_it_says() {
        for (status, all, no_server_errors, success) in [
            (200, true, true, true),
            (204, true, true, true),
            (303, true, true, true),
            (400, true, true, false),
            (404, true, true, false),
            (409, true, true, false),
            (423, true, true, false),
            (500, true, false, false),
            (502, true, false, false),
            (504, true, false, false),
        ] {
            assert_eq!(kept(Cache::All, status), all, "{status}");
            assert_eq!(
                kept(Cache::NoServerErrors, status),
                no_server_errors,
                "{status}"
            );
            assert_eq!(kept(Cache::Success, status), success, "{status}");
        }
    }

    #[test]
    fn the_handler_has_the_last_word_but_for_a_switch_of_protocols() {
        let mut extensions = Extensions::new();
        extensions.insert(Retention::Store);
        assert!(is_cacheable(
            Cache::Success,
            StatusCode::SERVICE_UNAVAILABLE,
            &extensions
        ));
        assert!(!is_cacheable(
            Cache::All,
            StatusCode::SWITCHING_PROTOCOLS,
            &extensions
        ));
        extensions.insert(Retention::Release);
        assert!(!is_cacheable(Cache::All, StatusCode::OK, &extensions));
    }
}
