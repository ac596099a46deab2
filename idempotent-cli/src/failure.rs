//! [`Failure`]: why a command did not do what it was asked, and the exit code that says so.

use std::{error::Error, fmt, io, process::ExitCode};

use idempotent_runtime::{
    BuildError, OperatorError, ResolveError,
    store::{ConnectError, StoreError},
};

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The store or something else failed.
    Failed(Box<dyn Error + Send + Sync>),
    /// The command does not say what is needed.
    Usage(String),
    /// There is no such record.
    NotFound(String),
    /// The command may not do this, or not now.
    Refused(String),
    /// Some of it was done.
    Partly(String),
}

impl Failure {
    /// The exit code, as the help lists them.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Refused(_) => 4,
            Self::Partly(_) => 5,
        })
    }

    /// To the standard error, with its causes.
    pub(crate) fn print(&self) {
        if let Self::Failed(error) = self
            && error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        {
            // Whoever read the output has read enough.
            return;
        }
        eprintln!("error: {self}");
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Self::Failed(error) => error,
            Self::Usage(text) | Self::NotFound(text) | Self::Refused(text) | Self::Partly(text) => {
                return f.write_str(text);
            }
        };
        write!(f, "{error}")?;
        let mut cause = error.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if error.kind() == idempotent_runtime::store::StoreErrorKind::InvalidCursor {
            return Self::Usage(Self::Failed(error.into()).to_string());
        }
        Self::Failed(error.into())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<csv::Error> for Failure {
    fn from(error: csv::Error) -> Self {
        match error.into_kind() {
            csv::ErrorKind::Io(error) => error.into(),
            other => Self::Failed(format!("the output cannot be written as CSV: {other:?}").into()),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Resolve(error) => error.into(),
            OperatorError::NotCompleted | OperatorError::NotAdministrable => {
                Self::Refused(error.to_string())
            }
            other => Self::Failed(other.into()),
        }
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::NotFound => Self::NotFound(format!("{error}")),
            ResolveError::InFlight | ResolveError::AlreadyCompleted => {
                Self::Refused(format!("{error}"))
            }
            other => Self::Failed(other.into()),
        }
    }
}
