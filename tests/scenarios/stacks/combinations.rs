//! Each usual layer on each side of the engine, in `ServiceBuilder` stacks and as layers of the router.

use std::time::Duration;

use axum::{
    BoxError,
    error_handling::HandleErrorLayer,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use http::{HeaderName, StatusCode};
use tower::{
    ServiceBuilder,
    buffer::BufferLayer,
    limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer},
    load_shed::LoadShedLayer,
    util::MapResponseLayer,
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::CompressionLayer,
    cors::CorsLayer,
    decompression::RequestDecompressionLayer,
    limit::RequestBodyLimitLayer,
    map_request_body::MapRequestBodyLayer,
    propagate_header::PropagateHeaderLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    sensitive_headers::SetSensitiveRequestHeadersLayer,
    set_header::SetResponseHeaderLayer,
    timeout::{RequestBodyTimeoutLayer, TimeoutLayer},
    trace::TraceLayer,
    validate_request::ValidateRequestHeaderLayer,
};

use super::{assert_serves, idempotency, value};
use crate::support::{CountingHandler, unprotected_app, with_paused_clock};

/// A middleware function that does nothing.
async fn pass(request: Request, next: Next) -> Response {
    next.run(request).await
}

async fn overloaded(_: BoxError) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}

/// Asserts that a layer works outside of the engine and inside, in a stack and as a layer of the router.
macro_rules! assert_each_side {
    ($layer:expr) => {
        with_paused_clock(async {
            let handler = CountingHandler::new();
            let routes = || unprotected_app(&handler);
            let stack = ServiceBuilder::new().layer($layer).layer(idempotency());
            assert_serves("outside", &routes().layer(stack), &handler).await;
            let stack = ServiceBuilder::new().layer(idempotency()).layer($layer);
            assert_serves("inside", &routes().layer(stack), &handler).await;
            // The layer hands on axum's body, whatever came in: middleware functions need that.
            let stack = ServiceBuilder::new()
                .layer($layer)
                .layer(idempotency())
                .layer(from_fn(pass));
            assert_serves(
                "outside, a function inside",
                &routes().layer(stack),
                &handler,
            )
            .await;
            let stack = ServiceBuilder::new()
                .layer(from_fn(pass))
                .layer(idempotency())
                .layer($layer);
            assert_serves(
                "inside, a function outside",
                &routes().layer(stack),
                &handler,
            )
            .await;
            let stack = ServiceBuilder::new()
                .layer($layer)
                .layer(idempotency())
                .layer($layer);
            assert_serves("on both sides", &routes().route_layer(stack), &handler).await;
            let app = routes().route_layer(idempotency()).layer($layer);
            assert_serves("outside, as a layer of the router", &app, &handler).await;
            let app = routes().route_layer($layer).layer(idempotency());
            assert_serves("inside, as a layer of the routes", &app, &handler).await;
        });
    };
}

#[test]
pub(super) fn middleware_functions() {
    assert_each_side!(from_fn(pass));
}

#[test]
pub(super) fn cors() {
    assert_each_side!(CorsLayer::permissive());
}

#[test]
pub(super) fn time_outs() {
    assert_each_side!(TimeoutLayer::with_status_code(
        StatusCode::GATEWAY_TIMEOUT,
        Duration::from_secs(5)
    ));
    assert_each_side!(RequestBodyTimeoutLayer::new(Duration::from_secs(5)));
    assert_each_side!(
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(overloaded))
            .timeout(Duration::from_secs(5))
            .into_inner()
    );
}

#[test]
pub(super) fn tracing() {
    assert_each_side!(TraceLayer::new_for_http());
}

#[test]
pub(super) fn compression() {
    assert_each_side!(CompressionLayer::new());
}

#[test]
pub(super) fn decompression_of_requests() {
    assert_each_side!(RequestDecompressionLayer::new());
}

