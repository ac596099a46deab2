//! The step "extract the arguments, then call the handler", with the router's state inside.
//!
//! The future that extracts is large: each level of axum's extractors has room for the whole request. On glibc an
//! allocation of its size misses the thread's cache, and merges what was freed of a heap full of records: that costs more
//! than the rest of the step. So a step is one place for what it is given and for its future, and each thread keeps the
//! last place of each kind for the next request.

use std::{
    marker::PhantomData,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::axum::{
    extract::{FromRequest, Request},
    http::request::Parts,
    response::{IntoResponse, Response},
};
use pin_project_lite::pin_project;

use super::{arguments::Arguments, caller_step::CallerStep, recovery_step::RecoveryStep, spare};
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
    fn then(self: Pin<&mut Self>, then: Then<T>);
}

/// The same step with its arguments erased, too.
pub(super) trait Start: Send {
    /// Whether the handler names its caller.
    fn has_caller(&self) -> bool;

    /// Starts to find out who calls, if it does.
    fn authenticate(&self, head: Parts) -> Authentication;

    /// Asks what became of a crashed execution: the function that the handler asks with its state or, if there is none,
    /// the policy's.
    fn recover(self: Pin<&mut Self>, recover: RecoverFn, crash: Crash) -> Recovering<'_>;

    /// Starts to extract the arguments.
    fn start(self: Pin<&mut Self>, request: Request);

    /// Extracts them, once it has [started](Self::start), and calls the function that was set. Its future is not polled
    /// here, so that there is one state less to compile for each handler.
    fn poll_extracted(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Extracted>;

    /// Drops what it holds, and has the thread keep its place.
    fn end(self: Pin<Box<Self>>);
}

/// The handler's future, or the rejection of an extractor.
pub(super) type Extracted = Result<BoxFuture<Response>, Response>;

/// What a step is given.
pub(super) struct Given<S> {
    pub(super) state: S,
    pub(super) caller: Option<CallerStep<S>>,
    pub(super) recovery: Option<RecoveryStep<S>>,
}

/// Arguments that are extracted together, by way of `M`.
pub(super) fn together<S, M, T>(given: Given<S>) -> Pin<Box<dyn Extraction<T>>>
where
    S: Send + Sync + 'static,
    M: 'static,
    T: FromRequest<S, M> + 'static,
{
    step::<M, _, _, _>(given, |request, state| async move {
        let extracted = T::from_request(request, &state).await;
        extracted.map_err(IntoResponse::into_response)
    })
}

/// Arguments that are extracted one by one.
pub(super) fn one_by_one<S, A>(given: Given<S>) -> Pin<Box<dyn Extraction<A::Values>>>
where
    S: Send + Sync + 'static,
    A: Arguments<S> + 'static,
    A::Values: 'static,
{
    step::<A, _, _, _>(given, |request, state| async move {
        A::extract(request, &state).await
    })
}

/// A step of the kind `K` that extracts by this function, in a place that the thread keeps or in a new one.
fn step<K, S, T, F>(
    given: Given<S>,
    extract: impl Fn(Request, S) -> F + Send + 'static,
) -> Pin<Box<dyn Extraction<T>>>
where
    K: 'static,
    S: Send + Sync + 'static,
    T: 'static,
    F: Future<Output = Result<T, Response>> + Send + 'static,
{
    match spare::take::<Pin<Box<dyn Again<K, S, T>>>>() {
        Some(mut step) => {
            step.as_mut().give(given);
            step
        }
        None => Box::pin(Step {
            given: Some(given),
            then: None,
            extract,
            extracting: None,
            kind: PhantomData::<fn() -> K>,
        }),
    }
}

/// A step that can be used again, by its kind.
trait Again<K, S, T>: Extraction<T> {
    fn give(self: Pin<&mut Self>, given: Given<S>);
}

pin_project! {
    struct Step<K, S, T, E, F> {
        given: Option<Given<S>>,
        then: Option<Then<T>>,
        extract: E,
        #[pin]
        extracting: Option<F>,
        kind: PhantomData<fn() -> K>,
    }
}

impl<K, S, T, E, F> Again<K, S, T> for Step<K, S, T, E, F>
where
    K: 'static,
    S: Send + Sync + 'static,
    T: 'static,
    E: Fn(Request, S) -> F + Send + 'static,
    F: Future<Output = Result<T, Response>> + Send + 'static,
{
    fn give(self: Pin<&mut Self>, given: Given<S>) {
        *self.project().given = Some(given);
    }
}

impl<K, S, T, E, F> Extraction<T> for Step<K, S, T, E, F>
where
    K: 'static,
    S: Send + Sync + 'static,
    T: 'static,
    E: Fn(Request, S) -> F + Send + 'static,
    F: Future<Output = Result<T, Response>> + Send + 'static,
{
    fn then(self: Pin<&mut Self>, then: Then<T>) {
        *self.project().then = Some(then);
    }
}

impl<K, S, T, E, F> Start for Step<K, S, T, E, F>
where
    K: 'static,
    S: Send + Sync + 'static,
    T: 'static,
    E: Fn(Request, S) -> F + Send + 'static,
    F: Future<Output = Result<T, Response>> + Send + 'static,
{
    fn has_caller(&self) -> bool {
        let given = self.given.as_ref();
        given.is_some_and(|given| given.caller.is_some())
    }

    fn authenticate(&self, head: Parts) -> Authentication {
        let Given { state, caller, .. } = not_started(self.given.as_ref());
        match caller {
            Some(step) => Authentication::Pending(step(head, state).into_future()),
            None => Authentication::None(head),
        }
    }

    fn recover(self: Pin<&mut Self>, recover: RecoverFn, crash: Crash) -> Recovering<'_> {
        let given = not_started(self.project().given.as_ref());
        match given.recovery {
            Some(step) => step(crash, &given.state),
            None => recover(crash),
        }
    }

    fn start(self: Pin<&mut Self>, request: Request) {
        let mut this = self.project();
        let given = not_started(this.given.take());
        let extracting = (this.extract)(request, given.state);
        this.extracting.set(Some(extracting));
    }

    fn poll_extracted(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Extracted> {
        let mut this = self.project();
        let Some(extracting) = this.extracting.as_mut().as_pin_mut() else {
            panic!("arguments are extracted once, after the start");
        };
        let extracted = ready!(extracting.poll(context));
        this.extracting.set(None);
        // Invariant: `run_handler` sets the function first of all.
        let then = this.then.take().expect("the function is set");
        Poll::Ready(extracted.map(|arguments| call(then, arguments)))
    }

    fn end(mut self: Pin<Box<Self>>) {
        let mut this = self.as_mut().project();
        *this.given = None;
        this.extracting.set(None);
        let place: Pin<Box<dyn Again<K, S, T>>> = self;
        spare::keep(place);
    }
}

/// What the step was given, and has until it starts.
fn not_started<G>(given: Option<G>) -> G {
    given.expect("a step starts once, and is asked nothing after that")
}

/// Calls the handler. A handler that is not an `async fn` runs its own code here, before it returns its future: its panic
/// is moved into the future, so that it counts as the handler's and not as an extractor's.
fn call<T>(then: Then<T>, arguments: T) -> BoxFuture<Response> {
    match panic::catch_unwind(AssertUnwindSafe(|| then(arguments))) {
        Ok(handler) => handler,
        Err(payload) => Box::pin(async move { panic::resume_unwind(payload) }),
    }
}
