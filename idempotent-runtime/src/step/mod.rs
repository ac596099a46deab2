//! Steps: what a handler does at other services, each with an outcome of its own.
//!
//! With `on_crash = "retry"` a handler whose process crashed runs again, from its beginning. A [step](Execution::step) keeps
//! what it already did from being done again: its outcome is stored with the record as soon as it is known, and the next
//! attempt gets it instead of running the step. Of a step that was cut off half-way nothing is known; it runs again, under
//! the [same key](Step::downstream_key) for the service that it calls, so that a service that honours keys does it once.
//!
//! ```
//! use axum::{http::StatusCode, response::IntoResponse};
//! use idempotent_runtime::{Execution, Step, StepError, idempotent};
//! # use serde::{Deserialize, Serialize};
//! # struct Provider;
//! # impl Provider {
//! #     async fn charge(key: String) -> Result<Charge, StatusCode> { Ok(Charge { id: key }) }
//! # }
//! # async fn reserve(_: String) -> Result<u64, StatusCode> { Ok(7) }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Charge {
//!     id: String,
//! }
//!
//! #[idempotent(required, on_crash = "retry")]
//! async fn checkout(execution: Execution) -> Result<String, StepError<StatusCode>> {
//!     let order: u64 = execution
//!         .step("reserve", |step: Step| async move { reserve(step.downstream_key()).await })
//!         .await?;
//!     let charge: Charge = execution
//!         .step("charge", |step: Step| async move { Provider::charge(step.downstream_key()).await })
//!         .await?;
//!     Ok(format!("order {order} is paid by {}", charge.id))
//! }
//! ```
//!
//! # What is an outcome
//!
//! 1. **`Ok` is an outcome.** It is stored before [`step`](Execution::step) returns it, and is what every later attempt gets.
//! 2. **`Err` means that what happened is not known**: a time-out, a lost connection, a 500. Nothing is stored; the step runs
//!    again, in this attempt if the handler asks for it again, or else in the next one, with the same downstream key.
//! 3. **A definite refusal is an outcome too.** Return it within `Ok`: a step of type `Result<Charge, Declined>` returns
//!    `Ok(Err(Declined))`, and the caller writes `.await??`.
//! 4. If the error of a step becomes the handler's response, then what the operation did is not known, and the response
//!    should not be stored: [`StepError`] as a response takes care of that, and for responses of your own there is
//!    [`Retention::Unknown`](crate::Retention::Unknown).
//!
//! # The rules
//!
//! 1. **Steps are told apart by their names**, each of which is used once in an execution: in a loop, number them. A step
//!    that failed may be asked for again.
//! 2. **Every attempt asks for the same steps in the same order**, up to where it ends; steps that run at the same time have
//!    the order of the calls of `step`. Otherwise the stored steps would be those of another handler: a step that a deploy
//!    renamed, moved, or gave another type is [an error](StepFaultKind::Changed) and does not run. Whatever decides which
//!    steps run, and is not part of the request, such as the time or a random number, is to be a step itself.
//! 3. **A step of an execution that lost its lease is an error.** It does not run; if it ran meanwhile, it stores nothing.
//! 4. A step costs one write of the store. Only attempts after the first read, once.
//! 5. The outcome is stored as JSON, compressed and encrypted as responses are. It has to be readable as what it was; that
//!    is checked when it is stored. Limits: 128 bytes a name, 256 steps an execution,
//!    [64 KiB an outcome](crate::store::steps::MAX_STEP), [1 MiB together](crate::store::steps::MAX_LOG).
//! 6. Steps go with their record, and at the latest with its completion: they are for retries, not for reports.
//! 7. Once a step is stored, a response that would release the key abandons it instead where the route executes or asks
//!    again after a crash (`on_crash = "retry"` or a function), so that the next attempt knows the steps.
//!
//! # Caveats
//!
//! - With the default `on_crash = "refuse"` no second attempt is made, and steps are of no use but for their keys.
//! - A step does not make another service idempotent. One that honours no keys may see a step twice: where it was cut off
//!   between its effect and the storing of its outcome.
//! - The store has to keep steps ([`StepLog`](crate::store::StepLog)), as all stores of this crate do; on others they are
//!   refused. In a handler's transaction on SQLite they are refused too: it keeps all other writers out of the file. On the
//!   other databases a step is stored at once, whether the transaction is committed or not.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use crate::{execution::Execution, store::steps::MAX_STEP};

mod body;
mod entry;
mod error;
pub(crate) mod log;
#[cfg(feature = "axum")]
mod response;

pub use body::StepBody;
use entry::{Entry, type_tag};
use error::{Cause, JsonFlaw};
pub use error::{StepError, StepFault, StepFaultKind};

