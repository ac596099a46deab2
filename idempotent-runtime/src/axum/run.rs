//! From a [`FromRouter`] to its response.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::axum::{body::Body, extract::Request, http::request::Parts, response::Response};
use bytes::Bytes;
use pin_project_lite::pin_project;

use super::{
    call::FromRouter,
    deferred::Deferred,
    extraction::{Extracted, Start, Then, end},
    invoke::Invoke,
    routing::ROUTING,
};
use crate::{
    Policy,
    body::from_engine,
    caller::Authentication,
    catch_unwind::{Panicked, catch_unwind},
    engine::{
        BoxFuture, Coverage, FoundKey, Handler, HandlerResult, Idempotency, Recovering, Refused,
        Reply, Served, coverage,
    },
    execution::Crash,
    policy::RecoverFn,
    route::{Routing, endpoint},
};

/// The response of an annotated handler, on its way.
#[must_use = "a response is only made when it is awaited"]
pub struct HandlerFuture(Kind);

enum Kind {
    /// The handler, as if the attribute were absent; with the engine, if its problems have a style of their own.
    Plain(Handling, Option<Idempotency>),
    /// Whatever the engine decides.
    Covered(Served<Reply<Body>>),
}

/// Extracts the arguments, then runs the handler.
enum Handling {
    /// After the caller step, or before the handler's transaction has begun.
    Waiting(BoxFuture<Extracted>),
    Extracting(Step),
    Answering(BoxFuture<Response>),
}

/// The same under the engine, which has to know whether an extractor panicked or the handler.
struct Covered(Handling);

/// The step "extract, then call the handler".
struct Step {
    /// `None` once it was dropped.
    step: Option<Pin<Box<dyn Start>>>,
    /// The transaction that begins after the extraction.
    deferred: Option<Deferred>,
}

/// Runs a handler under its policy.
pub fn run_handler<T, E, C>(
    call: FromRouter<T, E, C>,
    policy: &'static Policy,
    then: Then<T>,
) -> HandlerFuture
where
    T: 'static,
{
    let FromRouter {
        request,
        engine,
        mut extraction,
        ..
    } = call;
    extraction.as_mut().then(&then);
    let step = Step {
        step: Some(extraction),
        deferred: None,
    };
    run(request, engine.as_ref(), policy, step)
}

/// The same for all handlers, compiled once.
fn run(
    mut request: Request,
    engine: Option<&Idempotency>,
    policy: &'static Policy,
    step: Step,
) -> HandlerFuture {
    let chosen = Idempotency::for_route(engine, request.extensions()).cloned();
    let covered = match &chosen {
        Some(engine) => engine.coverage(policy, &mut request, &ROUTING),
        None => coverage(policy, &Policy::new(), &mut request, &ROUTING),
    };
    let found = match covered {
        Coverage::Protected(found) => found,
        unprotected => {
            let style = chosen.as_ref().and_then(Idempotency::with_own_style);
            let handling = match unprotected {
                // Who calls is asked all the same, since the handler may rely on it.
                Coverage::Claimed => step.authenticated(request, chosen.as_ref(), policy),
                _ => step.handling(request),
            };
            return HandlerFuture(Kind::Plain(handling, style));
        }
    };
    let engine = chosen.unwrap_or_else(|| {
        let keyed = !matches!(found, FoundKey::Missing);
        let endpoint = endpoint(policy, &request, &ROUTING);
        Idempotency::fallback(endpoint.label(), keyed).clone()
    });
    let template = ROUTING.of(request.extensions()).template;
    let plan = engine.plan(policy, request.method(), template);
    HandlerFuture(Kind::Covered(engine.run(plan, found, request, step)))
}

pin_project! {
    /// The user's function at work, and what makes the response of its return value. Written by hand: of an
    /// `async` block, each handler would have several times as much to compile.
    struct Responding<F, R> {
        #[pin]
        function: F,
        answer: fn(R) -> Response,
    }
}

impl<F: Future<Output = R>, R> Future for Responding<F, R> {
    type Output = Response;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        let this = self.project();
        this.function.poll(context).map(this.answer)
    }
}

/// Calls the user's function and makes the response of what it returns.
///
/// `answer` is a plain function, so that a return type which is no response is one error, at the place the
/// caller gave it.
pub fn respond<T, H, R>(handler: H, arguments: T, answer: fn(R) -> Response) -> BoxFuture<Response>
where
    H: Invoke<T, Future: Future<Output = R> + Send + 'static>,
    R: 'static,
{
    let function = handler.invoke(arguments);
    Box::pin(Responding { function, answer })
}

impl Step {
    fn start(&self) -> &dyn Start {
        self.step.as_deref().expect(HELD)
    }

    fn start_mut(&mut self) -> Pin<&mut dyn Start> {
        self.step.as_mut().expect(HELD).as_mut()
    }

    fn handling(mut self, request: Request) -> Handling {
        self.deferred = Deferred::of(request.extensions());
        self.start_mut().start(request);
        Handling::Extracting(self)
    }

