//! What a route asks for, and what it gets where it did not ask.

use std::{fmt, future::Future, pin::Pin, time::Duration};

use http::request::Parts;

use crate::{
    engine::{Crash, Recovery},
    fingerprint::{FingerprintRule, is_header_name},
    key::KeyRules,
    scope::Scope,
};

/// Longest duration a policy takes: a hundred years, far inside what every store's clock can add.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The settings of one route.
///
/// It names only what was chosen. The engine fills each gap first from its own default policy
/// ([`Builder::policy`](crate::Builder::policy)), then from these defaults:
///
/// | option | default |
/// |---|---|
/// | [`ttl`](Self::ttl) | 24 hours |
/// | [`wait`](Self::wait) | true |
/// | [`wait_timeout`](Self::wait_timeout) | 30 seconds |
/// | [`lease`](Self::lease) | 30 seconds |
/// | [`max_lifetime`](Self::max_lifetime) | 15 minutes |
/// | [`on_crash`](Self::on_crash) | [`OnCrash::Refuse`] |
/// | [`required`](Self::required) | false |
/// | [`header`](Self::header) | `idempotency-key` |
/// | [`cache`](Self::cache) | [`Cache::All`] |
/// | [`max_body`](Self::max_body), [`max_response`](Self::max_response) | 1 MiB |
///
/// Every setter is a `const fn`, so that a policy can be a `static`, and a bad value in one is a compile error.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Policy {
    pub(crate) name: Option<&'static str>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) wait: Option<bool>,
    pub(crate) wait_timeout: Option<Duration>,
    pub(crate) lease: Option<Duration>,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) on_crash: Option<OnCrash>,
    pub(crate) required: Option<bool>,
    pub(crate) header: Option<&'static str>,
    pub(crate) strict: Option<bool>,
    pub(crate) uuid: Option<bool>,
    pub(crate) scope: Option<fn(&Parts) -> Option<Scope>>,
    pub(crate) fingerprint: Option<FingerprintRule>,
    pub(crate) cache: Option<Cache>,
    pub(crate) max_body: Option<usize>,
    pub(crate) max_response: Option<usize>,
}

/// Which answers of the handler become the stored outcome.
///
/// Whatever is chosen, 401, 407, 408, 421, 425, 429 and 503 release the key: they ask for the same request
/// again. A handler can decide for one response with [`Retention`](crate::Retention).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cache {
    /// Every answer, errors included.
    #[default]
    All,
    /// Every answer but 5xx. A handler that answers 5xx after its effect is executed again by the retry.
    NoServerErrors,
    /// Only 2xx and 3xx. A handler that answers an error after its effect is executed again by the retry.
    Success,
}

/// What a retry finds when the execution before it vanished: its lease lapsed and no outcome is stored.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub enum OnCrash {
    /// At most once: the outcome is unknown, retries are told so, nothing is executed again.
    #[default]
    Refuse,
    /// At least once, single outcome: the retry executes again as attempt n+1, and fences the one before.
    Retry,
    /// The given function finds out what happened.
    Recover(RecoverFn),
}

/// Finds out what became of an execution that vanished. See [`Crash`].
pub type RecoverFn = fn(Crash) -> Pin<Box<dyn Future<Output = Recovery> + Send>>;

impl fmt::Debug for OnCrash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "Refuse",
            Self::Retry => "Retry",
            Self::Recover(_) => "Recover(_)",
        })
    }
}

/// Setters that only record what was chosen.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $ty:ty;)*) => {$(
        $(#[$doc])*
        pub const fn $name(mut self, $name: $ty) -> Self {
            self.$name = Some($name);
            self
        }
    )*};
}

/// Setters that check a duration: a `static` policy with a bad one does not compile.
macro_rules! durations {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Panics
        ///
        /// If it is zero or longer than a hundred years.
        pub const fn $name(mut self, $name: Duration) -> Self {
            assert!(
                !$name.is_zero() && $name.as_millis() <= LONGEST.as_millis(),
                concat!(stringify!($name), " must be longer than zero and at most a hundred years"),
            );
            self.$name = Some($name);
            self
        }
    )*};
}

impl Policy {
    /// A policy that chooses nothing.
    pub const fn new() -> Self {
        Self {
            name: None,
            ttl: None,
            wait: None,
            wait_timeout: None,
            lease: None,
            max_lifetime: None,
            on_crash: None,
            required: None,
            header: None,
            strict: None,
            uuid: None,
            scope: None,
            fingerprint: None,
            cache: None,
            max_body: None,
            max_response: None,
        }
    }

    durations! {
        /// How long a completed record replays, counted from its completion.
        ttl;
        /// How long a duplicate waits for the outcome before it gets `conflict`.
        wait_timeout;
        /// How long an execution may stay silent. The heartbeat renews it every third of this.
        lease;
        /// How long the heartbeat keeps renewing; after that the lease lapses, the handler runs on.
        max_lifetime;
    }

