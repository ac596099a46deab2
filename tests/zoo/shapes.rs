//! The function itself: generics, names, its place, and what it calls.

use std::{fmt::Display, marker::PhantomData, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::post,
};
use idempotent_runtime::idempotent;
use serde::{Deserialize, de::DeserializeOwned};

use crate::support::{empty, exercise, json};

trait Ledger: Clone + Send + Sync + 'static {
    fn enter(&self, amount: u32) -> impl Future<Output = u32> + Send;
}

#[derive(Clone)]
struct Memory(Arc<u32>);

impl Ledger for Memory {
    async fn enter(&self, amount: u32) -> u32 {
        tokio::task::yield_now().await;
        *self.0 + amount
    }
}

#[tokio::test]
async fn generic_over_a_trait() {
    #[idempotent]
    async fn handler<L: Ledger>(State(ledger): State<L>, Json(amount): Json<u32>) -> String {
        ledger.enter(amount).await.to_string()
    }
    let router = Router::new()
        .route("/", post(handler::<Memory>))
        .with_state(Memory(Arc::new(4)));
    assert_eq!(exercise(router, json("/", "3")).await.body, "7");
}

#[tokio::test]
async fn generic_over_types_and_constants_with_a_where_clause() {
    #[idempotent]
    async fn handler<T, const N: usize>(Json(list): Json<Vec<T>>) -> impl IntoResponse
    where
        T: DeserializeOwned + Display,
    {
        list.iter()
            .take(N)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    }
    let router = Router::new().route("/", post(handler::<u32, 2>));
    assert_eq!(exercise(router, json("/", "[1,2,3]")).await.body, "1 2");
}

/// A type parameter that no argument names, only the body.
#[tokio::test]
async fn generic_in_the_body_only() {
    #[idempotent]
    async fn handler<T: Default + Display>() -> String {
        T::default().to_string()
    }
    let router = Router::new().route("/", post(handler::<u8>));
    assert_eq!(exercise(router, empty("/")).await.body, "0");
}

struct Api;

impl Api {
    #[idempotent]
    async fn create(Json(amount): Json<u32>) -> String {
        format!("api {amount}")
    }

    /// Names `Self`, so the plain function stands beside it.
    #[idempotent(inner = Self::double_inner)]
    async fn double(Json(amount): Json<u32>) -> String {
        Self::twice(amount).await.to_string()
    }

    async fn twice(amount: u32) -> u32 {
        tokio::task::yield_now().await;
        amount * 2
    }
}

#[tokio::test]
async fn associated_functions() {
    let router = || {
        Router::new()
            .route("/create", post(Api::create))
            .route("/double", post(Api::double))
    };
    assert_eq!(exercise(router(), json("/create", "3")).await.body, "api 3");
    assert_eq!(exercise(router(), json("/double", "3")).await.body, "6");
    assert_eq!(Api::double_inner(Json(4)).await, "8");
}

struct Store<T>(PhantomData<T>);

impl<T: Ledger> Store<T> {
    #[idempotent(inner = Self::enter_inner)]
    async fn enter(State(ledger): State<T>, Json(amount): Json<u32>) -> String {
        ledger.enter(amount).await.to_string()
    }

    #[idempotent(inner = Self::convert_inner, scope = Self::scope)]
    async fn convert<U: From<u32> + Display>(
        State(_): State<T>,
        Json(amount): Json<u32>,
    ) -> String {
        tokio::task::yield_now().await;
        U::from(amount).to_string()
    }

    fn scope(parts: &http::request::Parts) -> Option<idempotent_runtime::Scope> {
        let tenant = parts.headers.get("x-tenant")?;
        let scope = [tenant.as_bytes(), std::any::type_name::<T>().as_bytes()].concat();
        Some(idempotent_runtime::Scope::new(scope))
    }
}

#[tokio::test]
async fn associated_functions_of_a_generic_type() {
    let router = || {
        let router = Router::new().route("/enter", post(Store::<Memory>::enter));
        router
            .route("/convert", post(Store::<Memory>::convert::<u64>))
            .with_state(Memory(Arc::new(4)))
    };
    assert_eq!(exercise(router(), json("/enter", "3")).await.body, "7");
    assert_eq!(exercise(router(), json("/convert", "3")).await.body, "3");
}

