//! Every option of the attribute does what it says (contract, section 8).

use std::time::Duration;

use axum::{
    Extension, Router,
    extract::{FromRef, Request, State},
    response::Response,
    routing::post,
};
use http::{Response as HttpResponse, request::Parts};
use idempotent_runtime::{Crash, Idempotency, Policy, Recovery, Scope, idempotent};

use crate::support::{Ask, Till, ask, asking, by_hand, crash, pass, settle};

/// A router with one handler at `/pay`, under an engine whose default policy says the opposite of each option.
macro_rules! shop {
    ($till:expr, $handler:path) => {
        shop!($till, $handler, Policy::new())
    };
    ($till:expr, $handler:path, $policy:expr) => {{
        let engine = Idempotency::builder().policy($policy).build().unwrap();
        Router::new()
            .route("/pay", post($handler))
            .layer(Extension(engine))
            .with_state($till.clone())
    }};
}

/// A handler with these options.
macro_rules! handler {
    ($name:ident $(, $($options:tt)*)?) => {
        #[idempotent($($($options)*)?)]
        async fn $name(State(till): State<Till>, request: Request) -> Response {
            till.run(request).await
        }
    };
}

fn payment() -> Ask {
    Ask::pay("k")
}

#[test]
fn ttl_says_how_long_an_outcome_is_replayed() {
    handler!(pay, ttl = "1m30s");
    by_hand(async {
        let till = Till::new();
        let shop = shop!(till, pay);
        ask(&shop, &payment()).await.is_charge(1);
        pass(Duration::from_secs(89)).await;
        ask(&shop, &payment()).await.is_replay_of_charge(1);
        pass(Duration::from_secs(2)).await;
        ask(&shop, &payment()).await.is_charge(2);
    });
}

#[test]
fn wait_false_answers_duplicates_at_once() {
    handler!(pay, wait = false);
    by_hand(async {
        let till = Till::new();
        let shop = shop!(till, pay, Policy::new().wait(true));
        till.hold();
        let _first = asking(&shop, &payment());
        till.started(1).await;
        ask(&shop, &payment()).await.is_problem(409, "conflict");
    });
}

#[test]
fn wait_timeout_bounds_the_waiting() {
    handler!(pay, wait, wait_timeout = "3s");
    by_hand(async {
        let till = Till::new();
        let shop = shop!(till, pay, Policy::new().wait(false));
        till.hold();
        let _first = asking(&shop, &payment());
        till.started(1).await;
        let waiter = asking(&shop, &payment());
        settle().await;
        pass(Duration::from_millis(2900)).await;
        assert!(!waiter.is_finished());
        pass(Duration::from_millis(200)).await;
        waiter.await.unwrap().is_problem(409, "conflict");
    });
}

#[test]
fn lease_and_max_lifetime_say_how_long_an_execution_may_be_silent_and_live() {
    handler!(pay, lease = "5s", max_lifetime = "20s", wait = false);
    by_hand(async {
        let till = Till::new();
        let shop = shop!(till, pay);
        till.hold();
        crash(&shop, &payment(), &till).await;
        pass(Duration::from_secs(4)).await;
        ask(&shop, &payment()).await.is_problem(409, "conflict");
        pass(Duration::from_secs(2)).await;
        ask(&shop, &payment())
            .await
            .is_problem(409, "outcome_unknown");
        let _living = asking(&shop, &Ask::pay("other"));
        till.started(2).await;
        pass(Duration::from_secs(19)).await;
        ask(&shop, &Ask::pay("other"))
            .await
            .is_problem(409, "conflict");
        pass(Duration::from_secs(7)).await;
        ask(&shop, &Ask::pay("other"))
            .await
            .is_problem(409, "outcome_unknown");
    });
}

#[test]
fn on_crash_retry_executes_again() {
    handler!(pay, on_crash = "retry");
    by_hand(async {
        let till = Till::new();
        let shop = shop!(till, pay);
        till.hold();
        crash(&shop, &payment(), &till).await;
        till.open();
        pass(Duration::from_secs(31)).await;
        ask(&shop, &payment()).await.is_charge(2);
    });
}

