//! What a step runs.

use std::future::Future;

use super::Step;

/// What a step runs: an async closure without arguments, or with the [`Step`] that it is.
///
/// Implemented for `FnOnce() -> Future<Output = Result<T, E>>` and `FnOnce(Step) -> …`, and for nothing else. The type of
/// the argument has to be written: `|step: Step| async move { … }`.
#[diagnostic::on_unimplemented(
    message = "a step runs an async closure that returns a `Result`",
    label = "not a step",
    note = "write `|| async {{ … }}`, or `|step: Step| async move {{ … }}`, that returns `Result<T, E>`"
)]
pub trait StepBody<Arguments, T, E> {
    /// The running step.
    type Future: Future<Output = Result<T, E>>;

    /// Begins it.
    fn call(self, step: Step) -> Self::Future;
}

impl<F, R, T, E> StepBody<(), T, E> for F
where
    F: FnOnce() -> R,
    R: Future<Output = Result<T, E>>,
{
    type Future = R;

    fn call(self, _: Step) -> R {
        self()
    }
}

impl<F, R, T, E> StepBody<(Step,), T, E> for F
where
    F: FnOnce(Step) -> R,
    R: Future<Output = Result<T, E>>,
{
    type Future = R;

    fn call(self, step: Step) -> R {
        self(step)
    }
}
