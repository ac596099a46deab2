//! The user's function as a function of one tuple.

use super::hints::UseInnerToCallDirectlyOrPutDebugHandlerBelow;

/// Calls a function with its arguments `T`, a tuple.
///
/// Generated code passes the function by name instead of calling it in a closure: there is less to compile, and lints
/// see that the function is used as a value, so that it may be `async` without an `await`.
pub trait Invoke<T> {
    /// What it returns.
    type Future;

    /// Calls it.
    fn invoke(self, arguments: T) -> Self::Future;
}

impl<H, F> Invoke<UseInnerToCallDirectlyOrPutDebugHandlerBelow> for H
where
    H: FnOnce() -> F,
{
    type Future = F;

    fn invoke(
        self,
        UseInnerToCallDirectlyOrPutDebugHandlerBelow: UseInnerToCallDirectlyOrPutDebugHandlerBelow,
    ) -> F {
        self()
    }
}

macro_rules! invoke {
    ($($argument:ident)*) => {
        impl<H, F, $($argument),*> Invoke<($($argument,)*)> for H
        where
            H: FnOnce($($argument),*) -> F,
        {
            type Future = F;

            #[allow(non_snake_case, reason = "a type parameter and its value share their name")]
            fn invoke(self, ($($argument,)*): ($($argument,)*)) -> F {
                self($($argument),*)
            }
        }
    };
}

/// For all of them, for all but the first, … down to the last one.
macro_rules! each_suffix {
    () => {};
    ($first:ident $($rest:ident)*) => {
        invoke!($first $($rest)*);
        each_suffix!($($rest)*);
    };
}

// As many as axum supports.
each_suffix!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13 A14 A15 A16);
