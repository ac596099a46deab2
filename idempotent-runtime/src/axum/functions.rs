//! Functions that options name, and what to say of one that does not fit.

use std::{
    future::{Future, Pending},
    pin::Pin,
};

use ::axum::http::request::Parts;

use super::arguments::{ByMagic, Magic};
use crate::{Crash, Recovery, Scope};

/// By calling it. That there are two ways keeps the compiler from settling on the one and reporting what that
/// lacks, as for [`Part`](super::arguments::Part).
#[derive(Debug)]
pub enum ByCall {}

/// What `scope = path` takes.
#[diagnostic::on_unimplemented(
    message = "`scope` takes a function `fn(&Parts) -> Option<Scope>`",
    label = "this function takes or returns something else",
    note = "as in `fn tenant(parts: &axum::http::request::Parts) -> Option<idempotent_runtime::Scope>`, which is \
            not `async`"
)]
pub trait ScopeFunction<W> {
    /// Calls it.
    fn scope(self, parts: &Parts) -> Option<Scope>;
}

#[diagnostic::do_not_recommend]
impl<F: FnOnce(&Parts) -> Option<Scope>> ScopeFunction<ByCall> for F {
    fn scope(self, parts: &Parts) -> Option<Scope> {
        self(parts)
    }
}

#[diagnostic::do_not_recommend]
impl<F: Magic> ScopeFunction<ByMagic> for F {
    fn scope(self, _: &Parts) -> Option<Scope> {
        self.never()
    }
}

/// Calls a scope function.
pub fn scope<F: ScopeFunction<W>, W>(function: F, parts: &Parts) -> Option<Scope> {
    function.scope(parts)
}

/// What `on_crash = path` takes.
#[diagnostic::on_unimplemented(
    message = "`on_crash` takes a function `async fn(Crash) -> Recovery`",
    label = "this function is not `async`, or takes or returns something else",
    note = "as in `async fn find_out(crash: idempotent_runtime::Crash) -> idempotent_runtime::Recovery`"
)]
pub trait RecoveryFunction<W> {
    /// Its future.
    type Future: Future<Output = Recovery> + 'static;

    /// Calls it.
    fn recover(self, crash: Crash) -> Self::Future;
}

#[diagnostic::do_not_recommend]
impl<H, F> RecoveryFunction<ByCall> for H
where
    H: FnOnce(Crash) -> F,
    F: Future<Output = Recovery> + 'static,
{
    type Future = F;

    fn recover(self, crash: Crash) -> F {
        self(crash)
    }
}

#[diagnostic::do_not_recommend]
impl<H: Magic> RecoveryFunction<ByMagic> for H {
    type Future = Pending<Recovery>;

    fn recover(self, _: Crash) -> Self::Future {
        self.never()
    }
}

/// Calls a recovery function and boxes what it returns.
pub fn recovery<H, W>(recover: H, crash: Crash) -> Pin<Box<dyn Future<Output = Recovery> + Send>>
where
    H: RecoveryFunction<W, Future: Send>,
{
    Box::pin(recover.recover(crash))
}
