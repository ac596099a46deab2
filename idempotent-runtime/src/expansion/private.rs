//! What generated code names. It is not public API: it changes without notice, and the runtime pins the version of the
//! macro crate that fits.

pub use std::time::Duration;

#[cfg(feature = "axum")]
pub use crate::axum::private::*;
#[doc(hidden)]
pub use crate::{__ty as ty, __within as within};
pub use crate::{
    fingerprint::FingerprintRule,
    policy::{Cache, OnCrash, Policy},
};

/// What the policy says where the handler asks its recovery function with the router's state.
pub const RECOVERED_BY_THE_HANDLER: OnCrash = OnCrash::BY_THE_HANDLER;

/// A type of this module, where the attribute names the runtime (`crate = path`).
///
/// With macros, a wrong path is one error: the compiler reports the same words at the same place only once, and takes
/// the type of a macro that it did not find for `()`, which is an extractor and a response, so that the routes report
/// nothing.
#[doc(hidden)]
#[macro_export]
macro_rules! __ty {
    ($($ty:tt)*) => { $crate::__private::$($ty)* };
}

/// An expression in which `$private` names this module.
#[doc(hidden)]
#[macro_export]
macro_rules! __within {
    ($private:ident, $($expression:tt)*) => {{
        use $crate::__private as $private;
        $($expression)*
    }};
}
