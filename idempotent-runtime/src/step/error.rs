//! Why a step has no outcome.

use std::{error::Error, fmt};

use serde_json::error::Category;

use super::entry::LogFlaw;
use crate::store::StoreError;

/// Why a step has no outcome.
///
/// As a response (with axum) it is the own error's, or else the problem `outcome_unknown`. Neither is stored, as with
/// [`Retention::Unknown`](crate::Retention::Unknown): what happened is not known, so the next retry is treated as after a
/// crash. A [`Retention`](crate::Retention) that the error's response carries decides instead.
#[derive(Debug)]
pub enum StepError<E> {
    /// The step ran and returned this error: what happened is not known. Nothing was stored.
    Failed(E),
    /// The step did not run, or its outcome could not be stored.
    Fault(StepFault),
}

/// Why a step did not run, or why its outcome could not be stored.
#[derive(Debug)]
pub struct StepFault(Cause);

/// What kind of obstacle a [`StepFault`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepFaultKind {
    /// The execution has lost its lease: another one may have taken the key over. The step did not run, or stored nothing.
    LeaseLost,
    /// The steps that an earlier attempt stored are not those that the handler asks for: a step was renamed, moved, added
    /// before others, or returns another type. The step did not run.
    Changed,
    /// The step has run in this execution already, or is running. It did not run again.
    Repeated,
    /// A limit on names, or on the number or the size of steps. Where it is the size, the step ran.
    Limit,
    /// The outcome cannot be written as JSON and read back. The step ran, unless the outcome is of an earlier attempt.
    NotSerializable,
    /// The stored steps are damaged, were written by a newer version, or under a key that this engine does not have. The
    /// step did not run.
    Unreadable,
    /// The store keeps no steps, or none while the handler has a transaction (SQLite). The step did not run.
    Unsupported,
    /// The store did not answer, or refused. A step that ran is stored once this execution runs another one, or the same
    /// again, which then returns what is known without running.
    Store,
}

#[derive(Debug)]
pub(super) enum Cause {
    LeaseLost {
        step: Box<str>,
    },
    Other {
        position: u16,
        stored: Box<str>,
        asked: Box<str>,
    },
    Moved {
        step: Box<str>,
        stored: u16,
        asked: u16,
    },
    Retyped {
        step: Box<str>,
        stored: Box<str>,
        asked: Box<str>,
    },
    Repeated {
        step: Box<str>,
        runs: bool,
    },
    Name {
        bytes: usize,
    },
    TooMany {
        step: Box<str>,
    },
    TooLarge {
        step: Box<str>,
        bytes: usize,
    },
    LogFull {
        step: Box<str>,
    },
    Write {
        step: Box<str>,
        flaw: JsonFlaw,
    },
    Read {
        step: Box<str>,
        flaw: JsonFlaw,
    },
    Unreadable(LogFlaw),
    Unsupported {
        store: &'static str,
    },
    /// The handler's own transaction keeps the store from writing.
    Locked,
    Store {
        step: Box<str>,
        error: StoreError,
    },
}

/// What serde says of an outcome, without its message: that quotes the outcome, which is nothing for a log.
#[derive(Debug)]
pub(super) struct JsonFlaw {
    category: Category,
    line: usize,
    column: usize,
}

impl JsonFlaw {
    pub(super) fn of(error: &serde_json::Error) -> Self {
        Self {
            category: error.classify(),
            line: error.line(),
            column: error.column(),
        }
    }
}

impl fmt::Display for JsonFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = match self.category {
            Category::Data => "a value does not fit the type",
            Category::Syntax | Category::Eof => "it is not valid JSON",
            Category::Io => "it could not be written",
        };
        f.write_str(found)?;
        match self.line {
            // What fails while it is written has no place.
            0 => Ok(()),
            line => write!(f, " (line {line}, column {})", self.column),
        }
    }
}

impl StepFault {
    /// What kind of obstacle it is.
    #[must_use]
    pub fn kind(&self) -> StepFaultKind {
        match &self.0 {
            Cause::LeaseLost { .. } => StepFaultKind::LeaseLost,
            Cause::Other { .. } | Cause::Moved { .. } | Cause::Retyped { .. } => {
                StepFaultKind::Changed
            }
            Cause::Repeated { .. } => StepFaultKind::Repeated,
            Cause::Name { .. }
            | Cause::TooMany { .. }
            | Cause::TooLarge { .. }
            | Cause::LogFull { .. } => StepFaultKind::Limit,
            Cause::Write { .. } | Cause::Read { .. } => StepFaultKind::NotSerializable,
            Cause::Unreadable(_) => StepFaultKind::Unreadable,
            Cause::Unsupported { .. } | Cause::Locked => StepFaultKind::Unsupported,
            Cause::Store { .. } => StepFaultKind::Store,
        }
    }
}

