//! What the compiler shows when a handler does not fit: types by their names, traits by their messages.
//!
//! The attribute sees tokens. Whether an argument is an extractor or a return value a response, only the compiler
//! knows. Generated code makes it check that at the user's own token (see `checks`), and what it then reports comes
//! from here. Each item says which mistake leads to it and what the user sees; the full messages are in the folder of
//! `tests/ui/rustc` that the item names.
//!
//! 1. A trait changes the message, never what is accepted: it holds exactly where its blanket implementation does.
//! 2. Every blanket implementation is marked `do_not_recommend`. Otherwise the compiler looks through it and reports
//!    the bound behind it, in the words of axum or of the standard library.
//! 3. Such a trait has a second implementation, for types that are [`Unsatisfiable`], and a parameter `V` that keeps
//!    the two apart. With a single candidate the compiler settles on it and reports which of its bounds failed; with
//!    two it reports the trait itself. [`EngineIn`] and [`IntoHandlerResponse`] are reported without it.

use std::{future::Future, marker::PhantomData, sync::LazyLock};

use ::axum::{
    extract::{FromRef, FromRequest, FromRequestParts, Request, State},
    http::request::Parts,
    response::{IntoResponse, Response},
};

use super::{caller_step::CallerStep, recovery_step::RecoveryStep};
use crate::{
    engine::Idempotency,
    execution::{Crash, Recovery},
    key::{IdempotencyKey, KeyError},
    scope::Scope,
};

/// Stands for the arguments of a handler that has none.
///
/// The mistakes: calling such a handler directly, as `handler().await`, and `#[debug_handler]` above the attribute,
/// which generates that call. The user sees that the function takes one argument, and that an argument "of type
/// `FromRouter<UseInnerToCallDirectlyOrPutDebugHandlerBelow>` is missing" (`calls`, `attributes`).
#[derive(Debug)]
pub struct UseInnerToCallDirectlyOrPutDebugHandlerBelow;

/// Says that the engine is an extension of the request, as `FromExtensions` does, where the handler has arguments.
///
/// The mistakes are those whose message shows the type of a handler, and with it this name. A direct call,
/// `handler(Json(1)).await`: "expected `FromRouter<(Json<u32>,), AddOption…>`, found `Json<u32>`"; the way out is
/// `inner` (`calls`). A route for a handler of which one argument is not an extractor: "the trait bound
/// `fn(FromRouter<(u32,), AddOption…>) -> HandlerFuture: Handler<_, _>` is not satisfied", without a word about which
/// argument; with `state` the compiler names it (`extractors`).
#[derive(Debug)]
pub struct AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly;

/// A request with the router's state, which the attribute named: the arguments and the engine are checked in the
/// handler itself, so that a wrong one is reported there and not where the handler is routed.
///
/// The mistake: `state = App` on a handler in a router whose state is not `App` and does not contain it. The user
/// sees at the route that "the trait bound `fn(OnlyInARouterWithState<App, (Method,)>) -> HandlerFuture:
/// Handler<_, _>` is not satisfied" (`paths`).
pub struct OnlyInARouterWithState<S, T> {
    pub(super) request: Request,
    pub(super) engine: Option<Idempotency>,
    pub(super) caller: Option<CallerStep<S>>,
    pub(super) recovery: Option<RecoveryStep<S>>,
    pub(super) state: S,
    pub(super) arguments: PhantomData<fn() -> T>,
}

/// An argument that is not the last: it leaves the body alone.
///
/// The mistakes, under `state = App`: an argument that is not an extractor, one that uses up the body before the
/// last, and a `State<T>` that the router's state does not contain. The user sees the message below at the argument's
/// type (`extractors`).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an extractor for the state `{S}` that leaves the request's body alone",
    label = "expected a type that implements `FromRequestParts<{S}>`",
    note = "every argument of a handler is an extractor, such as `State<…>`, `Path<…>`, `Query<…>` or `HeaderMap`",
    note = "an extractor that uses up the body, such as `Json<…>`, must be the last argument",
    note = "`State<T>` needs the router's state to be `T`, or `T: FromRef<{S}>`"
)]
pub trait Part<S, V> {}