/// The longest name of a step, in bytes.
const MAX_NAME: usize = 128;
/// The most steps of one execution.
const MAX_STEPS: usize = 256;

/// What [`Execution::step`] returns. Boxed, so that the future of a handler with many steps stays small.
pub type StepFuture<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, StepError<E>>> + Send + 'a>>;

/// A step while it runs: what it passes on to the service that it calls.
#[derive(Clone)]
pub struct Step {
    execution: Execution,
    name: Box<str>,
}

impl Step {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A key to pass on as the idempotency key of the service that this step calls.
    ///
    /// It is the same for all attempts and processes, and different for each step and each record. It is another one than
    /// [`Execution::downstream_key`] has for a label of the same name.
    #[must_use]
    pub fn downstream_key(&self) -> String {
        self.execution.lease().step_key(&self.name)
    }

    /// The execution that it is a step of.
    #[must_use]
    pub fn execution(&self) -> &Execution {
        &self.execution
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step")
            .field("name", &self.name)
            .field("execution", &self.execution)
            .finish()
    }
}

impl Execution {
    /// Runs this step, or returns the outcome that an earlier attempt of this execution stored.
    ///
    /// `body` is an async closure without arguments, or with one: `|step: Step| async move { … }`. `Ok` is stored; `Err`
    /// means that what happened is not known. The position of a step is that of this call, not of the first poll. See
    /// [the module](crate::step) for the rules, and an example.
    ///
    /// # Errors
    ///
    /// [`StepError::Failed`] with the error that the body returned; [`StepError::Fault`] if the step did not run or was not
    /// stored: the lease is lost, the steps have changed since an earlier attempt, a limit, or the store.
    ///
    /// # Cancellation
    ///
    /// Dropped while the body runs, nothing is stored: the step runs again when it is asked for. Dropped while its outcome
    /// is stored, the storing goes on, and the outcome stays known to this execution. A step that is kept and not polled
    /// holds up no other one.
    pub fn step<'a, T, E, F, Arguments>(&self, name: &str, body: F) -> StepFuture<'a, T, E>
    where
        T: Serialize + DeserializeOwned + Send + 'a,
        E: Send + 'a,
        F: StepBody<Arguments, T, E, Future: Send> + Send + 'a,
    {
        let step = Step {
            execution: self.clone(),
            name: name.into(),
        };
        let turn = step.execution.lease().steps().0.begin(name);
        Box::pin(async move {
            let turn = turn.map_err(logged)?;
            let position = turn.position;
            let (lease, name) = (Arc::clone(step.execution.lease()), step.name.clone());
            let (steps, access) = lease.steps();
            let lost = |fault: StepFault| {
                if fault.kind() == StepFaultKind::LeaseLost {
                    lease.lose();
                }
                logged(fault)
            };
            let tag = type_tag::<T>();
            let stored = steps.stored(&access, position, &name, &tag).await;
            if let Some(outcome) = stored.map_err(&lost)? {
                let outcome = serde_json::from_slice(&outcome).map_err(|error| {
                    let (step, flaw) = (name.clone(), JsonFlaw::of(&error));
                    logged(Cause::Read { step, flaw }.into())
                })?;
                turn.done();
                return Ok(outcome);
            }
            if lease.is_lost() {
                return Err(logged(Cause::LeaseLost { step: name }.into()).into());
            }
            let outcome = body.call(step).await.map_err(StepError::Failed)?;
            let (outcome, json) = through_json(&name, &outcome).map_err(logged)?;
            let entry = Entry {
                position,
                name,
                tag,
                outcome: json.into(),
            };
            steps.store(&access, entry).await.map_err(&lost)?;
            turn.done();
            Ok(outcome)
        })
    }
}

/// The outcome as a later attempt will get it, so that this one gets nothing else, and the JSON that is stored.
fn through_json<T>(name: &str, outcome: &T) -> Result<(T, Vec<u8>), StepFault>
where
    T: Serialize + DeserializeOwned,
{
    let failed = |error| Cause::Write {
        step: name.into(),
        flaw: JsonFlaw::of(&error),
    };
    let json = serde_json::to_vec(outcome).map_err(failed)?;
    if json.len() > MAX_STEP {
        let bytes = json.len();
        let step = name.into();
        return Err(Cause::TooLarge { step, bytes }.into());
    }
    let outcome = serde_json::from_slice(&json).map_err(failed)?;
    Ok((outcome, json))
}

/// A fault is the programmer's or the operator's to see, whatever the handler makes of it.
fn logged(fault: StepFault) -> StepFault {
    let error = &fault as &dyn std::error::Error;
    if fault.kind() == StepFaultKind::LeaseLost {
        tracing::warn!(error, "a step was not stored");
    } else {
        tracing::error!(error, "a step was refused");
    }
    fault
}
