//! [`Policy`]: what a route, or the engine for all routes, chooses.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, StatusCode, request::Parts};

use super::{
    choices::{Cache, OnCrash},
    statuses::{self, Statuses},
};
use crate::{
    fingerprint::FingerprintRule,
    key::{IdempotencyKey, KeyError},
    names::{HeaderNames, IDEMPOTENCY_KEY, KeyHeader, Name, is_header_name, set},
    response::{StoredHeaders, check_name, check_names},
    scope::{Scope, ScopeFn},
};

/// The longest duration that a policy accepts: a hundred years, which every store's clock can add without overflow.
pub(crate) const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The shortest lease that a heartbeat every third of it can keep, on a busy machine and over a network.
const SHORTEST_LEASE: Duration = Duration::from_millis(100);

/// The settings of one route.
///
/// It holds only what was chosen. The engine fills each gap first from its own default policy
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
/// | [`require_caller`](Self::require_caller) | false |
/// | [`transaction`](Self::transaction) | false |
/// | [`cache`](Self::cache) | [`Cache::All`] |
/// | [`release`](Self::release) | none beyond 401, 407, 421, 425 and 429 |
/// | [`max_body`](Self::max_body) | what the route accepts: axum's `DefaultBodyLimit`, 2 MB unless changed |
/// | [`max_response`](Self::max_response) | 1 MiB |
/// | [`keep_headers`](Self::keep_headers), [`drop_headers`](Self::drop_headers) | all headers but those that are never stored |
///
/// # In a constant, and at run time
///
/// The setters are `const fn`, so that a policy can be a `static`, and a bad value in one is a compile error. Those
/// for text take a `&'static str` for that reason; beside each there is one for text known only at run time:
///
/// | a constant | a value read at run time |
/// |---|---|
/// | [`name`](Self::name) | [`owned_name`](Self::owned_name) |
/// | [`header`](Self::header) | [`header_name`](Self::header_name) |
/// | [`scope`](Self::scope) | [`shared_scope`](Self::shared_scope) |
/// | [`release`](Self::release) | [`release_statuses`](Self::release_statuses) |
/// | [`FingerprintRule::headers`] | [`FingerprintRule::header_names`] |
/// | [`keep_headers`](Self::keep_headers), [`drop_headers`](Self::drop_headers) | [`keep_header_names`](Self::keep_header_names), [`drop_header_names`](Self::drop_header_names) |
/// | [`FingerprintRule::ignore`] | [`FingerprintRule::ignore_pointers`] |
/// | [`FingerprintRule::ignore_query_parameters`] | [`FingerprintRule::ignore_query_parameter_names`] |
///
/// A clone copies no text. The setters for durations panic at a value that is out of range, also at run time. A
/// policy read from a file:
///
/// ```
/// use std::time::Duration;
///
/// use http::HeaderName;
/// use idempotent_runtime::{FingerprintRule, Idempotency, Policy};
/// use serde_json::Value;
///
/// fn policy(file: &str) -> Result<Policy, Box<dyn std::error::Error>> {
///     let file: Value = serde_json::from_str(file)?;
///     let mut policy = Policy::new();
///     if let Some(header) = file["header"].as_str() {
///         policy = policy.header_name(header.parse()?);
///     }
///     if let Some(hours) = file["ttl_hours"].as_u64() {
///         policy = policy.ttl(Duration::from_secs(hours * 3600));
///     }
///     if let Some(compare) = file["compare_headers"].as_array() {
///         let names = compare.iter().filter_map(Value::as_str);
///         let names = names.map(str::parse).collect::<Result<Vec<HeaderName>, _>>()?;
///         policy = policy.fingerprint(FingerprintRule::new().header_names(names));
///     }
///     Ok(policy)
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let file = r#"{ "header": "X-Request-Key", "ttl_hours": 48, "compare_headers": ["X-Currency"] }"#;
/// let idempotency = Idempotency::builder().policy(policy(file)?).build()?;
/// assert!(policy(r#"{ "header": "two words" }"#).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Policy {
    pub(crate) name: Option<Name>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) wait: Option<bool>,
    pub(crate) wait_timeout: Option<Duration>,
    pub(crate) lease: Option<Duration>,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) on_crash: Option<OnCrash>,
    pub(crate) required: Option<bool>,
    pub(crate) header: Option<KeyHeader>,
    pub(crate) strict: Option<bool>,
    pub(crate) uuid: Option<bool>,
    pub(crate) opaque: Option<bool>,
    pub(crate) key: Option<KeyFn>,
    pub(crate) when: Option<fn(&Parts) -> bool>,
    pub(crate) scope: Option<ScopeFn>,
    pub(crate) require_caller: Option<bool>,
    pub(crate) fingerprint: Option<FingerprintRule>,
    pub(crate) cache: Option<Cache>,
    pub(crate) release: Option<Statuses>,
    pub(crate) max_body: Option<usize>,
    pub(crate) max_response: Option<usize>,
    pub(crate) stored_headers: Option<StoredHeaders>,
    pub(crate) transaction: Option<bool>,
}

