//! From a [`Call`] to its response.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;

use super::{
    call::{Call, Then},
    invoke::Invoke,
};
use crate::{
    Crash, Execution, Policy, Recovery,
    engine::{Attended, BoxFuture, Idempotency, Ran, Reply, Simplified, Work},
    route::route,
};

/// The response of an annotated handler, on its way.
#[must_use = "a response is only made when it is awaited"]
pub struct Running(Kind);

enum Kind {
    /// The handler, as if the attribute were absent.
    Plain(BoxFuture<Ran<Body>>),
    /// Whatever the engine decides.
    Attended(Attended<Reply<Body>>),
}

/// The erased step "extract, then call the handler".
struct Step(Box<dyn FnOnce(Request) -> BoxFuture<Ran<Body>> + Send>);

/// Runs a handler under its policy.
///
/// `name` is the handler's path, the endpoint where no router says which route matched.
pub fn run_handler<T, E>(
    call: Call<T, E>,
    policy: &'static Policy,
    name: &'static str,
    then: Then<T>,
) -> Running
where
    T: 'static,
{
    let Call {
        request,
        engine,
        extraction,
        ..
    } = call;
    match covering(engine.as_ref(), policy, &request) {
        None => Running(Kind::Plain(extraction.start(request, then))),
        Some(engine) => {
            let step = Step(Box::new(move |request| extraction.start(request, then)));
            attended(&engine, policy, name, request, step)
        }
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
    let returned = handler.invoke(arguments);
    Box::pin(async move { answer(returned.await) })
}

/// Calls a recovery function and boxes what it returns.
pub fn recovery<H, F>(recover: H, crash: Crash) -> Pin<Box<dyn Future<Output = Recovery> + Send>>
where
    H: FnOnce(Crash) -> F,
    F: Future<Output = Recovery> + Send + 'static,
{
    Box::pin(recover(crash))
}

/// The engine that this request is the business of, if there is one.
fn covering(
    engine: Option<&Idempotency>,
    policy: &Policy,
    request: &Request,
) -> Option<Idempotency> {
    let extensions = request.extensions();
    let chosen = engine.or_else(|| extensions.get());
    let chosen = chosen.unwrap_or_else(|| Idempotency::of_this_process());
    // An engine around this one has claimed the key: claiming it again would wait for itself.
    let covers = chosen.covers(policy, request.headers())
        && Execution::from_extensions(extensions).is_none();
    covers.then(|| chosen.clone())
}

fn attended(
    engine: &Idempotency,
    policy: &Policy,
    name: &'static str,
    request: Request,
    step: Step,
) -> Running {
    let route = route(
        policy.name,
        Some(name),
        request.method(),
        request.uri(),
        request.extensions(),
    );
    Running(Kind::Attended(engine.run(policy, route, request, step)))
}

impl Work for Step {
    type Body = Body;

    fn start(self, request: ::http::Request<Bytes>) -> BoxFuture<Ran<Body>> {
        self.0(request.map(Body::from))
    }
}

impl Future for Running {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        match &mut self.0 {
            Kind::Plain(future) => match ready!(future.as_mut().poll(context)) {
                Ran::Answered(response) | Ran::Rejected(response) => Poll::Ready(response),
                Ran::Failed => unreachable!("an axum handler always answers"),
            },
            Kind::Attended(attended) => Pin::new(attended).poll(context).map(|reply| {
                reply.map(|body| match body.simplify() {
                    Simplified::Full(bytes) => Body::from(bytes),
                    Simplified::Live(body) => body,
                    Simplified::Recording(recording) => Body::new(recording),
                })
            }),
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Plain(_) => "Running::Plain",
            Kind::Attended(_) => "Running::Attended",
        })
    }
}
