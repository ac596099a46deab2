//! What each usual layer does outside of the engine, and what it does inside: the rows of the guide's table.

use std::{
    io::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    BoxError, Router,
    body::Body,
    error_handling::HandleErrorLayer,
    extract::{DefaultBodyLimit, Extension, Request},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::post,
};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderName, Method, StatusCode};
use idempotent_runtime::{
    Caller, Idempotency, IdempotencyLayer, OnCrash, Policy, ProblemCode, Scope, scope,
};
use tower::{Layer, ServiceBuilder, ServiceExt, retry};
use tower_http::{
    catch_panic::CatchPanicLayer,
    compression::CompressionLayer,
    cors::{AllowOrigin, CorsLayer},
    decompression::RequestDecompressionLayer,
    limit::RequestBodyLimitLayer,
    normalize_path::NormalizePathLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
    set_header::SetResponseHeaderLayer,
};

use super::{engine, idempotency};
use crate::support::{
    CountingHandler, PAY, TestRequest, TestResponse, advance, run_ready_tasks, send, send_in_task,
    unprotected_app, with_paused_clock,
};

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

/// An app with this layer outside of the engine, and one with it inside.
macro_rules! each_side {
    ($handler:expr, $layer:expr) => {{
        let outside = ServiceBuilder::new().layer($layer).layer(idempotency());
        let inside = ServiceBuilder::new().layer(idempotency()).layer($layer);
        [
            unprotected_app($handler).layer(outside),
            unprotected_app($handler).layer(inside),
        ]
    }};
}

/// A number that rises with each response.
fn numbered(
    name: &'static str,
) -> SetResponseHeaderLayer<impl FnMut(&Response) -> Option<http::HeaderValue> + Clone> {
    let count = Arc::new(AtomicUsize::new(0));
    SetResponseHeaderLayer::overriding(HeaderName::from_static(name), move |_: &Response| {
        let n = count.fetch_add(1, Ordering::SeqCst) + 1;
        Some(n.to_string().parse().unwrap())
    })
}

#[derive(Clone)]
struct Account(String);

impl Caller for Account {
    fn scope(&self) -> Scope {
        Scope::new(&self.0)
    }
}