#[test]
fn on_crash_path_asks_the_function() {
    async fn find_out(crash: Crash) -> Recovery {
        let body = format!("attempt {} was found", crash.attempt());
        Recovery::Completed(HttpResponse::new(body.into()))
    }
    handler!(pay, on_crash = find_out);
    by_hand(async {
        let till = Till::new();
        let shop = shop!(till, pay);
        till.hold();
        crash(&shop, &payment(), &till).await;
        till.open();
        pass(Duration::from_secs(31)).await;
        assert_eq!(ask(&shop, &payment()).await.text(), "attempt 1 was found");
        assert_eq!(till.starts(), 1);
    });
}

#[test]
fn required_header_strict_and_uuid_rule_the_key() {
    handler!(required, required);
    handler!(optional, required = false);
    handler!(header, header = "X-Token", required);
    handler!(strict, strict);
    handler!(uuid, uuid);
    by_hand(async {
        let till = Till::new();
        let none = Ask::post("/pay");
        let app = shop!(till, required);
        ask(&app, &none).await.is_problem(400, "missing_key");
        let app = shop!(till, optional, Policy::new().required(true));
        ask(&app, &none).await.is_charge(1);
        let app = shop!(till, header);
        ask(&app, &payment()).await.is_problem(400, "missing_key");
        ask(&app, &none.clone().header("x-token", "t"))
            .await
            .is_charge(2);
        ask(&app, &none.clone().header("x-token", "t"))
            .await
            .is_replay_of_charge(2);
        let app = shop!(till, strict);
        ask(&app, &payment()).await.is_problem(400, "invalid_key");
        ask(&app, &Ask::pay("\"k\"")).await.is_charge(3);
        let app = shop!(till, uuid);
        ask(&app, &payment()).await.is_problem(400, "invalid_key");
        ask(&app, &Ask::pay("8e03978e-40d5-43e8-bc93-6894a57f9324"))
            .await
            .is_charge(4);
    });
}

#[test]
fn scope_says_who_the_caller_is() {
    fn tenant(parts: &Parts) -> Option<Scope> {
        parts.headers.get("x-tenant").map(Scope::new)
    }
    handler!(pay, scope = tenant);
    by_hand(async {
        let till = Till::new();
        let shop = shop!(till, pay);
        for (n, tenant) in ["one", "two"].into_iter().enumerate() {
            let asked = payment().header("x-tenant", tenant);
            ask(&shop, &asked).await.is_charge(n + 1);
            ask(&shop, &asked).await.is_replay_of_charge(n + 1);
        }
    });
}

