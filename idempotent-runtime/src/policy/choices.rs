//! What a route chooses among: which outcomes are stored, and what follows a crash.

use std::{fmt, future::Future, pin::Pin};

use crate::execution::{Crash, Recovery};

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
