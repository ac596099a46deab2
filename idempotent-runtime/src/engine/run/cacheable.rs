//! Which responses of a handler become the outcome, and which release the key.

use std::time::Duration;

use http::{Extensions, StatusCode};

use crate::policy::{Cache, LONGEST, Settings, Statuses};

/// A handler's own decision about one response, put into the response's extensions.
///
/// It takes precedence over the route's [`Cache`] policy and over the statuses that release the key, those of
/// [`Policy::release`](crate::Policy::release) included. With axum it is also a response part:
/// `(Retention::Release, StatusCode::BAD_GATEWAY)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retention {
    /// This response is the outcome: retries replay it.
    Store,
    /// This response is the outcome, and retries replay it for this time instead of the route's ttl. Afterwards the key is
    /// free, and a retry executes. Times below a millisecond count as one, times above a hundred years as a hundred years.
    StoreFor(Duration),
    /// Nothing happened: the key may be used again, and the retry executes.
    Release,
    /// What happened is not known. This client gets the response, nothing is stored, and the next retry is treated as after
    /// a crash, by the route's [`on_crash`](crate::Policy::on_crash): it gets `outcome_unknown`, executes as the next
    /// attempt, or asks the recovery function.
    Unknown,
}

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is the outcome, for the route's ttl.
    Store,
    /// It is the outcome, for this ttl.
    StoreFor(Duration),
    /// The key is released.
    Release,
    /// The key is abandoned.
    Abandon,
}

/// Whether this response is stored as the outcome.
pub(crate) fn decide(settings: &Settings, status: StatusCode, extensions: &Extensions) -> Decision {
    // After a switch of protocols no response could be replayed, whatever the handler or the policy decides.
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Decision::Release;
    }
    match extensions.get::<Retention>() {
        Some(Retention::StoreFor(ttl)) => {
            Decision::StoreFor((*ttl).clamp(Duration::from_millis(1), LONGEST))
        }
        Some(Retention::Release) => Decision::Release,
        Some(Retention::Unknown) => Decision::Abandon,
        None if releases(settings.cache, &settings.release, status) => Decision::Release,
        Some(Retention::Store) | None => Decision::Store,
    }
}

/// Whether the route, or the status itself, says that nothing happened.
fn releases(cache: Cache, release: &Statuses, status: StatusCode) -> bool {
    if refuses_before_processing(status) || release.contains(status) {
        return true;
    }
    match cache {
        Cache::All => false,
        Cache::NoServerErrors => status.is_server_error(),
        Cache::Success => !status.is_success() && !status.is_redirection(),
    }
}

/// Statuses that by their definition refuse a request before it is processed: 401, 407 and 421 (RFC 9110, sections
/// 15.5.2, 15.5.8 and 15.5.20), 425 (RFC 8470, section 5.2) and 429 (RFC 6585, section 4).
///
/// 408 and 503 are none of them: layers that limit time or load answer with these for a handler that they cut off
/// half-way.
fn refuses_before_processing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 407 | 421 | 425 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn decision(policy: &Policy, status: u16, own: Option<Retention>) -> Decision {
        let mut extensions = Extensions::new();
        if let Some(own) = own {
            extensions.insert(own);
        }
        let settings = Settings::resolve(policy, &Policy::new());
        decide(
            &settings,
            StatusCode::from_u16(status).unwrap(),
            &extensions,
        )
    }

    fn kept(cache: Cache, status: u16) -> bool {
        decision(&Policy::new().cache(cache), status, None) == Decision::Store
    }

    #[test]
    fn statuses_that_refuse_before_processing_release_whatever_the_policy() {
        for cache in [Cache::All, Cache::NoServerErrors, Cache::Success] {
            for status in [101, 401, 407, 421, 425, 429] {
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
            (408, true, true, false),
            (409, true, true, false),
            (423, true, true, false),
            (500, true, false, false),
            (502, true, false, false),
            (503, true, false, false),
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
    fn a_route_releases_the_statuses_that_it_names() {
        let policy = Policy::new().release(&[404, 503]);
        for (status, expected) in [
            (404, Decision::Release),
            (503, Decision::Release),
            (429, Decision::Release),
            (408, Decision::Store),
            (200, Decision::Store),
        ] {
            assert_eq!(decision(&policy, status, None), expected, "{status}");
        }
    }

    #[test]
    fn the_handler_has_the_last_word_but_for_a_switch_of_protocols() {
        let policy = Policy::new().cache(Cache::Success).release(&[200]);
        for (status, own, expected) in [
            (429, Retention::Store, Decision::Store),
            (503, Retention::Store, Decision::Store),
            (200, Retention::Store, Decision::Store),
            (201, Retention::Release, Decision::Release),
            (503, Retention::Unknown, Decision::Abandon),
            (429, Retention::Unknown, Decision::Abandon),
            (101, Retention::Unknown, Decision::Release),
            (101, Retention::Store, Decision::Release),
            (
                101,
                Retention::StoreFor(Duration::from_secs(1)),
                Decision::Release,
            ),
            (
                401,
                Retention::StoreFor(Duration::from_secs(7)),
                Decision::StoreFor(Duration::from_secs(7)),
            ),
            (
                200,
                Retention::StoreFor(Duration::ZERO),
                Decision::StoreFor(Duration::from_millis(1)),
            ),
            (
                200,
                Retention::StoreFor(Duration::MAX),
                Decision::StoreFor(LONGEST),
            ),
        ] {
            assert_eq!(
                decision(&policy, status, Some(own)),
                expected,
                "{status} {own:?}"
            );
        }
    }
}
