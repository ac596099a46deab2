//! The engine of the process, for routes that were given none.

use once_cell::sync::OnceCell;

use super::core::Idempotency;

static ENGINE: OnceCell<Idempotency> = OnceCell::new();

impl Idempotency {
    /// The engine of this process: in memory, with all defaults, made at the first call.
    ///
    /// Routes use it when they were given no other one. It protects one process only and forgets everything when that
    /// process ends, and says so once in the log.
    pub(crate) fn of_this_process() -> &'static Self {
        ENGINE.get_or_init(|| {
            tracing::warn!(
                "idempotency is kept in the memory of this process only: it does not survive a restart and is \
                 not shared with other processes. Add `Extension(idempotency)` with a store of your choice to \
                 the router to change that, or one with `MemoryStore` to say that it is meant"
            );
            // Invariant: no default is refused, and the `axum` feature brings the `memory` store along.
            Self::builder().build().expect("the defaults are valid")
        })
    }
}
