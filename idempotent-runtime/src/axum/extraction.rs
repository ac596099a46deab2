//! The step "extract the arguments, then call the handler", with the router's state inside.

use std::{
    marker::PhantomData,
    panic::{self, AssertUnwindSafe},
};

use ::axum::{
    extract::{FromRequest, Request},
    http::request::Parts,
    response::{IntoResponse, Response},
};

use super::{arguments::Arguments, caller_step::CallerStep, recovery_step::RecoveryStep};
use crate::{
    caller::Authentication,
    engine::{BoxFuture, Recovering},
    execution::Crash,
    policy::RecoverFn,
};

/// Calls the handler with its arguments. It is a plain function, so that a handler adds only it and its own future to
/// the compiled code.
pub(super) type Then<T> = fn(T) -> BoxFuture<Response>;

/// A step whose type of state is erased: it extracts a handler's arguments `T`.
pub(super) trait Extraction<T>: Start {
    /// Sets the function that is called with them.
    fn then(&mut self, then: Then<T>);
}

/// The same step with its arguments erased, too.
pub(super) trait Start: Send {
    /// Whether the handler names its caller.
    fn has_caller(&self) -> bool;

    /// Starts to find out who calls, if it does.
    fn authenticate(&self, head: Parts) -> Authentication;

    /// Asks what became of a crashed execution: the function that the handler asks with its state or, if there is none,
    /// the policy's.
    fn recover(&mut self, recover: RecoverFn, crash: Crash) -> Recovering<'_> {
        recover(crash)
    }

    /// Extracts the arguments and calls the function that was set. Its future is not polled here, so that there is one
    /// state less to compile for each handler.
    fn start(self: Box<Self>, request: Request) -> BoxFuture<Extracted>;
}

/// The handler's future, or the rejection of an extractor.
pub(super) type Extracted = Result<BoxFuture<Response>, Response>;

/// The step for the state `S` and arguments that are extracted together, by way of `M`.
pub(super) struct Extract<S, M, T> {
    state: S,
    caller: Option<CallerStep<S>>,
    then: Option<Then<T>>,
    way: PhantomData<fn() -> M>,
}

/// The step for the state `S` and arguments that are extracted one by one.
pub(super) struct ExtractEach<S, A: Arguments<S>> {
    state: S,
    caller: Option<CallerStep<S>>,
    recovery: Option<RecoveryStep<S>>,
    then: Option<Then<A::Values>>,
}

impl<S, M, T> Extract<S, M, T> {
    pub(super) fn new(state: S, caller: Option<CallerStep<S>>) -> Self {
        Self {
            state,
            caller,
            then: None,
            way: PhantomData,
        }
    }
}

impl<S, A: Arguments<S>> ExtractEach<S, A> {
    pub(super) fn new(
        state: S,
        caller: Option<CallerStep<S>>,
        recovery: Option<RecoveryStep<S>>,
    ) -> Self {
        Self {
            state,
            caller,
            recovery,
            then: None,
        }
    }
}

impl<S, M, T> Extraction<T> for Extract<S, M, T>
where
    S: Send + Sync + 'static,
    T: FromRequest<S, M> + 'static,
{
    fn then(&mut self, then: Then<T>) {
        self.then = Some(then);
    }
}

impl<S, M, T> Start for Extract<S, M, T>
where
    S: Send + Sync + 'static,
    T: FromRequest<S, M> + 'static,
{
    fn has_caller(&self) -> bool {
        self.caller.is_some()
    }

    fn authenticate(&self, head: Parts) -> Authentication {
        authenticate(self.caller, head, &self.state)
    }

    fn start(self: Box<Self>, request: Request) -> BoxFuture<Extracted> {
        let Self { state, then, .. } = *self;
        let then = chosen(then);
        Box::pin(async move {
            match T::from_request(request, &state).await {
                Ok(arguments) => Ok(call(then, arguments)),
                Err(rejection) => Err(rejection.into_response()),
            }
        })
    }
}

impl<S, A> Extraction<A::Values> for ExtractEach<S, A>
where
    S: Send + Sync + 'static,
    A: Arguments<S> + 'static,
{
    fn then(&mut self, then: Then<A::Values>) {
        self.then = Some(then);
    }
}

impl<S, A> Start for ExtractEach<S, A>
where
    S: Send + Sync + 'static,
    A: Arguments<S> + 'static,
{
    fn has_caller(&self) -> bool {
        self.caller.is_some()
    }

    fn authenticate(&self, head: Parts) -> Authentication {
        authenticate(self.caller, head, &self.state)
    }

    fn recover(&mut self, recover: RecoverFn, crash: Crash) -> Recovering<'_> {
        match self.recovery {
            Some(step) => step(crash, &self.state),
            None => recover(crash),
        }
    }

    fn start(self: Box<Self>, request: Request) -> BoxFuture<Extracted> {
        let Self { state, then, .. } = *self;
        let then = chosen(then);
        Box::pin(async move {
            let arguments = A::extract(request, &state).await?;
            Ok(call(then, arguments))
        })
    }
}

fn authenticate<S>(caller: Option<CallerStep<S>>, head: Parts, state: &S) -> Authentication {
    match caller {
        Some(step) => Authentication::Pending(step(head, state).into_future()),
        None => Authentication::None(head),
    }
}

/// Calls the handler. A handler that is not an `async fn` runs its own code here, before it returns its future: its panic
/// is moved into the future, so that it counts as the handler's and not as an extractor's.
fn call<T>(then: Then<T>, arguments: T) -> BoxFuture<Response> {
    match panic::catch_unwind(AssertUnwindSafe(|| then(arguments))) {
        Ok(handler) => handler,
        Err(payload) => Box::pin(async move { panic::resume_unwind(payload) }),
    }
}

/// The function that was set before the start.
fn chosen<T>(then: Option<Then<T>>) -> Then<T> {
    then.expect("`run_handler` sets the function before extraction starts")
}