/// An authentication of which tokens can be revoked.
#[derive(Clone, Default)]
struct Tokens(Arc<Mutex<Vec<&'static str>>>);

impl Tokens {
    fn valid(tokens: &[&'static str]) -> Self {
        Self(Arc::new(Mutex::new(tokens.to_vec())))
    }

    fn revoke_all(&self) {
        self.0.lock().unwrap().clear();
    }

    async fn check(self, mut request: Request, next: Next) -> Result<Response, StatusCode> {
        let token = request.headers().get("authorization");
        let token = token.and_then(|token| token.to_str().ok());
        let token = token.ok_or(StatusCode::UNAUTHORIZED)?.to_owned();
        if !self.0.lock().unwrap().contains(&token.as_str()) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        request.extensions_mut().insert(Account(token));
        Ok(next.run(request).await)
    }
}

#[test]
pub(super) fn authentication_outside_refuses_replays_and_names_the_caller() {
    with_paused_clock(async {
        let (handler, tokens) = (CountingHandler::new(), Tokens::valid(&["alice", "bob"]));
        let engine = Idempotency::builder()
            .scope(scope::extension::<Account>())
            .build()
            .unwrap();
        let check = tokens.clone();
        let stack = ServiceBuilder::new()
            .layer(from_fn(move |request: Request, next: Next| {
                check.clone().check(request, next)
            }))
            .layer(IdempotencyLayer::new(engine));
        let app = unprotected_app(&handler).layer(stack);
        let by = |token: &str| payment().header("authorization", token);
        send(&app, &by("alice")).await.assert_charge(1);
        send(&app, &by("alice")).await.assert_replay_of_charge(1);
        // Another caller's key is another key, and a stranger touches none.
        send(&app, &by("bob")).await.assert_charge(2);
        assert_eq!(send(&app, &by("mallory")).await.status, 401);
        assert_eq!(send(&app, &payment()).await.status, 401);
        tokens.revoke_all();
        assert_eq!(send(&app, &by("alice")).await.status, 401);
        assert_eq!(handler.starts(), 2);
    });
}

#[test]
pub(super) fn authentication_inside_does_not_see_replays() {
    with_paused_clock(async {
        let (handler, tokens) = (CountingHandler::new(), Tokens::valid(&["alice"]));
        let check = tokens.clone();
        let stack = ServiceBuilder::new().layer(idempotency()).layer(from_fn(
            move |request: Request, next: Next| check.clone().check(request, next),
        ));
        let app = unprotected_app(&handler).layer(stack);
        let request = payment().header("authorization", "alice");
        send(&app, &request).await.assert_charge(1);
        tokens.revoke_all();
        // That is why it belongs outside.
        send(&app, &request).await.assert_replay_of_charge(1);
    });
}

/// Retries a service that answers with an error, up to three times.
#[derive(Clone)]
struct Thrice(usize);

impl<E> retry::Policy<Request<()>, Response, E> for Thrice {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<()>,
        result: &mut Result<Response, E>,
    ) -> Option<Self::Future> {
        let failed = result
            .as_ref()
            .is_ok_and(|response| response.status() == 500);
        self.0 = self.0.checked_sub(1)?;
        failed.then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<()>) -> Option<Request<()>> {
        let mut clone = Request::new(());
        *clone.method_mut() = request.method().clone();
        *clone.uri_mut() = request.uri().clone();
        *clone.headers_mut() = request.headers().clone();
        Some(clone)
    }
}

#[test]
pub(super) fn retries_of_a_service_outside_are_replays_and_inside_further_calls() {
    with_paused_clock(async {
        let request = || payment().request().map(drop);
        for (outside, calls) in [(true, 1), (false, 3)] {
            let handler = CountingHandler::with_first_status(500);
            let retries = retry::RetryLayer::new(Thrice(2));
            let emptied = tower::util::MapRequestLayer::new(|request: Request<()>| {
                request.map(|()| Body::empty())
            });
            let answer = if outside {
                let stack = ServiceBuilder::new()
                    .layer(retries)
                    .layer(emptied)
                    .layer(idempotency());
                stack
                    .service(unprotected_app(&handler))
                    .oneshot(request())
                    .await
            } else {
                let handler = handler.clone();
                let failing = tower::service_fn(move |_: Request<()>| {
                    let answer = handler.clone().call(Request::new(Body::empty()));
                    async {
                        let _counted = answer.await;
                        Ok::<_, std::convert::Infallible>(
                            StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                        )
                    }
                });
                let stack = ServiceBuilder::new()
                    .layer(idempotency())
                    .map_request(|request: Request| request.map(drop))
                    .layer(retries);
                stack
                    .service(failing)
                    .oneshot(request().map(|()| Body::empty()))
                    .await
            };
            assert_eq!(answer.unwrap().status(), 500);
            assert_eq!(handler.starts(), calls, "{outside}");
        }
    });
}

#[test]
pub(super) fn panic_catchers_outside_leave_panics_to_the_engine() {
    with_paused_clock(async {
        for (outside, starts) in [(true, 2), (false, 1)] {
            let handler = CountingHandler::responding(|n| match n {
                1 => panic!("a panic of the scenario"),
                n => (StatusCode::CREATED, format!("charge {n}")).into_response(),
            });
            let layer = idempotency().policy(Policy::new().on_crash(OnCrash::Retry));
            let app = unprotected_app(&handler);
            let app = if outside {
                app.layer(
                    ServiceBuilder::new()
                        .layer(CatchPanicLayer::new())
                        .layer(layer),
                )
            } else {
                app.layer(
                    ServiceBuilder::new()
                        .layer(layer)
                        .layer(CatchPanicLayer::new()),
                )
            };
            assert_eq!(send(&app, &payment()).await.status, 500);
            let again = send(&app, &payment()).await;
            assert_eq!(again.replayed(), !outside, "{outside}");
            assert_eq!(handler.starts(), starts, "{outside}");
        }
    });
}

async fn length(body: bytes::Bytes) -> String {
    body.len().to_string()
}

#[test]
pub(super) fn limits_on_request_bodies_claim_nothing_outside() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let layer = || idempotency().policy(Policy::new().max_body(2000));
        let sized = |size: usize| payment().body("x".repeat(size));
        let limit = || RequestBodyLimitLayer::new(1000);
        let outside = ServiceBuilder::new().layer(limit()).layer(layer());
        let app = unprotected_app(&handler).layer(outside);
        assert_eq!(send(&app, &sized(1001)).await.status, 413);
        // The key is free: another body is no mismatch.
        send(&app, &sized(1000)).await.assert_charge(1);
        send(&app, &sized(1000)).await.assert_replay_of_charge(1);
        // Inside, the engine reads the body first, within its own limit, and the refusal is the outcome.
        let inside = ServiceBuilder::new().layer(layer()).layer(limit());
        let app: Router = Router::new().route(PAY, post(length)).layer(inside);
        send(&app, &sized(2001))
            .await
            .assert_problem(413, "request_too_large");
        for replayed in [false, true] {
            let refused = send(&app, &sized(1001)).await;
            assert_eq!(
                (refused.status.as_u16(), refused.replayed()),
                (413, replayed)
            );
        }
        send(&app, &sized(1000))
            .await
            .assert_problem(409, "mismatch");
        // `DefaultBodyLimit` is for extractors, which are inside, wherever it stands.
        let app: Router = Router::new()
            .route(PAY, post(length))
            .layer(layer())
            .layer(DefaultBodyLimit::max(1000));
        for replayed in [false, true] {
            let refused = send(&app, &sized(1001)).await;
            assert_eq!(
                (refused.status.as_u16(), refused.replayed()),
                (413, replayed)
            );
        }
    });
}

