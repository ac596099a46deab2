//! What generated code names. Not for people: it changes without notice, and the runtime pins the version of
//! the macro crate that goes with it.

pub use std::time::Duration;

pub use ::axum::response::Response;

pub use super::{
    call::{FromRouter, Placeholder},
    checks::{engine, into_response, last, part, recovery, scope},
    hints::{
        AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly, OnlyInARouterWithState,
        UseInnerToCallDirectlyOrPutDebugHandlerBelow,
    },
    run::{HandlerFuture, respond, run_handler},
};
#[doc(hidden)]
pub use crate::{__ty as ty, __within as within};
pub use crate::{
    fingerprint::FingerprintRule,
    policy::{Cache, OnCrash, Policy},
};

/// A type of this module, for a runtime that the attribute was given the path of (`crate = path`).
///
/// A path that leads nowhere is one error if macros follow it: each is reported at the same place and in the
/// same words, which the compiler shows once, and a type it did not find counts as `()`, which is an extractor
/// and a response, so that nothing more is wrong at the routes.
#[doc(hidden)]
#[macro_export]
macro_rules! __ty {
    ($($ty:tt)*) => { $crate::__private::$($ty)* };
}

/// An expression that names this module `$private`.
#[doc(hidden)]
#[macro_export]
macro_rules! __within {
    ($private:ident, $($expression:tt)*) => {{
        use $crate::__private as $private;
        $($expression)*
    }};
}
