//! Recovery functions and what they extract.
//!
//! After the [`Crash`], a recovery function may take extractors of the head of the retry that found it. With the option
//! `state` they extract from the router's state: the handler has it, so the engine asks the handler
//! ([`Handler::recover`](crate::engine::Handler::recover)). Without, they extract from [`AnyState`], and the route's policy
//! holds the whole function.

use std::{any::type_name, future::Future};

use ::axum::http::{StatusCode, request::Parts};

use super::{
    arguments::ExtractFromParts,
    hints::{RecoveryArgument, RecoveryFunction},
};
use crate::{
    catch_unwind::{Panicked, catching},
    execution::{Crash, Recovery},
};

/// The arguments of a recovery function after the first: the list `(A, (B, …()))`.
pub trait RecoveryArguments<S, V>: Sized + Send + 'static {
    /// Extracts them, in their order. `current` is set to the type that is being extracted.
    fn extract(
        head: &mut Parts,
        state: &S,
        current: &mut &'static str,
    ) -> impl Future<Output = Result<Self, StatusCode>> + Send;
}

/// Extracts the arguments of a recovery function and calls it.
///
/// Nothing is known of the crash until the function is called: if an argument cannot be extracted, the outcome stays
/// unknown and the next retry asks again.
pub(super) async fn ask<S, H, A, V>(recover: H, crash: Crash, state: &S) -> Recovery
where
    S: Sync,
    H: RecoveryFunction<A>,
    A: RecoveryArguments<S, V>,
{
    let mut current = "";
    let extracted = catching(async {
        let mut head = crash.head();
        A::extract(&mut head, state, &mut current).await
    });
    match extracted.await {
        Ok(Ok(arguments)) => recover.recover(crash, arguments).await,
        Ok(Err(status)) => rejected(current, status),
        Err(Panicked) => panicked(current),
    }
}

fn rejected(extractor: &str, status: StatusCode) -> Recovery {
    tracing::error!(
        extractor,
        status = status.as_u16(),
        "an extractor of the recovery function rejected the retry; the outcome stays unknown, and the next retry asks again: \
         add what the extractor needs, such as a missing `Extension` layer, or take an `Option` or a `Result` of it"
    );
    Recovery::StillUnknown
}

fn panicked(extractor: &str) -> Recovery {
    tracing::error!(
        extractor,
        "an extractor of the recovery function panicked; the outcome stays unknown, and the next retry asks again: \
         mend the extractor, or resolve the record by hand"
    );
    Recovery::StillUnknown
}

impl<S: Sync> RecoveryArguments<S, ()> for () {
    async fn extract(_: &mut Parts, _: &S, _: &mut &'static str) -> Result<(), StatusCode> {
        Ok(())
    }
}

impl<S, T, V, Rest, Vs> RecoveryArguments<S, (V, Vs)> for (T, Rest)
where
    S: Sync,
    T: RecoveryArgument<S, V> + Send + 'static,
    V: ExtractFromParts<S, T>,
    Rest: RecoveryArguments<S, Vs>,
{
    async fn extract(
        head: &mut Parts,
        state: &S,
        current: &mut &'static str,
    ) -> Result<Self, StatusCode> {
        *current = type_name::<T>();
        let first = match V::extract(head, state).await {
            Ok(first) => first,
            Err(rejection) => return Err(rejection.status()),
        };
        Ok((first, Rest::extract(head, state, current).await?))
    }
}

/// `(A, (B, ()))` of `A B`: one implementation covers every number of arguments, and the compiler has no others to list.
macro_rules! list {
    () => { () };
    ($first:ident $($rest:ident)*) => { ($first, list!($($rest)*)) };
}

macro_rules! function {
    ($($argument:ident)*) => {
        #[diagnostic::do_not_recommend]
        impl<H, F, $($argument),*> RecoveryFunction<list!($($argument)*)> for H
        where
            H: FnOnce(Crash, $($argument),*) -> F,
            F: Future<Output = Recovery> + 'static,
        {
            type Future = F;

            #[allow(non_snake_case, reason = "a type parameter and its value share their name")]
            fn recover(self, crash: Crash, list!($($argument)*): list!($($argument)*)) -> F {
                self(crash, $($argument),*)
            }
        }
    };
}

/// For all of them, for all but the first, … down to none.
macro_rules! each_suffix {
    () => { function!(); };
    ($first:ident $($rest:ident)*) => {
        function!($first $($rest)*);
        each_suffix!($($rest)*);
    };
}

// As many as axum supports for a handler, with the crash.
each_suffix!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13 A14 A15);