    setters! {
        /// Replaces "method + route template" as the endpoint in the scope, so that a renamed route keeps its records.
        name: &'static str;
        /// Whether concurrent duplicates wait for the outcome (`true`) or get `conflict` at once.
        wait: bool;
        /// What a retry finds when the execution before it vanished.
        on_crash: OnCrash;
        /// Whether a request without a key is refused with `missing_key`.
        required: bool;
        /// Whether bare keys, without the quotes of RFC 9651, are refused.
        strict: bool;
        /// Whether a key must be a UUID (any version but nil).
        uuid: bool;
        /// Who the caller is, for this route.
        scope: fn(&Parts) -> Option<Scope>;
        /// What identifies the request besides its key.
        fingerprint: FingerprintRule;
        /// Which answers become the stored outcome.
        cache: Cache;
        /// Largest request body in bytes; a larger one is refused with 413 and claims nothing. Extractors have limits
        /// of their own: above 2 MB, axum's `DefaultBodyLimit` has to be raised too.
        max_body: usize;
        /// Largest response body in bytes that is kept; a larger one leaves a tombstone.
        max_response: usize;
    }

    /// The request header that carries the key, in any case.
    ///
    /// # Panics
    ///
    /// If it is not a header name. In a `static` policy that is a compile error.
    pub const fn header(mut self, header: &'static str) -> Self {
        assert!(
            is_header_name(header),
            "header must be a header name: letters, digits and `-`"
        );
        self.header = Some(header);
        self
    }

    /// This policy, with its gaps filled from `other`.
    pub const fn or(self, other: &Self) -> Self {
        macro_rules! fill {
            ($($field:ident),*) => {
                Self { $($field: if self.$field.is_some() { self.$field } else { other.$field }),* }
            };
        }
        fill!(
            name,
            ttl,
            wait,
            wait_timeout,
            lease,
            max_lifetime,
            on_crash,
            required,
            header,
            strict,
            uuid,
            scope,
            fingerprint,
            cache,
            max_body,
            max_response
        )
    }
}

/// A policy without gaps: what the engine works with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) ttl: Duration,
    pub(crate) wait: bool,
    pub(crate) wait_timeout: Duration,
    pub(crate) lease: Duration,
    pub(crate) max_lifetime: Duration,
    pub(crate) on_crash: OnCrash,
    pub(crate) header: &'static str,
    pub(crate) key_rules: KeyRules,
    pub(crate) scope: Option<fn(&Parts) -> Option<Scope>>,
    pub(crate) fingerprint: FingerprintRule,
    pub(crate) cache: Cache,
    pub(crate) max_body: usize,
    pub(crate) max_response: usize,
}

impl Settings {
    /// The route's choices, then the engine's, then the defaults.
    pub(crate) fn resolve(route: &Policy, engine: &Policy) -> Self {
        let policy = route.or(engine);
        let lease = policy.lease.unwrap_or(Duration::from_secs(30));
        Self {
            ttl: policy.ttl.unwrap_or(Duration::from_secs(24 * 60 * 60)),
            wait: policy.wait.unwrap_or(true),
            wait_timeout: policy.wait_timeout.unwrap_or(Duration::from_secs(30)),
            lease,
            // A route that chooses a longer lease than the engine's lifetime means it: one lease is the least.
            max_lifetime: policy
                .max_lifetime
                .unwrap_or(Duration::from_secs(15 * 60))
                .max(lease),
            on_crash: policy.on_crash.unwrap_or_default(),
            header: policy.header.unwrap_or(HEADER),
            key_rules: KeyRules {
                strict: policy.strict.unwrap_or(false),
                uuid: policy.uuid.unwrap_or(false),
                ..KeyRules::default()
            },
            scope: policy.scope,
            fingerprint: policy.fingerprint.unwrap_or_default(),
            cache: policy.cache.unwrap_or_default(),
            max_body: policy.max_body.unwrap_or(MEBIBYTE),
            max_response: policy.max_response.unwrap_or(MEBIBYTE),
        }
    }
}

/// The request header that carries the key unless a policy names another.
pub(crate) const HEADER: &str = "idempotency-key";

const MEBIBYTE: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_goes_before_the_engine_and_the_engine_before_the_defaults() {
        let route = Policy::new().ttl(Duration::from_secs(1)).wait(false);
        let engine = Policy::new().ttl(Duration::from_secs(2)).max_body(7);

        let settings = Settings::resolve(&route, &engine);

        assert_eq!(settings.ttl, Duration::from_secs(1));
        assert!(!settings.wait);
        assert_eq!(settings.max_body, 7);
        assert_eq!(settings.lease, Duration::from_secs(30));
        assert_eq!(settings.max_response, MEBIBYTE);
        assert_eq!(settings.header, HEADER);
    }

    #[test]
    fn a_lease_is_never_longer_than_the_lifetime() {
        let route = Policy::new().lease(Duration::from_secs(1000));
        let engine = Policy::new().max_lifetime(Duration::from_secs(10));
        let settings = Settings::resolve(&route, &engine);
        assert_eq!(settings.max_lifetime, Duration::from_secs(1000));
    }

    #[test]
    #[should_panic(expected = "ttl must be longer than zero")]
    fn a_ttl_of_zero_is_refused() {
        let _ = Policy::new().ttl(Duration::ZERO);
    }

    #[test]
    #[should_panic(expected = "lease must be longer than zero and at most a hundred years")]
    fn an_endless_lease_is_refused() {
        let _ = Policy::new().lease(Duration::MAX);
    }
}
