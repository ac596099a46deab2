//! Functions that generated code calls at the user's own tokens: what does not fit is reported there, in the words
//! of [`hints`](super::hints).

use ::axum::{http::request::Parts, response::Response};

use super::{
    arguments::Argument,
    hints::{
        AnyState, EngineIn, FingerprintFunction, IntoHandlerResponse, KeyFunction, Last, Part,
        RecoveryFunction, ScopeFunction, SharedScope, WhenFunction,
    },
    recovery::{RecoveryArguments, ask},
};
use crate::{
    caller::Caller,
    engine::{Idempotency, Recovering},
    execution::Crash,
    key::{IdempotencyKey, KeyError},
    response::check_name,
    scope::Scope,
};

/// Checks an argument that is not the last, and finds how it is extracted.
#[must_use]
pub fn part<S, T: Part<S, V>, V>() -> Argument<T, V> {
    Argument::new()
}

/// Checks the last argument, and finds how it is extracted.
#[must_use]
pub fn last<S, T: Last<S, V>, V>() -> Argument<T, V> {
    Argument::new()
}

/// Finds the engine in the state.
#[must_use]
pub fn engine<S, E: EngineIn<S>>(state: &S) -> Option<Idempotency> {
    E::engine(state)
}

/// Checks that the caller of a handler is a [`Caller`].
#[must_use]
pub fn caller<C: Caller, T>(call: T) -> T {
    call
}

/// Checks that it is an extractor, and finds how it is extracted. The step that takes it checks the rest.
#[must_use]
pub fn caller_in<S, C: Part<S, V>, V>() -> Argument<C, V> {
    Argument::new()
}

/// Calls a scope function.
pub fn scope<F: ScopeFunction<V>, V>(function: F, parts: &Parts) -> Option<Scope> {
    function.scope(parts)
}

/// Calls a function that finds the key.
pub fn key<'a, F: KeyFunction<'a, V>, V>(
    function: F,
    parts: &'a Parts,
) -> Option<Result<IdempotencyKey, KeyError>> {
    function.key(parts)
}

/// Calls a function that says whether a request is covered.
pub fn when<F: WhenFunction<V>, V>(function: F, parts: &Parts) -> bool {
    function.covers(parts)
}

/// Calls a function that says what a request asks for.
pub fn fingerprint<'a, F: FingerprintFunction<'a, V>, V>(
    function: F,
    parts: &'a Parts,
    body: &'a [u8],
) -> Vec<u8> {
    function.asked(parts, body)
}

/// Checks that a header can be kept with a stored response.
///
/// # Panics
///
/// If it cannot. Generated code calls it in a constant.
pub const fn check_kept(name: &str) {
    check_name(name, true);
}

/// Keeps what an expression returns as a scope function.
#[must_use]
pub fn scope_by<F>(function: F) -> SharedScope
where
    F: Fn(&Parts) -> Option<Scope> + Send + Sync + 'static,
{
    Box::new(function)
}

/// Asks a recovery function that needs no state.
pub fn recovery<H, A, V>(recover: H, crash: Crash) -> Recovering<'static>
where
    H: RecoveryFunction<A, Future: Send> + Send + 'static,
    A: RecoveryArguments<AnyState, V>,
    V: 'static,
{
    Box::pin(ask(recover, crash, &AnyState))
}

/// Asks a recovery function in a router with this state. The state comes first, so that the compiler knows its type when it
/// looks at the function, and reports what is wrong with that.
pub fn recovery_in<S, H, A, V>(state: &S, recover: H, crash: Crash) -> Recovering<'_>
where
    S: Sync,
    H: RecoveryFunction<A, Future: Send> + Send + 'static,
    A: RecoveryArguments<S, V>,
    V: 'static,
{
    Box::pin(ask(recover, crash, state))
}

/// Makes the response of what a handler returned.
pub fn into_response<T: IntoHandlerResponse>(returned: T) -> Response {
    returned.into_handler_response()
}
