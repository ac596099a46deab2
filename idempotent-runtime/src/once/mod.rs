//! The engine for code without HTTP: message consumers, webhooks, scheduled jobs.
//!
//! [`Idempotency::once`] runs an operation at most once for its key, and gives everybody who asks with that key its outcome.
//! Records, leases, waiting, crashes, [steps](crate::step), metrics and spans are those of routes, in the same store.
//!
//! ```
//! use idempotent_runtime::{Idempotency, NotDone, OnceError};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Charge {
//!     order: u64,
//!     cents: u64,
//! }
//!
//! /// Why a charge failed for good.
//! #[derive(Debug, Serialize, Deserialize)]
//! enum Declined {
//!     NoFunds,
//! }
//!
//! async fn on_message(
//!     idempotency: &Idempotency,
//!     id: &str,
//!     charge: Charge,
//! ) -> Result<u64, OnceError<Declined>> {
//!     idempotency
//!         .once("charges", id)
//!         .fingerprint(&charge)
//!         .run(async move |execution| match charge.cents {
//!             0 => Err(NotDone::Failed(Declined::NoFunds)),
//!             cents => Ok(cents),
//!         })
//!         .await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let idempotency = Idempotency::builder().build()?;
//! let charge = Charge { order: 7, cents: 100 };
//! for _ in 0..2 {
//!     let paid = on_message(&idempotency, "message-1", charge.clone()).await;
//!     assert!(matches!(paid, Ok(100)));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The rules
//!
//! 1. **The endpoint and the key name the operation**, within its [caller](Once::caller) if it has one. The endpoint shares
//!    its names with those of routes (`name = "…"`). Take the key from what triggers the operation: the id of a message, of a
//!    webhook's event, or the time that a job was scheduled for. A key that is made anew for each delivery protects nothing.
//! 2. **`Ok` and [`NotDone::Failed`] are outcomes**: they are stored as JSON, and are what everybody gets. So the value that
//!    this call returns has been through JSON, too. [`NotDone::Nothing`] releases the key, and [`NotDone::Unknown`] leaves the
//!    outcome unknown, as a crash does.
//! 3. **[Fingerprint](Once::fingerprint) the command**, so that a key that is used for another command is refused
//!    (`mismatch`) instead of answered with the wrong outcome. It is compared by what its JSON means.
//! 4. The [policy](Once::policy) is the engine's default one, and what this call chooses differently. What only HTTP has is
//!    without effect: headers, statuses, bodies, the engine's scope and its caller step.
//! 5. **Acknowledge a message after [`run`](Once::run) has returned an outcome.** [`OnceError::is_retryable`] says after which
//!    errors a redelivery makes sense.
//!
//! # Cancellation
//!
//! An operation that has begun goes on if the future of `run` is dropped, on the runtime of the engine, and its outcome is
//! stored: as an execution whose client leaves. One that waits for another execution, or has not begun, ends.

use bytes::Bytes;
use http::Request;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    body::Body,
    caller::Caller,
    engine::{FoundKey, Idempotency},
    execution::Execution,
    fingerprint::FingerprintRule,
    key::{IdempotencyKey, KeyError},
    policy::Policy,
    scope::Scope,
};

mod error;
mod operation;

use error::read;
pub use error::{NotDone, OnceError, OnceProblem};
use operation::{Aside, Operation};

/// An operation that runs once for its key: what [`Idempotency::once`] returns. See [the module](self) for the rules.
#[derive(Debug)]
#[must_use = "nothing runs before `run`"]
pub struct Once {
    engine: Idempotency,
    key: Result<IdempotencyKey, KeyError>,
    scope: Scope,
    policy: Policy,
    endpoint: Box<str>,
    /// What the command is, as JSON; empty where it does not count.
    command: Result<Bytes, serde_json::Error>,
}

impl Idempotency {
    /// An operation of this kind, with this key. See [`once`](crate::once) for the rules, and an example.
    ///
    /// A key is 1 to 255 printable ASCII characters, as on routes; another one is an error of [`run`](Once::run).
    ///
    /// # Panics
    ///
    /// If the endpoint is empty.
    pub fn once(&self, endpoint: impl Into<Box<str>>, key: impl AsRef<str>) -> Once {
        let endpoint = endpoint.into();
        assert!(
            !endpoint.is_empty(),
            "an operation needs a name as its endpoint"
        );
        Once {
            engine: self.clone(),
            key: IdempotencyKey::new(key),
            scope: Scope::new([]),
            policy: Policy::new(),
            endpoint,
            command: Ok(Bytes::new()),
        }
    }
}

impl Once {
    /// What the operation is asked to do. The same key with another command is refused with `mismatch`.
    ///
    /// It is compared as JSON, by what it means: the order of a map's entries does not count. Without it the key alone says
    /// what is asked for.
    pub fn fingerprint<C: Serialize + ?Sized>(mut self, command: &C) -> Self {
        self.command = serde_json::to_vec(command).map(Bytes::from);
        self
    }

    /// For whom: keys are unique within one caller. Without it they are the application's own.
    pub fn caller<C: Caller + ?Sized>(mut self, caller: &C) -> Self {
        // No name of a caller is that of the application.
        self.scope = Scope::of_several([caller.scope()]);
        self
    }

    /// What this operation chooses differently from the engine's default policy: its ttl, lease, waiting and crashes.
    ///
    /// # Panics
    ///
    /// If the policy has a name: that of the operation is its endpoint.
    pub fn policy(mut self, policy: Policy) -> Self {
        assert!(
            policy.name.is_none(),
            "the policy of an operation has the name {:?}: give it to `once` as the endpoint",
            policy.name.as_ref().map_or("", |name| name.as_str()),
        );
        self.policy = policy;
        self
    }

    /// Runs the operation, or returns the outcome that it has already.
    ///
    /// It runs within a tokio runtime. The operation may outlive the future of this call, and so may what it returns.
    ///
    /// # Errors
    ///
    /// [`OnceError::Failed`] with the outcome, if the operation failed for good, now or earlier; else why there is none.
    ///
    /// # Panics
    ///
    /// A panic of the operation is an outcome: [`OnceError::Problem`] with `handler_panicked`.
    pub async fn run<T, E, F, R>(self, operation: F) -> Result<T, OnceError<E>>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: Serialize + DeserializeOwned + Send + 'static,
        F: FnOnce(Execution) -> R + Send + 'static,
        R: Future<Output = Result<T, NotDone<E>>> + Send + 'static,
    {
        let command = self.command.map_err(OnceError::Command)?;
        let aside = Aside::default();
        let operation = Operation {
            run: operation,
            scope: self.scope,
            aside: aside.clone(),
        };
        let policy = of_operation(self.policy, &self.endpoint);
        let plan = self.engine.plan_of_operation(&policy);
        let found = FoundKey::ByFunction(self.key);
        let request = request(command);
        let reply = self.engine.run(plan, found, request, operation).await;
        match aside.take() {
            Some(not_done) => Err(not_done),
            None => read(reply).await,
        }
    }
}

/// The command as the engine takes requests. Only its body tells one from another.
fn request(command: Bytes) -> Request<Body> {
    let mut request = Request::new(Body::from(command));
    *request.method_mut() = http::Method::POST;
    let json = http::HeaderValue::from_static("application/json");
    request
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    request
}

/// The policy of an operation: what the engine's default one says of HTTP does not count.
fn of_operation(policy: Policy, endpoint: &str) -> Policy {
    policy
        .owned_name(endpoint)
        .fingerprint(FingerprintRule::new().json())
        .shared_scope(|_| None)
        .max_body(usize::MAX)
}