#[tokio::test]
async fn borrowed_locals_across_await() {
    #[idempotent]
    async fn handler(headers: HeaderMap, Json(list): Json<Vec<String>>) -> String {
        let name = &list[0];
        let host = headers.get("host");
        tokio::task::yield_now().await;
        let tail = &list[1..];
        tokio::task::yield_now().await;
        format!("{name} {} {}", tail.len(), host.is_some())
    }
    let router = Router::new().route("/", post(handler));
    assert_eq!(
        exercise(router, json("/", r#"["a","b","c"]"#)).await.body,
        "a 2 false"
    );
}

#[tokio::test]
async fn raw_identifiers() {
    #[derive(Deserialize)]
    struct Body {
        r#type: u32,
    }
    #[idempotent]
    async fn r#move(Path(r#in): Path<u32>, Json(Body { r#type }): Json<Body>) -> String {
        format!("{in} {type}")
    }
    let router = Router::new().route("/{id}", post(r#move));
    assert_eq!(
        exercise(router, json("/5", r#"{"type":1}"#)).await.body,
        "5 1"
    );
}

macro_rules! handlers {
    ($($name:ident($pattern:pat, $of:ty) -> $out:ty $body:block)*) => {$(
        #[idempotent]
        async fn $name($pattern: $of) -> $out $body
    )*};
}

handlers! {
    made_once(Json(amount), Json<u32>) -> String { format!("once {amount}") }
    made_twice(Json(amount), Json<u32>) -> impl IntoResponse { (StatusCode::CREATED, format!("twice {amount}")) }
}

/// All tokens of this handler come out of the macro, `call` and `a0` included.
macro_rules! handler {
    ($name:ident, $ttl:literal, $text:expr) => {
        #[idempotent(ttl = $ttl)]
        async fn $name(Json(call): Json<u32>) -> String {
            let a0 = $text;
            format!("{a0} {call}")
        }
    };
}

handler!(made_whole, "1h", "whole");

#[tokio::test]
async fn handlers_made_by_macros() {
    let router = || {
        let router = Router::new()
            .route("/once", post(made_once))
            .route("/twice", post(made_twice));
        router.route("/whole", post(made_whole))
    };
    assert_eq!(exercise(router(), json("/once", "1")).await.body, "once 1");
    assert_eq!(
        exercise(router(), json("/twice", "2")).await.body,
        "twice 2"
    );
    assert_eq!(
        exercise(router(), json("/whole", "3")).await.body,
        "whole 3"
    );
}

#[tokio::test]
async fn recursion() {
    #[idempotent]
    async fn handler(Json(n): Json<u32>) -> String {
        if n == 0 {
            return String::new();
        }
        format!("{n}{}", Box::pin(handler(Json(n - 1))).await)
    }
    let router = Router::new().route("/", post(handler));
    assert_eq!(exercise(router, json("/", "3")).await.body, "321");
}

#[idempotent(inner = pay_inner)]
async fn pay(Json(amount): Json<u32>) -> Result<String, StatusCode> {
    if amount == 0 {
        Err(StatusCode::BAD_REQUEST)
    } else {
        Ok(format!("paid {amount}"))
    }
}

#[tokio::test]
async fn called_by_another_handler() {
    #[idempotent]
    async fn twice(Json(amount): Json<u32>) -> Result<String, StatusCode> {
        let first = pay_inner(Json(amount)).await?;
        Ok(format!("{first}, {}", pay_inner(Json(amount + 1)).await?))
    }
    let router = || {
        Router::new()
            .route("/pay", post(pay))
            .route("/twice", post(twice))
    };
    assert_eq!(exercise(router(), json("/pay", "1")).await.body, "paid 1");
    assert_eq!(
        exercise(router(), json("/twice", "1")).await.body,
        "paid 1, paid 2"
    );
    assert_eq!(
        exercise(router(), json("/twice", "0")).await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn the_plain_function_is_unit_tested() {
    assert_eq!(pay_inner(Json(5)).await, Ok("paid 5".to_owned()));
    assert_eq!(pay_inner(Json(0)).await, Err(StatusCode::BAD_REQUEST));
}

/// The user's names do not change what the expansion means, and the other way round.
#[tokio::test]
async fn names_do_not_collide() {
    #![allow(
        dead_code,
        non_camel_case_types,
        clippy::items_after_statements,
        reason = "they only have to be there"
    )]
    const POLICY: &str = "mine";
    struct Policy;
    struct FromRouter;
    struct HandlerFuture;
    struct Placeholder;
    struct Send;
    mod std {}
    mod core {}
    mod axum {}
    mod idempotent_runtime {}
    fn run_handler() -> &'static str {
        "also mine"
    }
    fn respond() {}
    fn into_response() {}
    #[::idempotent_runtime::idempotent(ttl = "1h", fingerprint(json), on_crash = "retry")]
    async fn handler<Option: ::core::default::Default + ::core::fmt::Display>(
        Json(call): Json<u32>,
    ) -> String {
        let a0 = Option::default();
        format!("{POLICY} {} {call} {a0}", run_handler())
    }
    let router = Router::new().route("/", post(handler::<u8>));
    assert_eq!(
        exercise(router, json("/", "1")).await.body,
        "mine also mine 1 0"
    );
}
