//! How an engine is put together: the settings here, the engine of them in `build`.

use std::{borrow::Cow, fmt, future::Future, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, request::Parts};
use tokio::runtime::Handle;

use super::{
    core::{Idempotency, on_store_error::OnStoreError},
    handler::BoxError,
    profile::Profile,
    secrets::Secrets,
};
use crate::{
    caller::CallerFn,
    credentials::Credentials,
    key::IdempotencyKey,
    policy::Policy,
    problem::DEFAULT_CHALLENGE,
    response::{ResponseLimits, Sealer},
    scope::{Scope, ScopeFn},
    store::{ConnectError, Store, erased::ErasedStore},
};

mod build;

/// Puts an [`Idempotency`] together; every setting has a default.
#[must_use = "call `install()` or `build()` to get the engine"]
pub struct Builder {
    store: Option<Box<dyn ErasedStore>>,
    runtime: Option<Handle>,
    policy: Policy,
    profile: Profile,
    caller: Option<CallerFn>,
    scope: Option<ScopeFn>,
    credentials: Credentials,
    secrets: Secrets,
    replay_header: Option<HeaderName>,
    outcome_header: Option<HeaderName>,
    mismatch_status: Option<StatusCode>,
    problem_type_base: Option<Cow<'static, str>>,
    challenge: HeaderValue,
    on_store_error: OnStoreError,
    not_started: Option<fn(&BoxError) -> bool>,
    store_timeout: Duration,
    max_detached: usize,
    max_waiters: usize,
    max_waiters_per_key: usize,
    max_waiting_bytes: usize,
    max_key_length: usize,
    response_limits: ResponseLimits,
    sealer: Sealer,
    require_transactions: bool,
    #[cfg(feature = "admin")]
    admin_writes: bool,
}