/// The last argument: it may use up the body.
///
/// The mistakes, under `state = App`: an argument that is not an extractor, such as `Payment` for `Json<Payment>`, or
/// `Json<Payment>` where `Payment` is not `Deserialize`. The user sees the message below at the argument's type
/// (`extractors`).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an extractor for the state `{S}`",
    label = "expected a type that implements `FromRequest<{S}>` or `FromRequestParts<{S}>`",
    note = "every argument of a handler is an extractor, such as `State<…>`, `Path<…>`, `Json<…>` or `Bytes`",
    note = "`Json<T>` needs `T: serde::Deserialize`; `State<T>` needs the router's state to be `T`, or `T: FromRef<{S}>`"
)]
pub trait Last<S, V> {}

/// Where `engine = …` finds the engine.
///
/// The mistake, under `state = App`: a type other than `State<T>`, or a `T` that `App` does not contain or that does
/// not become an `Idempotency`. The user sees the message below at the option's value (`engine`). Without `state`
/// the route is reported instead.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not find an engine in the state `{S}`",
    label = "expected `State<T>`, with a `T` that the state `{S}` contains and that becomes an `Idempotency`",
    note = "implement `FromRef<{S}>` for `Idempotency` and write `engine = State<Idempotency>`",
    note = "for a router with several engines, write `State<T>` with a type of your own: it implements \
            `FromRef<{S}>`, and `Idempotency` implements `From<T>`"
)]
pub trait EngineIn<S> {
    /// Nothing where it is not in the state.
    fn engine(state: &S) -> Option<Idempotency>;
}

/// What `scope = path` takes.
///
/// The mistake: a path to an `async` function, or to one of another type. The user sees the message below at the
/// path (`paths`).
#[diagnostic::on_unimplemented(
    message = "`scope` takes a function `fn(&Parts) -> Option<Scope>`",
    label = "this function takes or returns something else, or is `async`",
    note = "as in `fn tenant(parts: &axum::http::request::Parts) -> Option<idempotent_runtime::Scope>`"
)]
pub trait ScopeFunction<V> {
    /// Calls it.
    fn scope(self, parts: &Parts) -> Option<Scope>;
}

/// What `key = path` takes.
///
/// The mistake: a path to an `async` function, or to one of another type. The user sees the message below at the
/// path (`paths`).
#[diagnostic::on_unimplemented(
    message = "`key` takes a function `fn(&Parts) -> Option<T>`, with text or bytes as `T`",
    label = "this function takes or returns something else, or is `async`",
    note = "as in `fn event_id(parts: &axum::http::request::Parts) -> Option<String>`; `&HeaderValue` will do for `T`, too",
    note = "`None` is a request without a key; a key that is empty, too long or not ASCII is refused with `invalid_key`"
)]
pub trait KeyFunction<'a, V> {
    /// Calls it.
    fn key(self, parts: &'a Parts) -> Option<Result<IdempotencyKey, KeyError>>;
}

/// What `when = path` takes.
///
/// The mistake: a path to an `async` function, or to one of another type. The user sees the message below at the
/// path (`paths`).
#[diagnostic::on_unimplemented(
    message = "`when` takes a function `fn(&Parts) -> bool`",
    label = "this function takes or returns something else, or is `async`",
    note = "as in `fn is_payment(parts: &axum::http::request::Parts) -> bool`"
)]
pub trait WhenFunction<V> {
    /// Calls it.
    fn covers(self, parts: &Parts) -> bool;
}