fn gzip(text: &str, level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
pub(super) fn decompression_of_requests_outside_compares_what_was_compressed() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let text = "a payment of 100, a payment of 100, a payment of 100";
        let compressed = |level| {
            let body = gzip(text, level);
            payment().header("content-encoding", "gzip").body(body)
        };
        let [outside, inside] = each_side!(&handler, RequestDecompressionLayer::new());
        send(&outside, &compressed(9)).await.assert_charge(1);
        send(&outside, &compressed(0))
            .await
            .assert_replay_of_charge(1);
        send(&outside, &payment().body(text))
            .await
            .assert_replay_of_charge(1);
        send(&inside, &compressed(9)).await.assert_charge(2);
        send(&inside, &compressed(9))
            .await
            .assert_replay_of_charge(2);
        send(&inside, &compressed(0))
            .await
            .assert_problem(409, "mismatch");
    });
}

#[test]
pub(super) fn compression_of_responses_outside_suits_each_client() {
    with_paused_clock(async {
        let handler =
            CountingHandler::responding(|n| format!("charge {n} ").repeat(100).into_response());
        let accepting = || payment().header("accept-encoding", "gzip");
        let [outside, inside] = each_side!(&handler, CompressionLayer::new());
        let encoding = |answer: &TestResponse| answer.headers.contains_key("content-encoding");
        // Outside, each client gets what it accepts.
        assert!(encoding(&send(&outside, &accepting()).await));
        let plain = send(&outside, &payment()).await;
        assert!(plain.replayed() && !encoding(&plain));
        assert_eq!(plain.text(), "charge 1 ".repeat(100));
        assert!(encoding(&send(&outside, &accepting()).await));
        // Inside, what the first one accepted is stored.
        assert!(encoding(&send(&inside, &accepting()).await));
        let plain = send(&inside, &payment()).await;
        assert!(plain.replayed() && encoding(&plain));
    });
}

