//! The step "extract the arguments, then call the handler", with the router's state inside.
//!
//! The future that extracts is large: each level of axum's extractors has room for the whole request. On glibc an
//! allocation of its size misses the thread's cache, and merges what was freed of a heap full of records: that costs more
//! than the rest of the step. So a step is one place for what it is given and for its future, and each thread keeps the
//! last place of each kind for the next request.
//!
//! Each handler has a step of its own type, so what is here costs compile time for each handler: what needs none of its
//! types is not generic.

use std::{
    any::{Any, TypeId},
    marker::PhantomData,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    task::{Context, Poll},
};

use ::axum::{
    extract::{FromRequest, Request},
    http::request::Parts,
    response::{IntoResponse, Response},
};
use pin_project_lite::pin_project;

use super::{
    arguments::Arguments, caller_step::CallerStep, recovery_step::RecoveryStep, spare::Spare,
};
use crate::{
    caller::Authentication,
    engine::{BoxFuture, Recovering},
    execution::Crash,
    policy::RecoverFn,
};

/// Calls the handler with its arguments. It is a plain function, so that a handler adds only it and its own future to
/// the compiled code.
pub(super) type Then<T> = fn(T) -> BoxFuture<Response>;

/// A step whose types of state and arguments are erased.
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

    /// Takes over what it is given, an `Option<Given<S>>`.
    fn give(self: Pin<&mut Self>, given: &mut dyn Any);

    /// Sets the function that is called with the arguments, a `Then<T>`.
    fn then(self: Pin<&mut Self>, then: &dyn Any);

    /// Drops what it was given, and the future.
    fn clear(self: Pin<&mut Self>);

    /// Which steps may take its place.
    fn kind(&self) -> TypeId;
}

thread_local! {
    static SPARE: Spare<Pin<Box<dyn Start>>> = const { Spare::new() };
}

/// Drops what the step holds, and has the thread keep its place.
pub(super) fn end(mut step: Pin<Box<dyn Start>>) {
    step.as_mut().clear();
    let kind = step.kind();
    // A thread that ends keeps nothing any more.
    let _ = SPARE.try_with(|spare| spare.keep(kind, step));
}

fn spare(kind: TypeId) -> Option<Pin<Box<dyn Start>>> {
    // A thread that ends keeps nothing any more.
    SPARE.try_with(|spare| spare.take(kind)).ok().flatten()
}

/// The handler's future, or the rejection of an extractor.
pub(super) type Extracted = Result<BoxFuture<Response>, Response>;

/// What a step is given. Its functions have no type of the handler's but the state, which most handlers share.
pub(super) struct Given<S> {
    pub(super) state: S,
    pub(super) caller: Option<CallerStep<S>>,
    pub(super) recovery: Option<RecoveryStep<S>>,
}

impl<S> Given<S> {
    fn authenticate(given: Option<&Self>, head: Parts) -> Authentication {
        match given {
            Some(Self {
                state,
                caller: Some(step),
                ..
            }) => Authentication::Pending(step(head, state).into_future()),
            _ => Authentication::None(head),
        }
    }

    fn recover(given: Option<&Self>, recover: RecoverFn, crash: Crash) -> Recovering<'_> {
        match given {
            Some(Self {
                state,
                recovery: Some(step),
                ..
            }) => step(crash, state),
            _ => recover(crash),
        }
    }
}

/// Moves what is in one place, an `Option<G>`, into the other one.
fn take_over<G: 'static>(place: &mut Option<G>, given: &mut dyn Any) {
    // Invariant: the kind of a step says of which type it is.
    if let Some(given) = given.downcast_mut::<Option<G>>() {
        *place = given.take();
    }
}

/// Gives what a step needs to one that was used before.
fn give_again<S: 'static>(mut step: Pin<Box<dyn Start>>, given: Given<S>) -> Pin<Box<dyn Start>> {
    step.as_mut().give(&mut Some(given));
    step
}