/// What `fingerprint = path` takes.
///
/// The mistake: a path to an `async` function, or to one of another type. The user sees the message below at the
/// path (`paths`).
#[diagnostic::on_unimplemented(
    message = "`fingerprint` takes a function `fn(&Parts, &[u8]) -> T`, with text or bytes as `T`",
    label = "this function takes or returns something else, or is `async`",
    note = "as in `fn order(parts: &axum::http::request::Parts, body: &[u8]) -> Vec<u8>`; any `Into<Vec<u8>>` will do"
)]
pub trait FingerprintFunction<'a, V> {
    /// Calls it.
    fn asked(self, parts: &'a Parts, body: &'a [u8]) -> Vec<u8>;
}

/// A scope function that an expression made (`scope = expression`).
pub(super) type SharedScope = Box<dyn Fn(&Parts) -> Option<Scope> + Send + Sync>;

/// The same, made when the first request needs it.
pub type LazyScope = LazyLock<SharedScope>;

/// What `on_crash = path` takes: a function of the crash and of a list of arguments, `A`.
///
/// The mistake: a path to a function that is not `async`, or that takes or returns something else. The user sees the
/// message below at the path (`paths`). Its implementations, one for each number of arguments, are in
/// [`recovery`](super::recovery).
#[diagnostic::on_unimplemented(
    message = "`on_crash` takes a function `async fn(Crash, …) -> Recovery`",
    label = "this function is not `async`, or takes or returns something else",
    note = "as in `async fn find_out(crash: idempotent_runtime::Crash) -> idempotent_runtime::Recovery`",
    note = "after the `Crash` it may take up to 15 extractors, such as `State<App>`"
)]
pub trait RecoveryFunction<A> {
    /// Its future.
    type Future: Future<Output = Recovery> + 'static;

    /// Calls it.
    fn recover(self, crash: Crash, arguments: A) -> Self::Future;
}

/// What a recovery function may extract.
///
/// The mistakes: an argument that is not an extractor, one that uses up the body, a `State<T>` that the router's state
/// does not contain, and a `State<T>` without `state = App`. The user sees the message below at the path (`recovery`).
#[diagnostic::on_unimplemented(
    message = "a recovery function cannot take `{Self}`: it is not an extractor of a request's head for the state `{S}`",
    label = "this function takes an argument that does not implement `FromRequestParts<{S}>`",
    note = "after the `Crash`, every argument is such an extractor, as `State<…>` or `Extension<…>`; the body is `crash.request().body()`",
    note = "an extractor that needs the router's state, such as `State<T>`, needs the option `state = App` beside `on_crash`; `T` is `App` then, or `T: FromRef<App>`"
)]
pub trait RecoveryArgument<S, V> {}

/// Stands for the router's state where the option `state` does not name it: a recovery function extracts what needs none.
///
/// The mistake is that of `RecoveryArgument`, whose message names this type as the state.
#[derive(Debug)]
pub struct AnyState;

/// What a handler may return.
///
/// The mistake: a return type that is not a response, such as `Payment` for `Json<Payment>`, or a `Result` of which
/// the error is not one. The user sees the message below at the return type (`return_types`).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a response, so an idempotent handler cannot return it",
    label = "expected a type that implements `IntoResponse`",
    note = "to send a value as JSON, return `Json<T>`, alone or in a tuple: `(StatusCode, Json<T>)`",
    note = "in a `Result<T, E>`, both `T` and `E` must be responses",
    note = "for a type of your own, such as an error type, implement `axum::response::IntoResponse`"
)]
pub trait IntoHandlerResponse {
    /// As a response.
    fn into_handler_response(self) -> Response;
}

/// The first candidate of [`Part`], [`Last`] and [`RecoveryArgument`]: the argument comes from the request's head.
#[derive(Debug)]
pub enum ViaParts {}

/// A candidate of [`Last`]: the argument comes from the whole request.
#[derive(Debug)]
pub enum ViaRequest {}