    fn poll_extracted(&mut self, context: &mut Context<'_>) -> Poll<Extracted> {
        self.start_mut().poll_extracted(context)
    }

    /// The same after the caller step, of the handler or of its engine.
    fn authenticated(
        self,
        request: Request,
        engine: Option<&Idempotency>,
        policy: &Policy,
    ) -> Handling {
        let refused = Refused::for_request(&request, &ROUTING);
        let of_engine = engine.and_then(|engine| engine.caller_inside(&request));
        if let Some(engine) = engine
            && (of_engine.is_some() || self.has_caller())
        {
            engine.warn_of_a_caller_inside(policy, &request, &ROUTING);
        }
        let (head, body) = request.into_parts();
        let authentication = match (self.start().authenticate(head), of_engine) {
            (Authentication::None(head), Some(caller)) => caller.start(head),
            (authentication, _) => authentication,
        };
        match authentication {
            Authentication::None(head) => self.handling(Request::from_parts(head, body)),
            Authentication::Pending(found) => Handling::Waiting(Box::pin(async move {
                match found.await {
                    Ok((head, _)) => {
                        let mut step = self;
                        step.start_mut().start(Request::from_parts(head, body));
                        poll_fn(|context| step.poll_extracted(context)).await
                    }
                    Err(rejection) => {
                        let mut rejection = rejection.map(Body::new);
                        if let Some(refused) = refused {
                            refused.mark(&mut rejection);
                        }
                        Err(rejection)
                    }
                }
            })),
        }
    }
}

/// Only its destructor takes the step out.
const HELD: &str = "a step is held until it is dropped";

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(step) = self.step.take() {
            end(step);
        }
    }
}

impl Handler for Step {
    type Body = Body;
    type Future = Covered;

    const ROUTING: &'static Routing = &ROUTING;

    fn has_caller(&self) -> bool {
        self.start().has_caller()
    }

    fn authenticate(&self, head: Parts) -> Authentication {
        self.start().authenticate(head)
    }

    fn recover(&mut self, recover: RecoverFn, crash: Crash) -> Recovering<'_> {
        self.start_mut().recover(recover, crash)
    }

    fn call(self, request: ::http::Request<Bytes>) -> Covered {
        Covered(self.handling(request.map(Body::from)))
    }
}

impl Future for Covered {
    type Output = HandlerResult<Body>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<HandlerResult<Body>> {
        let Handling::Extracting(step) = &mut self.0 else {
            return Pin::new(&mut self.0).poll(context);
        };
        match catch_unwind(|| step.poll_extracted(context)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(handler))) => {
                let deferred = step.deferred.take();
                self.0 = Handling::extracted(handler, deferred);
                Pin::new(&mut self.0).poll(context)
            }
            Ok(Poll::Ready(Err(rejection))) => Poll::Ready(HandlerResult::Rejected(rejection)),
            Err(Panicked) => Poll::Ready(HandlerResult::ExtractorPanicked),
        }
    }
}

impl Handling {
    /// The arguments are here. The handler's future was not polled yet: a transaction begins before.
    fn extracted(handler: BoxFuture<Response>, deferred: Option<Deferred>) -> Self {
        match deferred {
            None => Self::Answering(handler),
            Some(deferred) => Self::Waiting(Box::pin(async move {
                deferred.begin().await?;
                Ok(handler)
            })),
        }
    }
}

impl Future for Handling {
    type Output = HandlerResult<Body>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<HandlerResult<Body>> {
        loop {
            let (extracted, deferred) = match &mut *self {
                Self::Waiting(extraction) => (ready!(extraction.as_mut().poll(context)), None),
                Self::Extracting(step) => {
                    (ready!(step.poll_extracted(context)), step.deferred.take())
                }
                Self::Answering(handler) => {
                    return handler.as_mut().poll(context).map(HandlerResult::Returned);
                }
            };
            match extracted {
                Ok(handler) => *self = Self::extracted(handler, deferred),
                Err(rejection) => return Poll::Ready(HandlerResult::Rejected(rejection)),
            }
        }
    }
}

impl Future for HandlerFuture {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        match &mut self.0 {
            Kind::Plain(handling, style) => match ready!(Pin::new(handling).poll(context)) {
                HandlerResult::Returned(response) | HandlerResult::Rejected(response) => {
                    Poll::Ready(match style {
                        Some(engine) => engine.restyled(response, Body::from),
                        None => response,
                    })
                }
                HandlerResult::ExtractorPanicked
                | HandlerResult::NotStarted
                | HandlerResult::Failed => {
                    unreachable!("an axum handler always answers, and its panics pass through")
                }
            },
            Kind::Covered(future) => Pin::new(future).poll(context).map(from_engine),
        }
    }
}

impl fmt::Debug for HandlerFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Plain(..) => "HandlerFuture::Plain",
            Kind::Covered(_) => "HandlerFuture::Covered",
        })
    }
}
