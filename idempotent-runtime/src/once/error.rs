//! Why an operation has no value.

use std::{error::Error, fmt, time::Duration};

use bytes::Bytes;
use http::{Response, header::RETRY_AFTER};
use http_body_util::{BodyExt, Collected};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    body::{Body, from_engine},
    boxes::BoxError,
    engine::Reply,
    problem::ProblemCode,
    step::StepError,
};

/// What an operation returns that did not succeed. It says what becomes of the key.
#[derive(Debug)]
pub enum NotDone<E> {
    /// It failed for good, as a payment that was declined: this is the outcome, and is stored. Nobody runs it again.
    Failed(E),
    /// Nothing happened, for certain: the key is free, and the next call runs the operation.
    Nothing(BoxError),
    /// What happened is not known, as after a time-out: nothing is stored, and the next call is treated as after a crash, by
    /// [`Policy::on_crash`](crate::Policy::on_crash).
    Unknown(BoxError),
}

/// Why [`Once::run`](super::Once::run) returns no value.
#[derive(Debug)]
#[non_exhaustive]
pub enum OnceError<E> {
    /// The operation failed for good, in this call or an earlier one.
    Failed(E),
    /// The operation says that nothing happened. The next call runs it.
    Nothing(BoxError),
    /// The operation does not know what happened.
    Unknown(BoxError),
    /// The engine has no outcome, or none that may be given for this command.
    Problem(OnceProblem),
    /// The command has no form in JSON. Nothing was executed.
    Command(serde_json::Error),
    /// The operation ran, and its outcome has no form in JSON or cannot be read back as what it was.
    ///
    /// One that could not be written is not known to anybody. One that cannot be read is stored: an earlier version of the
    /// program may have stored another type.
    Outcome(serde_json::Error),
}

/// An answer of the engine itself, with the codes of those on routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnceProblem {
    code: ProblemCode,
    detail: Box<str>,
    retry_after: Option<Duration>,
    retryable: bool,
}

impl OnceProblem {
    /// Which answer.
    #[must_use]
    pub fn code(&self) -> ProblemCode {
        self.code
    }

    /// After which time the same call makes sense again, if that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl<E> OnceError<E> {
    /// Whether the same call may have an outcome later: a message should be delivered again, and not be dropped.
    ///
    /// Not for [`Unknown`](Self::Unknown) under the default `on_crash = "refuse"` alone: until somebody finds out what
    /// happened, the calls get `outcome_unknown`, which is retryable.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Nothing(_) | Self::Unknown(_) => true,
            Self::Problem(problem) => problem.retryable,
            Self::Failed(_) | Self::Command(_) | Self::Outcome(_) => false,
        }
    }

    /// The answer of the engine, if it is one.
    #[must_use]
    pub fn problem(&self) -> Option<&OnceProblem> {
        match self {
            Self::Problem(problem) => Some(problem),
            _ => None,
        }
    }
}

/// A problem's body, as far as it counts here.
#[derive(Deserialize)]
struct Stated {
    code: Box<str>,
    detail: Box<str>,
    retryable: bool,
}

/// The outcome in a reply, or the engine's own answer.
pub(super) async fn read<T, E>(reply: Reply<Body>) -> Result<T, OnceError<E>>
where
    T: DeserializeOwned,
    E: DeserializeOwned,
{
    let (head, body) = from_engine(reply).into_parts();
    // Invariant: the bodies of outcomes, replays and problems are whole.
    let body = body.collect().await.map(Collected::to_bytes);
    let body = body.unwrap_or_default();
    match problem(&Response::from_parts(head, &body)) {
        Some(problem) => Err(OnceError::Problem(problem)),
        None => match serde_json::from_slice::<Result<T, E>>(&body) {
            Ok(outcome) => outcome.map_err(OnceError::Failed),
            Err(error) => Err(OnceError::Outcome(error)),
        },
    }
}

/// The problem that this response is. No outcome has a member `code` where one has.
fn problem(reply: &Response<&Bytes>) -> Option<OnceProblem> {
    let stated: Stated = serde_json::from_slice(reply.body()).ok()?;
    let code = ProblemCode::named(&stated.code)?;
    let seconds = reply.headers().get(RETRY_AFTER);
    let seconds = seconds.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    Some(OnceProblem {
        code,
        detail: stated.detail,
        retry_after: seconds.map(Duration::from_secs),
        retryable: stated.retryable,
    })
}

impl<S, E> From<StepError<S>> for NotDone<E>
where
    S: Error + Send + Sync + 'static,
{
    /// A step whose outcome is not known leaves that of its operation unknown.
    fn from(error: StepError<S>) -> Self {
        Self::Unknown(Box::new(error))
    }
}

impl fmt::Display for OnceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl Error for OnceProblem {}

impl<E> fmt::Display for OnceError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(_) => f.write_str("the operation failed for good"),
            Self::Nothing(_) => f.write_str("nothing was executed, and the key is free"),
            Self::Unknown(_) => f.write_str("what the operation did is not known"),
            Self::Problem(problem) => problem.fmt(f),
            Self::Command(_) => {
                f.write_str("the command has no form in JSON; nothing was executed")
            }
            Self::Outcome(_) => f.write_str(
                "the operation ran, and its outcome cannot be written as JSON and read back",
            ),
        }
    }
}

impl<E: Error + 'static> Error for OnceError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Nothing(error) | Self::Unknown(error) => Some(&**error),
            Self::Command(error) | Self::Outcome(error) => Some(error),
            Self::Problem(_) => None,
        }
    }
}
