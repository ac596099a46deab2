//! From a [`FromRouter`] to its response.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::axum::{body::Body, extract::Request, http::request::Parts, response::Response};
use bytes::Bytes;
use pin_project_lite::pin_project;

use super::{
    call::FromRouter,
    extraction::{Extracted, Start, Then},
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
    Extracting(BoxFuture<Extracted>),
    Answering(BoxFuture<Response>),
}

/// The same under the engine, which has to know whether an extractor panicked or the handler.
struct Covered(Handling);

/// The step "extract, then call the handler".
struct Step(Box<dyn Start>);

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
    extraction.then(then);
    run(request, engine.as_ref(), policy, Step(extraction))
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
    fn handling(self, request: Request) -> Handling {
        Handling::Extracting(self.0.start(request))
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
            && (of_engine.is_some() || self.0.has_caller())
        {
            engine.warn_of_a_caller_inside(policy, &request, &ROUTING);
        }
        let (head, body) = request.into_parts();
        let authentication = match (self.0.authenticate(head), of_engine) {
            (Authentication::None(head), Some(caller)) => caller.start(head),
            (authentication, _) => authentication,
        };
        match authentication {
            Authentication::None(head) => self.handling(Request::from_parts(head, body)),
            Authentication::Pending(found) => Handling::Extracting(Box::pin(async move {
                match found.await {
                    Ok((head, _)) => self.0.start(Request::from_parts(head, body)).await,
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

impl Handler for Step {
    type Body = Body;
    type Future = Covered;

    const ROUTING: &'static Routing = &ROUTING;

    fn has_caller(&self) -> bool {
        self.0.has_caller()
    }

    fn authenticate(&self, head: Parts) -> Authentication {
        self.0.authenticate(head)
    }

    fn recover(&mut self, recover: RecoverFn, crash: Crash) -> Recovering<'_> {
        self.0.recover(recover, crash)
    }

    fn call(self, request: ::http::Request<Bytes>) -> Covered {
        Covered(self.handling(request.map(Body::from)))
    }
}

impl Future for Covered {
    type Output = HandlerResult<Body>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<HandlerResult<Body>> {
        let Handling::Extracting(extraction) = &mut self.0 else {
            return Pin::new(&mut self.0).poll(context);
        };
        match catch_unwind(|| extraction.as_mut().poll(context)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Ok(handler))) => {
                self.0 = Handling::Answering(handler);
                Pin::new(&mut self.0).poll(context)
            }
            Ok(Poll::Ready(Err(rejection))) => Poll::Ready(HandlerResult::Rejected(rejection)),
            Err(Panicked) => Poll::Ready(HandlerResult::ExtractorPanicked),
        }
    }
}

impl Future for Handling {
    type Output = HandlerResult<Body>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<HandlerResult<Body>> {
        loop {
            *self = match &mut *self {
                Self::Extracting(extraction) => match ready!(extraction.as_mut().poll(context)) {
                    Ok(handler) => Self::Answering(handler),
                    Err(rejection) => return Poll::Ready(HandlerResult::Rejected(rejection)),
                },
                Self::Answering(handler) => {
                    return handler.as_mut().poll(context).map(HandlerResult::Returned);
                }
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