#[test]
pub(super) fn limits_on_request_bodies() {
    assert_each_side!(RequestBodyLimitLayer::new(1000));
    assert_each_side!(MapRequestBodyLayer::new(axum::body::Body::new));
}

#[test]
pub(super) fn request_ids() {
    assert_each_side!(SetRequestIdLayer::x_request_id(MakeRequestUuid));
    assert_each_side!(PropagateRequestIdLayer::x_request_id());
}

#[test]
pub(super) fn headers() {
    let name = || HeaderName::from_static("x-version");
    assert_each_side!(SetResponseHeaderLayer::overriding(name(), value("7")));
    assert_each_side!(PropagateHeaderLayer::new(name()));
    assert_each_side!(SetSensitiveRequestHeadersLayer::new([name()]));
}

#[test]
pub(super) fn panic_catchers() {
    assert_each_side!(CatchPanicLayer::new());
}

#[test]
#[expect(deprecated, reason = "many services have it")]
#[expect(clippy::result_large_err, reason = "the trait wants a response")]
pub(super) fn authentication() {
    assert_each_side!(ValidateRequestHeaderLayer::bearer("secret"));
    // With a body of its own for refusals, which has to be the body of the layer's responses.
    assert_each_side!(ValidateRequestHeaderLayer::custom(
        |request: &mut Request| {
            let refusal = Response::new(axum::body::Body::from("who are you?"));
            request
                .headers()
                .get("authorization")
                .map(drop)
                .ok_or(refusal)
        }
    ));
}

#[test]
pub(super) fn extensions() {
    #[derive(Clone)]
    struct Shared;
    assert_each_side!(axum::Extension(Shared));
    assert_each_side!(tower_http::add_extension::AddExtensionLayer::new(Shared));
}

#[test]
pub(super) fn concurrency_limits() {
    assert_each_side!(ConcurrencyLimitLayer::new(1));
    assert_each_side!(GlobalConcurrencyLimitLayer::new(1));
}

#[test]
pub(super) fn load_shedding() {
    assert_each_side!(
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(overloaded))
            .layer(LoadShedLayer::new())
            .layer(ConcurrencyLimitLayer::new(1))
            .into_inner()
    );
}

#[test]
pub(super) fn buffers() {
    assert_each_side!(
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(overloaded))
            .layer(BufferLayer::<Request>::new(4))
            .into_inner()
    );
}

#[test]
pub(super) fn errors_that_are_handled_outside() {
    with_paused_clock(async {
        // Errors pass the layer: what fails inside is answered outside.
        let handler = CountingHandler::new();
        let stack = ServiceBuilder::new()
            .layer(HandleErrorLayer::new(overloaded))
            .layer(idempotency())
            .load_shed()
            .concurrency_limit(1)
            .timeout(Duration::from_secs(5))
            .buffer(4);
        let app = unprotected_app(&handler).layer(stack);
        assert_serves("a stack that can fail", &app, &handler).await;
    });
}

#[test]
pub(super) fn a_stack_of_everything() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let stack = ServiceBuilder::new()
            .layer(CatchPanicLayer::new())
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
            .layer(TraceLayer::new_for_http())
            .layer(PropagateRequestIdLayer::x_request_id())
            .layer(TimeoutLayer::with_status_code(
                StatusCode::GATEWAY_TIMEOUT,
                Duration::from_secs(5),
            ))
            .layer(CorsLayer::permissive())
            .layer(CompressionLayer::new())
            .layer(MapRequestBodyLayer::new(axum::body::Body::new))
            .layer(RequestDecompressionLayer::new())
            .layer(MapRequestBodyLayer::new(axum::body::Body::new))
            .layer(from_fn(pass))
            .layer(RequestBodyLimitLayer::new(1000))
            .layer(idempotency())
            .layer(from_fn(pass))
            .layer(MapResponseLayer::new(|response: Response| response))
            .layer(ConcurrencyLimitLayer::new(8));
        let app = unprotected_app(&handler).layer(stack);
        assert_serves("everything", &app, &handler).await;
    });
}