/// Arguments that are extracted together, by way of `M`.
pub(super) fn together<S, M, T>(given: Given<S>) -> Pin<Box<dyn Start>>
where
    S: Send + Sync + 'static,
    M: 'static,
    T: FromRequest<S, M> + 'static,
{
    step::<M, S, T, _>(given, |request, state, then| async move {
        match T::from_request(request, &state).await {
            Ok(arguments) => Ok(call(then, arguments)),
            Err(rejection) => Err(rejection.into_response()),
        }
    })
}

/// Arguments that are extracted one by one.
pub(super) fn one_by_one<S, A>(given: Given<S>) -> Pin<Box<dyn Start>>
where
    S: Send + Sync + 'static,
    A: Arguments<S> + 'static,
    A::Values: 'static,
{
    step::<A, S, A::Values, _>(given, |request, state, then| async move {
        let arguments = A::extract(request, &state).await?;
        Ok(call(then, arguments))
    })
}

/// A step of the kind `K` that extracts by this function, in a place that the thread keeps or in a new one.
fn step<K, S, T, F>(
    given: Given<S>,
    extract: impl Fn(Request, S, Then<T>) -> F + Send + 'static,
) -> Pin<Box<dyn Start>>
where
    K: 'static,
    S: Send + Sync + 'static,
    T: 'static,
    F: Future<Output = Extracted> + Send + 'static,
{
    if let Some(step) = spare(kind::<K, S, T>()) {
        return give_again(step, given);
    }
    Box::pin(Step {
        given: Some(given),
        then: None,
        extract,
        extracting: None,
        kind: PhantomData::<fn() -> K>,
    })
}

/// Steps of one kind have one type: that of the state and of the arguments, and the way of extraction.
fn kind<K: 'static, S: 'static, T: 'static>() -> TypeId {
    TypeId::of::<fn() -> (K, S, T)>()
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

impl<K, S, T, E, F> Start for Step<K, S, T, E, F>
where
    K: 'static,
    S: Send + Sync + 'static,
    T: 'static,
    E: Fn(Request, S, Then<T>) -> F + Send + 'static,
    F: Future<Output = Extracted> + Send + 'static,
{
    fn has_caller(&self) -> bool {
        matches!(&self.given, Some(given) if given.caller.is_some())
    }

    fn authenticate(&self, head: Parts) -> Authentication {
        Given::authenticate(self.given.as_ref(), head)
    }

    fn recover(self: Pin<&mut Self>, recover: RecoverFn, crash: Crash) -> Recovering<'_> {
        Given::recover(self.into_ref().get_ref().given.as_ref(), recover, crash)
    }

    fn start(self: Pin<&mut Self>, request: Request) {
        let mut this = self.project();
        if let Some(then) = *this.then
            && let Some(given) = this.given.take()
        {
            let extracting = (this.extract)(request, given.state, then);
            this.extracting.set(Some(extracting));
        }
    }

    fn poll_extracted(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Extracted> {
        match self.project().extracting.as_pin_mut() {
            Some(extracting) => extracting.poll(context),
            None => not_started(),
        }
    }

    fn give(self: Pin<&mut Self>, given: &mut dyn Any) {
        take_over(self.project().given, given);
    }

    fn then(self: Pin<&mut Self>, then: &dyn Any) {
        *self.project().then = then.downcast_ref().copied();
    }

    fn clear(self: Pin<&mut Self>) {
        let mut this = self.project();
        *this.given = None;
        this.extracting.set(None);
    }

    fn kind(&self) -> TypeId {
        kind::<K, S, T>()
    }
}

#[cold]
fn not_started() -> ! {
    panic!("the arguments of a handler are extracted after the start")
}

/// Calls the handler. A handler that is not an `async fn` runs its own code here, before it returns its future: its panic
/// is moved into the future, so that it counts as the handler's and not as an extractor's.
fn call<T>(then: Then<T>, arguments: T) -> BoxFuture<Response> {
    match panic::catch_unwind(AssertUnwindSafe(|| then(arguments))) {
        Ok(handler) => handler,
        Err(payload) => Box::pin(async move { panic::resume_unwind(payload) }),
    }
}
