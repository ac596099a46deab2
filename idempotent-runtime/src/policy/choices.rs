//! The choices a policy offers as enums: which responses are stored, and what follows a crash.

use std::{fmt, future::Future, pin::Pin};

use crate::execution::{Crash, Recovery};

/// Which responses of the handler become the stored outcome.
///
/// With every choice, 401, 407, 421, 425 and 429 release the key, since they refuse before processing, and so do the
/// statuses of [`Policy::release`](crate::Policy::release). A handler can decide for one response with
/// [`Retention`](crate::Retention).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cache {
    /// Every response, errors included.
    #[default]
    All,
    /// Every response but 5xx. After a 5xx the retry executes the handler again, even if its effect had happened.
    NoServerErrors,
    /// Only 2xx and 3xx. After an error the retry executes the handler again, even if its effect had happened.
    Success,
}

/// What a retry does after a crash: the lease of the execution before it lapsed, and no outcome is stored.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub enum OnCrash {
    /// At most once: retries get `outcome_unknown`, nothing is executed again.
    #[default]
    Refuse,
    /// At least once, single outcome: the retry executes again as attempt n+1, and fences the one before.
    Retry,
    /// The given function finds out what happened, and the retry acts on that.
    Recover(RecoverFn),
}

impl OnCrash {
    /// The handler has a recovery function of its own.
    pub(crate) const BY_THE_HANDLER: Self =
        Self::Recover(|_| unreachable!("the engine asks the handler instead of this function"));
}

/// Finds out what became of an execution that crashed. See [`Crash`].
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