#[test]
fn fingerprint_says_what_must_be_equal() {
    handler!(headers, fingerprint(headers("X-Currency", "accept")));
    handler!(json, fingerprint(json));
    handler!(query, fingerprint(ignore_query));
    handler!(body, fingerprint(ignore_body, ignore_content_type));
    by_hand(async {
        let till = Till::new();
        let app = shop!(till, headers);
        ask(&app, &payment().header("x-currency", "EUR"))
            .await
            .is_charge(1);
        ask(&app, &payment().header("x-currency", "USD"))
            .await
            .is_problem(409, "mismatch");
        ask(&app, &payment()).await.is_problem(409, "mismatch");
        let same = payment().header("X-CURRENCY", "EUR").header("x-other", "1");
        ask(&app, &same).await.is_replay_of_charge(1);

        let app = shop!(till, json);
        let amount = |body: &'static str| Ask::pay("j").body(body);
        ask(&app, &amount(r#"{"a":9007199254740993,"b":"x"}"#))
            .await
            .is_charge(2);
        let spelled = r#" { "b" : "\u0078", "a" : 9007199254740993.0 } "#;
        ask(&app, &amount(spelled)).await.is_replay_of_charge(2);
        let rounded = r#"{"a":9007199254740992.0,"b":"x"}"#;
        ask(&app, &amount(rounded))
            .await
            .is_problem(409, "mismatch");

        let app = shop!(till, query);
        let path = |path: &str| Ask {
            path: path.into(),
            ..payment()
        };
        ask(&app, &path("/pay?try=1")).await.is_charge(3);
        ask(&app, &path("/pay?try=2")).await.is_replay_of_charge(3);

        let app = shop!(till, body);
        ask(&app, &payment().body("a")).await.is_charge(4);
        let other = payment().body("b").header("content-type", "text/plain");
        ask(&app, &other).await.is_replay_of_charge(4);
    });
}

#[test]
fn cache_says_which_answers_are_outcomes() {
    handler!(all, cache = "all");
    handler!(no_server_errors, cache = "no-server-errors");
    handler!(success, cache = "success");
    by_hand(async {
        for (status, kept) in [
            (201, [true; 3]),
            (404, [true, true, false]),
            (500, [true, false, false]),
        ] {
            let status = http::StatusCode::from_u16(status).unwrap();
            let till =
                Till::answering(move |_| axum::response::IntoResponse::into_response(status));
            let apps = [
                shop!(till, all),
                shop!(till, no_server_errors),
                shop!(till, success),
            ];
            for (app, kept) in apps.iter().zip(kept) {
                assert!(!ask(app, &payment()).await.replayed());
                assert_eq!(ask(app, &payment()).await.replayed(), kept, "{status}");
            }
        }
    });
}

#[test]
fn max_body_and_max_response_are_the_limits() {
    handler!(pay, max_body = "1KiB", max_response = "8B");
    by_hand(async {
        let till =
            Till::answering(|n| axum::response::IntoResponse::into_response("x".repeat(7 + n)));
        let shop = shop!(till, pay);
        let sized = |size: usize| Ask::pay(&format!("k{size}")).body("x".repeat(size));
        ask(&shop, &sized(1025))
            .await
            .is_problem(413, "request_too_large");
        assert_eq!(ask(&shop, &sized(1024)).await.text().len(), 8);
        assert!(ask(&shop, &sized(1024)).await.replayed());
        assert_eq!(ask(&shop, &sized(1)).await.text().len(), 9);
        ask(&shop, &sized(1))
            .await
            .is_problem(409, "response_not_stored");
    });
}

#[derive(Clone)]
struct App {
    engine: Idempotency,
    till: Till,
}

impl FromRef<App> for Idempotency {
    fn from_ref(app: &App) -> Self {
        app.engine.clone()
    }
}

impl FromRef<App> for Till {
    fn from_ref(app: &App) -> Self {
        app.till.clone()
    }
}

#[test]
fn engine_and_state_take_the_engine_from_the_routers_state() {
    handler!(pay, engine = State<Idempotency>);
    handler!(stated, engine = State<Idempotency>, state = App);
    by_hand(async {
        let (till, engine) = (Till::new(), Idempotency::builder());
        let engine = engine.policy(Policy::new().required(true)).build().unwrap();
        let app = Router::new()
            .route("/pay", post(pay))
            .route("/stated", post(stated));
        let app = app.with_state(App {
            engine,
            till: till.clone(),
        });
        ask(&app, &Ask::post("/pay"))
            .await
            .is_problem(400, "missing_key");
        ask(&app, &payment()).await.is_charge(1);
        ask(&app, &payment()).await.is_replay_of_charge(1);
        ask(&app, &Ask::post("/stated"))
            .await
            .is_problem(400, "missing_key");
        ask(&app, &Ask::post("/stated").key("k")).await.is_charge(2);
    });
}

#[test]
fn inner_is_the_plain_function() {
    #[idempotent(inner = plainly)]
    async fn twice(State(_): State<Till>, body: String) -> String {
        body.repeat(2)
    }
    by_hand(async {
        let till = Till::new();
        assert_eq!(plainly(State(till.clone()), "ab".into()).await, "abab");
        let shop = shop!(till, twice);
        assert_eq!(ask(&shop, &payment().body("x")).await.text(), "xx");
        assert!(ask(&shop, &payment().body("x")).await.replayed());
    });
}

#[test]
fn options_not_given_fall_back_to_the_engine() {
    handler!(pay);
    by_hand(async {
        let till = Till::new();
        let policy = Policy::new()
            .ttl(Duration::from_secs(10))
            .required(true)
            .wait(false)
            .max_body(20);
        let shop = shop!(till, pay, policy);
        ask(&shop, &Ask::post("/pay"))
            .await
            .is_problem(400, "missing_key");
        ask(&shop, &payment().body("x".repeat(21)))
            .await
            .is_problem(413, "request_too_large");
        ask(&shop, &payment()).await.is_charge(1);
        pass(Duration::from_secs(11)).await;
        till.hold();
        let _first = asking(&shop, &payment());
        till.started(2).await;
        ask(&shop, &payment()).await.is_problem(409, "conflict");
    });
}