impl Idempotency {
    /// Starts building an engine.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// An engine with all defaults on the store of this URL: `memory:`, `sqlite://file.db`, `postgres://…`, `mysql://…`
    /// or `redis://…`. See [`store::connect`](crate::store::connect) for the forms, and for an engine with other
    /// settings: `Idempotency::builder().store(store::connect(url).await?)`.
    ///
    /// # Errors
    ///
    /// If the URL is wrong, its store was not compiled in, or it cannot be opened. The message says what to do.
    ///
    /// # Panics
    ///
    /// Never: no default is refused.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        let store = crate::store::connect(url).await?;
        // Invariant: no default is refused.
        Ok(Self::builder()
            .store(store)
            .build()
            .expect("the defaults are valid"))
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            store: None,
            runtime: None,
            policy: Policy::new(),
            profile: Profile::Default,
            caller: None,
            scope: None,
            credentials: Credentials::new(),
            secrets: Secrets::default(),
            replay_header: None,
            outcome_header: None,
            mismatch_status: None,
            problem_type_base: None,
            challenge: HeaderValue::from_static(DEFAULT_CHALLENGE),
            on_store_error: OnStoreError::Refuse,
            not_started: None,
            store_timeout: Duration::from_secs(2),
            max_detached: 1024,
            max_waiters: 4096,
            max_waiters_per_key: 128,
            max_waiting_bytes: 64 * 1024 * 1024,
            max_key_length: IdempotencyKey::MAX_LEN,
            response_limits: ResponseLimits::default(),
            sealer: Sealer::default(),
            require_transactions: false,
            #[cfg(feature = "admin")]
            admin_writes: false,
        }
    }

    /// Where records live. Default: a new [`MemoryStore`](crate::MemoryStore), which protects this process only.
    pub fn store(mut self, store: impl Store) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// Where the engine's background tasks run: executions whose client has gone, renewals of leases, records of streams,
    /// withdrawals, and outcomes that are stored late. What the store opens or starts while the engine asks it, such as
    /// connections and look-ups, belongs to this runtime too. Handlers run where they are called until their client has gone.
    ///
    /// Default: each task runs on the runtime that serves its request. That is right where one runtime serves all requests
    /// and outlives them. Choose one where it does not, as where each worker has a runtime of its own that ends before the
    /// process: a task ends with its runtime, and the outcome of its execution is then unknown. The chosen runtime has to
    /// run for as long as the engine is used, up to the end of [`Idempotency::shutdown`].
    ///
    /// A store is connected where `connect` or `migrate` is awaited: do that on the same runtime.
    ///
    /// ```
    /// use idempotent_runtime::Idempotency;
    ///
    /// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    /// let idempotency = Idempotency::builder().runtime(runtime.handle().clone()).build()?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// What routes get that did not choose for themselves.
    ///
    /// A [`scope`](Policy::scope) in it goes before [`Builder::scope`]; a [`name`](Policy::name) is refused.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// A bundle of options that makes the engine answer as others do. Each is still overridable.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// Finds out who calls, on every route that names no caller of its own: keys of different callers never meet, and
    /// nobody gets a stored answer who is not let in.
    ///
    /// It runs on every request with a key, replays included, before anything else: before the key is read, and before
    /// the store is asked. The response that it returns instead of a caller is the answer, and the key is not touched.
    /// If it panics, the answer is 500, and the key is not touched either. The parts that it returns are those that the
    /// handler sees. A request that does not carry a key passes by.
    ///
    /// With axum, [`scope::extractor`](crate::scope::extractor) makes such a function of an extractor.
    ///
    /// ```
    /// use http::{Response, request::Parts};
    /// use idempotent_runtime::{Idempotency, Scope};
    ///
    /// async fn authenticate(parts: Parts) -> Result<(Parts, Scope), Response<String>> {
    ///     match session(&parts).await {
    ///         Some(account) => Ok((parts, Scope::new(account))),
    ///         None => Err(Response::builder().status(401).body(String::new()).expect("a valid status")),
    ///     }
    /// }
    /// # async fn session(_: &Parts) -> Option<String> { None }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let idempotency = Idempotency::builder().caller(authenticate).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn caller<F, R, B>(mut self, find: F) -> Self
    where
        F: Fn(Parts) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(Parts, Scope), Response<B>>> + Send + 'static,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        self.caller = Some(CallerFn::new(find));
        self
    }

    /// Who the caller is: keys of different callers never meet.
    ///
    /// See [`scope::header`](crate::scope::header) and [`scope::extension`](crate::scope::extension) for ready
    /// ones. Where the function answers `None`, as without any, the request's [credentials](Self::credentials) become
    /// part of its fingerprint: another caller's key then gets `caller_mismatch`, and is neither replayed nor executed.
    /// So does the same caller's with a renewed token, which is why a service whose callers have accounts sets a scope.
    pub fn scope(
        mut self,
        scope: impl Fn(&Parts) -> Option<Scope> + Send + Sync + 'static,
    ) -> Self {
        self.scope = Some(ScopeFn::shared(scope));
        self
    }

    /// Which request headers say who calls where no scope does. Default: see [`Credentials`].
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Makes record identities an HMAC under this secret (at least 16 bytes), so that who reads the store cannot
    /// test guesses of keys against it. All processes on one store need the same. Changed at once, it orphans the records
    /// made before: [rotate it](crate::guide::secrets).
    pub fn secret(mut self, secret: impl Into<Vec<u8>>) -> Self {
        self.secrets.set_own(secret.into());
        self
    }

    /// Also finds the records that were made under this other secret (at least 16 bytes), and never executes what one of
    /// them stands for: for as long as [a rotation](crate::guide::secrets) takes. Default: there is no other one.
    ///
    /// It costs each request with a key one read of the store, and one more before its handler starts.
    pub fn and_secret(mut self, other: impl Into<Vec<u8>>) -> Self {
        self.secrets.set_other(Some(other.into()));
        self
    }

    /// The same for the records that were made without a secret, when one is introduced.
    pub fn and_no_secret(mut self) -> Self {
        self.secrets.set_other(None);
        self
    }

    /// The response header that marks a replay. Default: the profile's, `idempotent-replay`.
    pub fn replay_header(mut self, name: HeaderName) -> Self {
        self.replay_header = Some(name);
        self
    }

    /// A response header that says on every answer to a request with a key how that request ended. Default: none.
    ///
    /// Its value is that of the metric label `outcome`: `executed`, `rejected` (by an extractor), `replayed`,
    /// `replayed_after_wait`, `unprotected` (executed without a record, as `on_store_error` says), or the
    /// [`ProblemCode`](crate::ProblemCode) of an answer of the engine's own. It describes one request, so it is never
    /// stored, and what a handler sets under that name is dropped.
    pub fn outcome_header(mut self, name: HeaderName) -> Self {
        self.outcome_header = Some(name);
        self
    }

    /// The status of `mismatch` and `caller_mismatch`. Default: the profile's, 409.
    pub fn mismatch_status(mut self, status: StatusCode) -> Self {
        self.mismatch_status = Some(status);
        self
    }

    /// What the `type` of problem answers begins with; the code follows. Default: `/problems/idempotency/`.
    ///
    /// Set the absolute address under which the service documents its errors, such as
    /// `https://api.example.com/problems/`, or a `urn:` where there is nothing to read. The default claims nobody's
    /// domain: it is a reference with the full path, as RFC 9457, section 3.1.1, has it. A client resolves it against
    /// the address that it called, so the same problem has another `type` on another host.
    pub fn problem_type_base(mut self, base: impl Into<Cow<'static, str>>) -> Self {
        self.problem_type_base = Some(base.into());
        self
    }

    /// The `WWW-Authenticate` header of a 401 `caller_unknown`: how the service's callers authenticate, such as
    /// `Bearer realm="api"` or, for several ways, `Bearer, Basic realm="api"`. Default: `Idempotency-Caller`.
    ///
    /// A 401 has to have at least one challenge (RFC 9110, section 15.5.2), and the engine does not know the application's
    /// schemes. The default is the name of none, which clients ignore. The answers of a
    /// [`caller`](Self::caller) have the headers that it gives them.
    pub fn challenge(mut self, challenge: HeaderValue) -> Self {
        self.challenge = challenge;
        self
    }

    /// What a request gets when the store cannot be asked. Default: 503.
    pub fn on_store_error(mut self, choice: OnStoreError) -> Self {
        self.on_store_error = choice;
        self
    }

    /// Says which errors of a service behind an [`IdempotencyLayer`](crate::IdempotencyLayer) come before any work, so that
    /// the key is released and a retry executes. Any other error of its call leaves the outcome unknown. Default: only
    /// tower's `load_shed::error::Overloaded`, which counts whatever the function says.
    ///
    /// The function is asked about the error itself, as the service returned it, where the service's error type is tower's
    /// `BoxError`, as it is of tower's own layers. Name an error only if the service never returns it after it has begun.
    ///
    /// ```
    /// # use idempotent_runtime::Idempotency;
    /// # #[derive(Debug)]
    /// # struct CircuitOpen;
    /// # impl std::fmt::Display for CircuitOpen {
    /// #     fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { Ok(()) }
    /// # }
    /// # impl std::error::Error for CircuitOpen {}
    /// # fn build() -> Result<(), idempotent_runtime::BuildError> {
    /// let idempotency = Idempotency::builder()
    ///     .not_started(|error| error.is::<CircuitOpen>())
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn not_started(mut self, names: fn(&BoxError) -> bool) -> Self {
        self.not_started = Some(names);
        self
    }

    /// How long one request waits for one store operation, repetitions included; at most an hour. Default: 2 seconds.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.store_timeout = timeout;
        self
    }

    /// How many executions may go on without a client before new *executions* get 503; replays and duplicates go on. One
    /// caller takes at most a quarter of them, and an execution older than its `max_lifetime` none. Requests with neither a
    /// scope nor credentials count in all, and not as one caller: they may take all of them. Default: 1,024.
    pub fn max_detached(mut self, most: usize) -> Self {
        self.max_detached = most;
        self
    }

    /// How many duplicates may wait in this process. Each keeps its request body, up to the route's `max_body`, since
    /// it may have to execute after all. Default: 4,096.
    pub fn max_waiters(mut self, most: usize) -> Self {
        self.max_waiters = most;
        self
    }

    /// How many duplicates may wait for one key in this process. Default: 128.
    pub fn max_waiters_per_key(mut self, most: usize) -> Self {
        self.max_waiters_per_key = most;
        self
    }

    /// How many bytes of request bodies the waiting duplicates of this process may keep; one that would exceed them gets
    /// `conflict`. Default: 64 MiB.
    pub fn max_waiting_bytes(mut self, bytes: usize) -> Self {
        self.max_waiting_bytes = bytes;
        self
    }

    /// The longest key that is accepted, in bytes after decoding. Default, and the most: 255.
    pub fn max_key_length(mut self, bytes: usize) -> Self {
        self.max_key_length = bytes.min(IdempotencyKey::MAX_LEN);
        self
    }

    /// How many header lines a response may have to be kept; one with more leaves a tombstone. Default: 64.
    pub fn max_response_headers(mut self, lines: usize) -> Self {
        self.response_limits.max_headers = lines;
        self
    }

    /// How many bytes of headers a response may have to be kept; one with more leaves a tombstone. Default: 16 KiB.
    pub fn max_response_header_bytes(mut self, bytes: usize) -> Self {
        self.response_limits.max_header_bytes = bytes;
        self
    }

    /// Compresses responses of at least so many bytes before they are stored, where that makes them smaller. Reading
    /// them back needs no setting. Default: never.
    #[cfg(feature = "compression")]
    pub fn compress_from(mut self, bytes: usize) -> Self {
        self.sealer.compress_from = Some(bytes);
        self
    }

    /// Has [`build`](Self::build) fail if the store has no transactions, for services with
    /// [`transaction`](macro@crate::idempotent#transaction) routes: otherwise the first request to one is answered with 500
    /// `transaction_failed`. Default: not checked.
    pub fn require_transactions(mut self) -> Self {
        self.require_transactions = true;
        self
    }

    /// Whether the [admin routes](crate::admin) change and reveal records, for whom their guard lets write. Default: no,
    /// they only show them.
    #[cfg(feature = "admin")]
    pub fn admin_writes(mut self, allowed: bool) -> Self {
        self.admin_writes = allowed;
        self
    }

    /// Encrypts responses before they are stored, and replays only what decrypts. Default: stored as they are.
    #[cfg(feature = "encryption")]
    pub fn encrypt(mut self, keyring: crate::Keyring) -> Self {
        self.sealer.keyring = Some(keyring);
        self
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("store", &self.store.as_ref().map(|store| store.name()))
            .field("policy", &self.policy)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Settings;

    /// The table of limits in DESIGN.md, section 11. The bounds of the memory store are tested beside it.
    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let builder = Builder::new();
        assert_eq!(builder.max_key_length, 255);
        assert_eq!(builder.response_limits.max_headers, 64);
        assert_eq!(builder.response_limits.max_header_bytes, 16 * 1024);
        assert_eq!(builder.max_detached, 1024);
        assert_eq!(builder.max_waiters_per_key, 128);
        assert_eq!(builder.max_waiters, 4096);
        assert_eq!(builder.max_waiting_bytes, 64 * 1024 * 1024);
        assert_eq!(builder.store_timeout, Duration::from_secs(2));

        let settings = Settings::resolve(&Policy::new(), &builder.policy);
        assert_eq!(settings.max_body, 2 * 1024 * 1024);
        assert_eq!(settings.max_response, 1024 * 1024);
        assert_eq!(settings.lease, Duration::from_secs(30));
        assert_eq!(settings.max_lifetime, Duration::from_secs(15 * 60));
        assert_eq!(settings.ttl, Duration::from_secs(24 * 60 * 60));
        assert_eq!(settings.wait_timeout, Duration::from_secs(30));
        assert!(settings.wait && !settings.key_rules.strict && !settings.key_rules.uuid);
    }

    /// What was asked for is what the engine enforces: no default of another place takes its part.
    #[test]
    fn the_engine_gets_what_was_chosen() {
        let engine = Idempotency::builder()
            .max_key_length(7)
            .max_response_headers(3)
            .max_response_header_bytes(99)
            .policy(Policy::new().max_response(11))
            .build()
            .unwrap();
        let settings = engine.0.settings(&Policy::new());
        assert_eq!(settings.key_rules.max_len, 7);
        let limits = engine.0.response_limits(&settings);
        assert_eq!(
            (limits.max_headers, limits.max_header_bytes, limits.max_body),
            (3, 99, 11)
        );
    }
}