#[test]
pub(super) fn cors_outside_answers_each_origin_and_preflights() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let cors = || {
            CorsLayer::new()
                .allow_origin(AllowOrigin::mirror_request())
                .allow_methods([Method::POST])
                .allow_headers([HeaderName::from_static("idempotency-key")])
                .expose_headers([HeaderName::from_static("idempotent-replay")])
        };
        let from = |origin: &str| payment().header("origin", origin);
        let [outside, inside] = each_side!(&handler, cors());
        let allowed = "access-control-allow-origin";
        for (n, app) in [&outside, &inside].into_iter().enumerate() {
            let preflight = TestRequest::new(Method::OPTIONS, PAY)
                .header("origin", "https://a")
                .header("access-control-request-method", "POST");
            let preflight = send(app, &preflight).await;
            assert_eq!(
                (preflight.status.as_u16(), preflight.lines(allowed)),
                (200, vec!["https://a"])
            );
            let first = send(app, &from("https://a")).await;
            first.assert_charge(n + 1);
            assert_eq!(first.lines(allowed), ["https://a"]);
        }
        // Outside, replays and the engine's own answers are for their own origin.
        let replay = send(&outside, &from("https://b")).await;
        assert!(replay.replayed());
        assert_eq!(replay.lines(allowed), ["https://b"]);
        let mismatch = send(&outside, &from("https://b").body("other")).await;
        mismatch.assert_problem(409, "mismatch");
        assert_eq!(mismatch.lines(allowed), ["https://b"]);
        // Inside, replays are for the first one, and the engine's own answers for nobody.
        assert_eq!(
            send(&inside, &from("https://b")).await.lines(allowed),
            ["https://a"]
        );
        let mismatch = send(&inside, &from("https://b").body("other")).await;
        assert_eq!(mismatch.lines(allowed), Vec::<&str>::new());
    });
}

#[test]
pub(super) fn request_ids_outside_are_each_requests_own() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let stack = ServiceBuilder::new()
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
            .layer(PropagateRequestIdLayer::x_request_id())
            .layer(idempotency());
        let app = unprotected_app(&handler).layer(stack);
        let mut ids = Vec::new();
        for n in 0..3 {
            let answer = send(&app, &payment()).await;
            assert_eq!(answer.replayed(), n > 0);
            ids.push(answer.lines("x-request-id")[0].to_owned());
        }
        ids.dedup();
        assert_eq!(ids.len(), 3);
    });
}

#[test]
pub(super) fn cookies_set_outside_reach_replays_too() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let [outside, inside] = each_side!(&handler, numbered("set-cookie"));
        assert_eq!(send(&outside, &payment()).await.lines("set-cookie"), ["1"]);
        assert_eq!(send(&outside, &payment()).await.lines("set-cookie"), ["2"]);
        assert_eq!(send(&inside, &payment()).await.lines("set-cookie"), ["1"]);
        let replay = send(&inside, &payment()).await;
        assert!(replay.replayed());
        assert_eq!(replay.lines("set-cookie"), Vec::<&str>::new());
    });
}

#[test]
pub(super) fn headers_set_outside_are_those_of_today() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let [outside, inside] = each_side!(&handler, numbered("x-version"));
        for (app, versions) in [(outside, ["1", "2"]), (inside, ["1", "1"])] {
            for version in versions {
                assert_eq!(send(&app, &payment()).await.lines("x-version"), [version]);
            }
        }
    });
}

#[test]
pub(super) fn counters_outside_count_requests_and_inside_executions() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let [requests, executions] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let counting = |count: &Arc<AtomicUsize>| {
            let count = Arc::clone(count);
            from_fn(move |request: Request, next: Next| {
                count.fetch_add(1, Ordering::SeqCst);
                next.run(request)
            })
        };
        let stack = ServiceBuilder::new()
            .layer(counting(&requests))
            .layer(idempotency())
            .layer(counting(&executions));
        let app = unprotected_app(&handler).layer(stack);
        for _ in 0..3 {
            send(&app, &payment()).await;
        }
        let counts = [&requests, &executions].map(|count| count.load(Ordering::SeqCst));
        assert_eq!(counts, [3, 1]);
    });
}

