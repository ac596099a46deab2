//! What the engine is told about HTTP does not count for operations without it.

use ::http::{Response, StatusCode};

use super::*;

/// An engine whose defaults are for requests only.
fn of_requests() -> Builder {
    let policy = Policy::new()
        .required(true)
        .require_caller(true)
        .header("x-request-key")
        .when(|_| false)
        .key(|_| Some(Err(KeyError::Missing)))
        .scope(|parts| panic!("asked for a scope of {parts:?}"))
        .fingerprint(FingerprintRule::new().headers(&["x-currency"]))
        .keep_headers(&["x-kept"])
        .release(&[200, 422])
        .max_body(1);
    Idempotency::builder()
        .policy(policy)
        .scope(scope::header("authorization"))
        .profile(Profile::Stripe)
}

#[test]
fn settings_for_requests_are_without_effect() {
    with_paused_clock(async {
        let (engine, effects) = (of_requests().build().unwrap(), Effects::default());
        for _ in 0..2 {
            let once = engine.once("charges", "k").fingerprint("a command");
            assert_eq!(charge(once, &effects).await.unwrap(), 1);
        }
        let once = engine.once("charges", "k").fingerprint("another");
        assert_eq!(code(&charge(once, &effects).await), ProblemCode::Mismatch);
    });
}

#[test]
fn the_engines_caller_step_is_not_asked() {
    with_paused_clock(async {
        let engine = Idempotency::builder()
            .caller(|parts| async move {
                let refused = Response::builder().status(StatusCode::FORBIDDEN);
                drop(parts);
                Err(refused.body(axum::body::Body::empty()).unwrap())
            })
            .build()
            .unwrap();
        let effects = Effects::default();
        let ended = charge(engine.once("charges", "k"), &effects).await;
        assert_eq!(ended.unwrap(), 1);
    });
}

#[test]
fn a_route_of_the_same_name_never_gets_the_outcome_of_an_operation() {
    with_paused_clock(async {
        let (engine, effects) = (engine(), Effects::default());
        charge(engine.once("charges", "k"), &effects).await.unwrap();
        let layer = IdempotencyLayer::new(engine.clone()).endpoint("charges");
        let route = post(|| async { "a route" }).layer(layer);
        let app = Router::new().route(crate::support::PAY, route);
        let response = send(&app, &TestRequest::payment("k")).await;
        assert_eq!(response.status, StatusCode::OK);
        assert_eq!(response.body, "a route");
    });
}