impl<E> StepError<E> {
    /// The step's own error, if it ran and failed.
    #[must_use]
    pub fn failed(self) -> Option<E> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Fault(_) => None,
        }
    }

    /// Why the step did not run or was not stored, if it was that.
    #[must_use]
    pub fn fault(&self) -> Option<&StepFault> {
        match self {
            Self::Failed(_) => None,
            Self::Fault(fault) => Some(fault),
        }
    }
}

impl From<Cause> for StepFault {
    fn from(cause: Cause) -> Self {
        Self(cause)
    }
}

impl<E> From<StepFault> for StepError<E> {
    fn from(fault: StepFault) -> Self {
        Self::Fault(fault)
    }
}

impl fmt::Display for StepFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::LeaseLost { step } => write!(
                f,
                "the execution has lost its lease, and another one may have taken the key over: nothing is stored of the step \
                 `{step}`"
            ),
            Cause::Other {
                position,
                stored,
                asked,
            } => write!(
                f,
                "an earlier attempt stored the step `{stored}` at position {position}, where this one asks for `{asked}`: a \
                 deploy renamed, moved, added or removed a step while the key was in flight; bring the old order back until \
                 such keys are completed"
            ),
            Cause::Moved {
                step,
                stored,
                asked,
            } => write!(
                f,
                "an earlier attempt stored the step `{step}` at position {stored}, and this one asks for it at position \
                 {asked}: the order of steps must be the same in every attempt"
            ),
            Cause::Retyped {
                step,
                stored,
                asked,
            } => write!(
                f,
                "an earlier attempt stored a `{stored}` as the outcome of the step `{step}`, which now returns a `{asked}`: give \
                 a step that returns something else another name, once no key is in flight"
            ),
            Cause::Repeated { step, runs: false } => write!(
                f,
                "the step `{step}` has run in this execution: give each step a name of its own, such as `{step}/2`"
            ),
            Cause::Repeated { step, runs: true } => write!(
                f,
                "the step `{step}` is running in this execution: give each step a name of its own, such as `{step}/2`"
            ),
            Cause::Name { bytes } => write!(
                f,
                "the name of a step has {bytes} bytes: use 1 to {}",
                super::MAX_NAME
            ),
            Cause::TooMany { step } => write!(
                f,
                "the step `{step}` is one more than the {} steps that an execution may have",
                super::MAX_STEPS
            ),
            Cause::TooLarge { step, bytes } => write!(
                f,
                "the outcome of the step `{step}` has {bytes} bytes as JSON, and at most {} are stored: return what the later \
                 steps need",
                crate::store::steps::MAX_STEP
            ),
            Cause::LogFull { step } => write!(
                f,
                "with the step `{step}` the steps of this execution have more than {} bytes: return what the later steps need",
                crate::store::steps::MAX_LOG
            ),
            Cause::Write { step, flaw } => write!(
                f,
                "the outcome of the step `{step}` cannot be written as JSON and read back: {flaw}"
            ),
            Cause::Read { step, flaw } => write!(
                f,
                "the outcome of the step `{step}` that an earlier attempt stored is not one of the type that it now returns: \
                 {flaw}"
            ),
            Cause::Unreadable(flaw) => write!(f, "the stored steps cannot be read: {flaw}"),
            Cause::Unsupported { store } => write!(
                f,
                "the {store} store keeps no steps: use one that has a `StepLog`"
            ),
            Cause::Locked => f.write_str(
                "the handler's transaction keeps all other writers out of the SQLite file, the store included: a route with \
                 `transaction` has no steps there",
            ),
            Cause::Store { step, .. } => {
                write!(f, "the step `{step}` could not be looked up or stored")
            }
        }
    }
}

impl Error for StepFault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Cause::Store { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for StepError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl<E: Error> Error for StepError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // Their messages are this error's, so their own sources come next.
        match self {
            Self::Failed(error) => error.source(),
            Self::Fault(fault) => fault.source(),
        }
    }
}