#[test]
pub(super) fn paths_are_rewritten_around_the_whole_router() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let router = unprotected_app(&handler).route_layer(idempotency());
        let mut app = NormalizePathLayer::trim_trailing_slash().layer(router);
        for (path, replayed) in [("/pay", false), ("/pay/", true), ("/pay", true)] {
            let request = TestRequest {
                path: path.into(),
                ..payment()
            };
            let answer = tower::Service::call(&mut app, request.request()).await;
            let answer = TestResponse::read(answer.unwrap()).await;
            assert_eq!(
                (answer.text(), answer.replayed()),
                ("charge 1", replayed),
                "{path}"
            );
        }
    });
}

#[test]
pub(super) fn a_switch_of_protocols_is_not_replayed() {
    with_paused_clock(async {
        let handler =
            CountingHandler::responding(|_| StatusCode::SWITCHING_PROTOCOLS.into_response());
        let app = unprotected_app(&handler).layer(idempotency());
        for _ in 0..2 {
            let answer = send(&app, &payment()).await;
            assert_eq!((answer.status.as_u16(), answer.replayed()), (101, false));
        }
        assert_eq!(handler.starts(), 2);
    });
}

#[test]
pub(super) fn problems_are_rewritten_outside() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let rewriting = || {
            tower::util::MapResponseLayer::new(|response: Response| {
                let code = response.extensions().get::<ProblemCode>().copied();
                match code {
                    Some(code) => {
                        (response.status(), format!("our own format: {code}")).into_response()
                    }
                    None => response,
                }
            })
        };
        let [outside, inside] = each_side!(&handler, rewriting());
        for (app, problem) in [(outside, "our own format: mismatch"), (inside, "")] {
            send(&app, &payment()).await;
            let mismatch = send(&app, &payment().body("other")).await;
            if problem.is_empty() {
                mismatch.assert_problem(409, "mismatch");
            } else {
                assert_eq!(mismatch.text(), problem);
            }
        }
    });
}

#[test]
pub(super) fn a_limit_outside_keeps_a_permit_for_each_waiter() {
    with_paused_clock(async {
        let (engine, handler) = (engine(), CountingHandler::new());
        let stack = ServiceBuilder::new()
            .layer(tower::limit::GlobalConcurrencyLimitLayer::new(2))
            .layer(IdempotencyLayer::new(engine));
        let app = unprotected_app(&handler).layer(stack);
        handler.close_gate();
        let first = send_in_task(&app, &payment());
        handler.started(1).await;
        let waiter = send_in_task(&app, &payment());
        let other = send_in_task(&app, &TestRequest::payment("other"));
        run_ready_tasks().await;
        assert_eq!(handler.starts(), 1);
        advance(std::time::Duration::from_secs(31)).await;
        waiter.await.unwrap().assert_problem(409, "conflict");
        handler.started(2).await;
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        other.await.unwrap().assert_charge(2);
    });
}

#[test]
pub(super) fn rate_limits_outside_touch_no_key_and_inside_release_it() {
    with_paused_clock(async {
        // Given a limiter that refuses every second request.
        let limiter = || {
            let count = Arc::new(AtomicUsize::new(0));
            from_fn(move |request: Request, next: Next| {
                let refused = count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
                async move {
                    if refused {
                        StatusCode::TOO_MANY_REQUESTS.into_response()
                    } else {
                        next.run(request).await
                    }
                }
            })
        };
        let handler = CountingHandler::new();
        for (n, app) in each_side!(&handler, limiter()).iter().enumerate() {
            assert_eq!(send(app, &payment()).await.status, 429);
            send(app, &payment()).await.assert_charge(n + 1);
        }
    });
}

#[test]
pub(super) fn an_extension_of_another_layer_reaches_the_handler() {
    with_paused_clock(async {
        async fn who(Extension(account): Extension<Account>) -> String {
            account.0
        }
        async fn unavailable(_: BoxError) -> StatusCode {
            StatusCode::SERVICE_UNAVAILABLE
        }
        let stack = ServiceBuilder::new()
            .layer(Extension(Account("outside".into())))
            .layer(HandleErrorLayer::new(unavailable))
            .layer(idempotency())
            .load_shed();
        let app: Router = Router::new().route(PAY, post(who)).layer(stack);
        assert_eq!(send(&app, &payment()).await.text(), "outside");
        assert_eq!(send(&app, &payment()).await.text(), "outside");
    });
}