/// The first candidate of the traits for functions, such as [`ScopeFunction`]: the function is called.
#[derive(Debug)]
pub enum ViaCall {}

/// The candidate that never applies, on all of them.
#[derive(Debug)]
pub enum ViaNothing {}

/// No type implements it.
pub trait Unsatisfiable: Sized {
    /// Cannot be called.
    fn never<T>(self) -> T;
}

#[diagnostic::do_not_recommend]
impl<S, T: FromRequestParts<S>> Part<S, ViaParts> for T {}

#[diagnostic::do_not_recommend]
impl<S, T: Unsatisfiable> Part<S, ViaNothing> for T {}

#[diagnostic::do_not_recommend]
impl<S, T: FromRequestParts<S>> Last<S, ViaParts> for T {}

#[diagnostic::do_not_recommend]
impl<S, T: FromRequest<S>> Last<S, ViaRequest> for T {}

#[diagnostic::do_not_recommend]
impl<S, T: FromRequestParts<S>> RecoveryArgument<S, ViaParts> for T {}

#[diagnostic::do_not_recommend]
impl<S, T: Unsatisfiable> RecoveryArgument<S, ViaNothing> for T {}

#[diagnostic::do_not_recommend]
impl<S> EngineIn<S> for AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly {
    fn engine(_: &S) -> Option<Idempotency> {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<S, T: FromRef<S> + Into<Idempotency>> EngineIn<S> for State<T> {
    fn engine(state: &S) -> Option<Idempotency> {
        Some(T::from_ref(state).into())
    }
}

#[diagnostic::do_not_recommend]
impl<F: FnOnce(&Parts) -> Option<Scope>> ScopeFunction<ViaCall> for F {
    fn scope(self, parts: &Parts) -> Option<Scope> {
        self(parts)
    }
}

#[diagnostic::do_not_recommend]
impl<F: Unsatisfiable> ScopeFunction<ViaNothing> for F {
    fn scope(self, _: &Parts) -> Option<Scope> {
        self.never()
    }
}

#[diagnostic::do_not_recommend]
impl<'a, F, T> KeyFunction<'a, ViaCall> for F
where
    F: FnOnce(&'a Parts) -> Option<T>,
    T: AsRef<[u8]>,
{
    fn key(self, parts: &'a Parts) -> Option<Result<IdempotencyKey, KeyError>> {
        self(parts).map(IdempotencyKey::from_bytes)
    }
}

#[diagnostic::do_not_recommend]
impl<F: Unsatisfiable> KeyFunction<'_, ViaNothing> for F {
    fn key(self, _: &Parts) -> Option<Result<IdempotencyKey, KeyError>> {
        self.never()
    }
}

#[diagnostic::do_not_recommend]
impl<F: FnOnce(&Parts) -> bool> WhenFunction<ViaCall> for F {
    fn covers(self, parts: &Parts) -> bool {
        self(parts)
    }
}

#[diagnostic::do_not_recommend]
impl<F: Unsatisfiable> WhenFunction<ViaNothing> for F {
    fn covers(self, _: &Parts) -> bool {
        self.never()
    }
}

#[diagnostic::do_not_recommend]
impl<'a, F, T> FingerprintFunction<'a, ViaCall> for F
where
    F: FnOnce(&'a Parts, &'a [u8]) -> T,
    T: Into<Vec<u8>>,
{
    fn asked(self, parts: &'a Parts, body: &'a [u8]) -> Vec<u8> {
        self(parts, body).into()
    }
}

#[diagnostic::do_not_recommend]
impl<F: Unsatisfiable> FingerprintFunction<'_, ViaNothing> for F {
    fn asked(self, _: &Parts, _: &[u8]) -> Vec<u8> {
        self.never()
    }
}

#[diagnostic::do_not_recommend]
impl<T: IntoResponse> IntoHandlerResponse for T {
    fn into_handler_response(self) -> Response {
        self.into_response()
    }
}
