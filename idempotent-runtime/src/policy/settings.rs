//! A policy without gaps: what the engine works with.

use std::time::Duration;

use super::{
    choices::{Cache, OnCrash},
    options::{KeySource, Policy},
    statuses::Statuses,
};
use crate::{
    fingerprint::FingerprintRule, key::KeyRules, names::KeyHeader, response::StoredHeaders,
    scope::ScopeFn, store::ClaimMode,
};

/// How large a request body may be where neither the policy nor the route says it: 2 MB, as axum has it.
pub(crate) const DEFAULT_MAX_BODY: usize = 2 * 1024 * 1024;

/// What a route gets: its own choices, the engine's, and the defaults.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) ttl: Duration,
    pub(crate) wait: bool,
    pub(crate) wait_timeout: Duration,
    pub(crate) lease: Duration,
    pub(crate) max_lifetime: Duration,
    pub(crate) on_crash: OnCrash,
    pub(crate) header: KeyHeader,
    /// Whether the key comes from a function instead.
    pub(crate) key_by_function: bool,
    pub(crate) key_rules: KeyRules,
    pub(crate) scope: Option<ScopeFn>,
    pub(crate) require_caller: bool,
    pub(crate) fingerprint: FingerprintRule,
    pub(crate) cache: Cache,
    pub(crate) release: Statuses,
    pub(crate) max_body: usize,
    pub(crate) max_response: usize,
    pub(crate) stored_headers: Option<StoredHeaders>,
    /// How the outcome is written.
    pub(crate) mode: ClaimMode,
}

impl Settings {
    /// Whether the record is completed in the handler's transaction.
    pub(crate) fn in_transaction(&self) -> bool {
        self.mode == ClaimMode::Transactional
    }

    /// The route's choices, then the engine's, then the defaults.
    pub(crate) fn resolve(route: &Policy, engine: &Policy) -> Self {
        macro_rules! chosen {
            ($field:ident) => {
                route.$field.as_ref().or(engine.$field.as_ref()).cloned()
            };
        }
        // Its handler has to take the transaction, so it is no default for others.
        let transaction = route.transaction.unwrap_or(false);
        let lease = chosen!(lease).unwrap_or(Duration::from_secs(30));
        Self {
            ttl: chosen!(ttl).unwrap_or(Duration::from_secs(24 * 60 * 60)),
            wait: chosen!(wait).unwrap_or(true),
            wait_timeout: chosen!(wait_timeout).unwrap_or(Duration::from_secs(30)),
            lease,
            // A route may choose a lease that is longer than the engine's lifetime: the lifetime is at least one lease.
            max_lifetime: chosen!(max_lifetime)
                .unwrap_or(Duration::from_secs(15 * 60))
                .max(lease),
            // What crashed before its transaction was committed has had no effect.
            on_crash: if transaction {
                OnCrash::Retry
            } else {
                chosen!(on_crash).unwrap_or_default()
            },
            header: route.key_header(engine).clone(),
            key_by_function: matches!(route.key_source(engine), KeySource::Function(_)),
            key_rules: KeyRules {
                strict: chosen!(strict).unwrap_or(false),
                uuid: chosen!(uuid).unwrap_or(false),
                opaque: chosen!(opaque).unwrap_or(false),
                ..KeyRules::default()
            },
            scope: chosen!(scope),
            require_caller: chosen!(require_caller).unwrap_or(false),
            fingerprint: chosen!(fingerprint).unwrap_or_default(),
            cache: chosen!(cache).unwrap_or_default(),
            release: chosen!(release).unwrap_or_default(),
            max_body: chosen!(max_body).unwrap_or(DEFAULT_MAX_BODY),
            max_response: chosen!(max_response).unwrap_or(MEBIBYTE),
            stored_headers: chosen!(stored_headers),
            mode: if transaction {
                ClaimMode::Transactional
            } else {
                ClaimMode::Plain
            },
        }
    }
}

const MEBIBYTE: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::names::Name;

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
        assert_eq!(settings.header.as_str(), "idempotency-key");
    }

    #[test]
    fn run_time_values_go_before_the_engines_constants_and_after_the_routes() {
        static ROUTE: Policy = Policy::new().header("X-Route").name("pay");
        static ENGINE: Policy = Policy::new().header("X-Engine");
        let read: HeaderName = "X-Read".parse().unwrap();
        let policy = Policy::new()
            .header_name(read)
            .owned_name(String::from("read"));

        assert_eq!(
            Settings::resolve(&policy, &ENGINE).header.as_str(),
            "x-read"
        );
        assert_eq!(
            Settings::resolve(&ROUTE, &policy).header.as_str(),
            "X-Route"
        );
        let filled = Policy::new().or(&policy).or(&ROUTE);
        assert_eq!(filled.name.as_ref().map(Name::as_str), Some("read"));
        // The constant setter replaces the run-time value as well.
        let replaced = filled.name("other").header("X-Other");
        assert_eq!(replaced.name.as_ref().map(Name::as_str), Some("other"));
        let settings = Settings::resolve(&replaced, &ENGINE);
        assert_eq!(settings.header.as_str(), "X-Other");
    }

    #[test]
    fn a_lease_is_never_longer_than_the_lifetime() {
        let route = Policy::new().lease(Duration::from_secs(1000));
        let engine = Policy::new().max_lifetime(Duration::from_secs(10));
        let settings = Settings::resolve(&route, &engine);
        assert_eq!(settings.max_lifetime, Duration::from_secs(1000));
    }
}