/// Finds the key of a request.
pub(crate) type KeyFn = fn(&Parts) -> Option<Result<IdempotencyKey, KeyError>>;

/// Where a key comes from.
#[derive(Clone, Copy)]
pub(crate) enum KeySource<'a> {
    Header(&'a KeyHeader),
    Function(KeyFn),
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
            opaque: None,
            key: None,
            when: None,
            scope: None,
            require_caller: None,
            fingerprint: None,
            cache: None,
            release: None,
            max_body: None,
            max_response: None,
            stored_headers: None,
            transaction: None,
        }
    }

    durations! {
        /// How long a completed record replays, counted from its completion.
        ttl;
        /// How long a duplicate waits for the outcome before it gets `conflict`.
        wait_timeout;
        /// How long the heartbeat renews the lease of one execution. Then the lease lapses, and the handler runs on.
        max_lifetime;
    }

    /// How long an execution owns its key without a renewal. The heartbeat renews the lease after each third of it.
    ///
    /// # Panics
    ///
    /// If it is shorter than 100 milliseconds, which no heartbeat can keep, or longer than a hundred years.
    pub const fn lease(mut self, lease: Duration) -> Self {
        assert!(
            lease.as_millis() >= SHORTEST_LEASE.as_millis()
                && lease.as_millis() <= LONGEST.as_millis(),
            "lease must be at least 100 milliseconds and at most a hundred years",
        );
        self.lease = Some(lease);
        self
    }

    setters! {
        /// Whether concurrent duplicates wait for the outcome (`true`) or get `conflict` at once.
        wait: bool;
        /// What a retry does after the execution before it crashed.
        ///
        /// A recovery function in a policy owns nothing: it finds what layers inserted in the extensions of
        /// [`Crash::request`](crate::Crash::request). One that owns a pool is given to the layer
        /// ([`IdempotencyLayer::recover`](crate::IdempotencyLayer::recover)), one that takes the router's state to the
        /// attribute ([`on_crash`](macro@crate::idempotent#on_crash)).
        on_crash: OnCrash;
        /// Whether a request without a key is refused with `missing_key`.
        required: bool;
        /// Whether bare keys, without the quotes of RFC 9651, are refused.
        strict: bool;
        /// Whether a key must be a UUID (any version, but neither nil nor max) and is compared as one, whatever its
        /// spelling.
        uuid: bool;
        /// Whether a key is the value of its header as it is, whatever bytes it has; see
        /// [`KeyRules::opaque`](crate::KeyRules::opaque). `strict` and `uuid` go before it.
        opaque: bool;
        /// Finds the key of a request, instead of the [`header`](Self::header): in a query parameter, in the id of a
        /// webhook's event. `None` is a request without a key. [`strict`](Self::strict) and
        /// [`opaque`](Self::opaque) do not apply to it; [`uuid`](Self::uuid) and the longest length do.
        ///
        /// ```
        /// use idempotent_runtime::{IdempotencyKey, Policy};
        ///
        /// static WEBHOOK: Policy = Policy::new().key(|request| {
        ///     let id = request.headers.get("x-event-id")?;
        ///     Some(IdempotencyKey::from_bytes(id)) // a bad one is refused with `invalid_key`
        /// });
        /// # let _ = &WEBHOOK;
        /// ```
        ///
        /// A panic in it is answered with 500, and the request claims nothing. In an engine's default policy it holds for
        /// routes that name neither a function nor a header.
        key: fn(&Parts) -> Option<Result<IdempotencyKey, KeyError>>;
        /// Whether a request is covered at all. Where it returns `false`, the handler runs as if there were no engine, also
        /// for a request with a key and where one is [`required`](Self::required). It is called for every request. A
        /// panic in it is answered with 500, and the request claims nothing.
        when: fn(&Parts) -> bool;
        /// Whether a request for which no scope finds a caller is refused with 401 `caller_unknown`, before its body is
        /// read. Otherwise its credentials count, see [`Credentials`](crate::scope::Credentials). The answer has no
        /// `WWW-Authenticate`, since only the application knows which scheme it expects: a layer outside can add it.
        require_caller: bool;
        /// Whether the record is completed in the database transaction in which the handler writes, so that both are
        /// committed or neither: see [`Transaction`](crate::Transaction). It needs a store with
        /// [transactions](crate::store::Transactions). A crashed execution has committed nothing, so the next retry
        /// executes, and [`on_crash`](Self::on_crash) has nothing to choose. An engine's default policy cannot choose it.
        transaction: bool;
        /// Which responses become the stored outcome.
        cache: Cache;
        /// Largest request body in bytes; a larger one is refused with 413, and the key stays free. Extractors have
        /// limits of their own: above 2 MB, axum's `DefaultBodyLimit` has to be raised too. Without this choice the
        /// limit is that of the route, `DefaultBodyLimit`, and 64 MiB where that is disabled.
        max_body: usize;
        /// Largest response body in bytes that is stored; a larger one leaves a tombstone.
        max_response: usize;
    }

    /// Replaces "method + route template" as the endpoint in the scope, so that a route whose path changes keeps its
    /// records.
    pub const fn name(mut self, name: &'static str) -> Self {
        set(&mut self.name, Some(Name::Static(name)));
        self
    }

    /// Does what [`name`](Self::name) does, with a name known only at run time.
    pub fn owned_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(Name::Shared(name.into()));
        self
    }

    /// Returns the caller's namespace for keys, on this route.
    pub const fn scope(mut self, scope: fn(&Parts) -> Option<Scope>) -> Self {
        set(&mut self.scope, Some(ScopeFn::Static(scope)));
        self
    }

    /// Does what [`scope`](Self::scope) does, for a function that owns something, such as those of
    /// [`scope`](mod@crate::scope).
    pub fn shared_scope(
        mut self,
        scope: impl Fn(&Parts) -> Option<Scope> + Send + Sync + 'static,
    ) -> Self {
        self.scope = Some(ScopeFn::shared(scope));
        self
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
        set(&mut self.header, Some(KeyHeader::Static(header)));
        self
    }

    /// Does what [`header`](Self::header) does, with a name known only at run time.
    pub fn header_name(mut self, header: HeaderName) -> Self {
        self.header = Some(KeyHeader::Shared(Arc::new(header)));
        self
    }

    /// What is compared between a request and its retry, besides the key.
    pub const fn fingerprint(mut self, fingerprint: FingerprintRule) -> Self {
        set(&mut self.fingerprint, Some(fingerprint));
        self
    }

    /// Which headers of a response are stored at most, named in any case: a replay has these, and `Content-Type` and
    /// `Content-Encoding`, without which the body cannot be read. The first response keeps all its headers. Default: all
    /// but those that are [never stored](crate::StoredResponse).
    ///
    /// # Panics
    ///
    /// If one of them is not a header name or is never stored, or after [`drop_headers`](Self::drop_headers). In a
    /// `static` policy that is a compile error.
    pub const fn keep_headers(self, names: &'static [&'static str]) -> Self {
        check_names(names, true);
        self.storing(StoredHeaders::Keep(HeaderNames::Static(names)))
    }

    /// Does what [`keep_headers`](Self::keep_headers) does, with names known only at run time.
    ///
    /// # Panics
    ///
    /// As `keep_headers`.
    pub fn keep_header_names(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        let names: Arc<[HeaderName]> = names.into_iter().collect();
        names
            .iter()
            .for_each(|name| check_name(name.as_str(), true));
        self.storing(StoredHeaders::Keep(HeaderNames::Shared(names)))
    }

    /// Which headers of a response are not stored, named in any case, besides those that are [never
    /// stored](crate::StoredResponse). The first response keeps all its headers.
    ///
    /// # Panics
    ///
    /// If one of them is not a header name, or after [`keep_headers`](Self::keep_headers). In a `static` policy that is a
    /// compile error.
    pub const fn drop_headers(self, names: &'static [&'static str]) -> Self {
        check_names(names, false);
        self.storing(StoredHeaders::Drop(HeaderNames::Static(names)))
    }

    /// Does what [`drop_headers`](Self::drop_headers) does, with names known only at run time.
    ///
    /// # Panics
    ///
    /// After `keep_headers`.
    pub fn drop_header_names(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        let names = names.into_iter().collect();
        self.storing(StoredHeaders::Drop(HeaderNames::Shared(names)))
    }

    const fn storing(mut self, headers: StoredHeaders) -> Self {
        assert!(
            !matches!(
                (&self.stored_headers, &headers),
                (Some(StoredHeaders::Keep(_)), StoredHeaders::Drop(_))
                    | (Some(StoredHeaders::Drop(_)), StoredHeaders::Keep(_))
            ),
            "keep_headers and drop_headers contradict each other: choose one"
        );
        set(&mut self.stored_headers, Some(headers));
        self
    }

    /// The statuses that prove, on this route, that nothing happened: a response with one of them releases the key, and a
    /// retry executes again. 401, 407, 421, 425 and 429 release on every route.
    ///
    /// A status proves that only if neither the handler nor a layer inside answers with it after an effect. Time-out layers
    /// answer 408 or 503 for a handler that they cut off half-way.
    ///
    /// # Panics
    ///
    /// If one is not between 200 and 599, or is listed twice. In a `static` policy that is a compile error.
    pub const fn release(mut self, statuses: &'static [u16]) -> Self {
        statuses::check(statuses);
        set(&mut self.release, Some(Statuses::Static(statuses)));
        self
    }

    /// Does what [`release`](Self::release) does, with statuses known only at run time.
    ///
    /// # Panics
    ///
    /// If one is not between 200 and 599, or is listed twice.
    pub fn release_statuses(mut self, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        let statuses: Arc<[StatusCode]> = statuses.into_iter().collect();
        let numbers: Vec<u16> = statuses.iter().map(StatusCode::as_u16).collect();
        statuses::check(&numbers);
        self.release = Some(Statuses::Shared(statuses));
        self
    }

    /// This policy, with its gaps filled from `other`.
    pub fn or(self, other: &Self) -> Self {
        // A policy that names a header has said where the key is.
        let key = self.key.or(other.key.filter(|_| self.header.is_none()));
        macro_rules! fill {
            ($($field:ident),*) => {
                Self { key, $($field: self.$field.or_else(|| other.$field.clone())),* }
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
            opaque,
            when,
            scope,
            require_caller,
            fingerprint,
            cache,
            release,
            max_body,
            max_response,
            stored_headers,
            transaction
        )
    }

    /// Where the key comes from on a route with this policy. What the route says goes before what the engine says,
    /// whichever of the two it is.
    pub(crate) fn key_source<'a>(&'a self, engine: &'a Self) -> KeySource<'a> {
        let function = self.key.or(engine.key.filter(|_| self.header.is_none()));
        match function {
            Some(function) => KeySource::Function(function),
            None => KeySource::Header(self.key_header(engine)),
        }
    }

    /// The header that carries the key on a route with this policy. Every look-up of a key must use it: a request whose
    /// key is looked up under another name runs unprotected, and nothing shows that.
    pub(crate) fn key_header<'a>(&'a self, engine: &'a Self) -> &'a KeyHeader {
        static DEFAULT: KeyHeader = KeyHeader::Static(IDEMPOTENCY_KEY);
        let chosen = self.header.as_ref().or(engine.header.as_ref());
        chosen.unwrap_or(&DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "ttl must be longer than zero")]
    fn a_ttl_of_zero_is_refused() {
        let _ = Policy::new().ttl(Duration::ZERO);
    }

    #[test]
    #[should_panic(expected = "release takes statuses of final responses: 200 to 599")]
    fn a_status_below_200_is_refused() {
        let _ = Policy::new().release_statuses([StatusCode::CONTINUE]);
    }

    #[test]
    #[should_panic(expected = "release lists a status twice")]
    fn a_status_that_is_listed_twice_is_refused() {
        let _ = Policy::new().release(&[404, 503, 404]);
    }

    #[test]
    #[should_panic(expected = "lease must be at least 100 milliseconds")]
    fn an_endless_lease_is_refused() {
        let _ = Policy::new().lease(Duration::MAX);
    }
}
