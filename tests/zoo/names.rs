//! Names of handlers, arguments and lifetimes, and handlers in traits and macros.

use std::borrow::Cow;

use axum::{
    Json, Router,
    extract::{FromRequestParts, Path, State},
    http::{StatusCode, request::Parts},
    routing::{MethodRouter, post},
};
use idempotent_runtime::idempotent;

use crate::support::{empty, exercise, json};

/// A handler and its argument with a name that the generated code uses.
macro_rules! named {
    ($($name:ident)*) => {
        mod named {
            use axum::Json;
            use idempotent_runtime::idempotent;
            $(
                #[idempotent(state = ())]
                pub(super) async fn $name(Json($name): Json<u32>) -> String {
                    format!("{} {}", stringify!($name), $name)
                }
            )*
        }

        fn named() -> Vec<(&'static str, MethodRouter)> {
            vec![$((stringify!($name), post(named::$name))),*]
        }
    };
}

named! {
    __arguments __call __private __request a0 arguments call crash engine extracting handler idempotent
    idempotent_runtime inner into_response invoke last never part recovery respond run_handler ty within
}

#[tokio::test]
async fn names_of_the_generated_code() {
    for (name, handler) in named() {
        let response = exercise(Router::new().route("/", handler), json("/", "3")).await;
        assert_eq!(response.body, format!("{name} 3"));
    }
}

#[idempotent(inner = r#fn)]
async fn r#loop(Json(r#type): Json<u32>) -> String {
    match r#type {
        0 => String::new(),
        n => format!("{n}{}", Box::pin(r#fn(Json(n - 1))).await),
    }
}

#[tokio::test]
async fn a_raw_name_with_a_raw_inner() {
    let router = Router::new().route("/", post(r#loop));
    assert_eq!(exercise(router, json("/", "3")).await.body, "321");
    assert_eq!(r#fn(Json(2)).await, "21");
}

/// An extractor with a lifetime, which is `'static` in the arguments of a handler.
struct Agent<'a>(Cow<'a, str>);

impl<S: Sync> FromRequestParts<S> for Agent<'static> {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        Ok(Self(parts.method.to_string().into()))
    }
}

#[tokio::test]
async fn lifetimes() {
    #[allow(clippy::elidable_lifetime_names, reason = "people do write them")]
    #[idempotent]
    async fn own<'a>(agent: Agent<'a>, State(name): State<&'static str>) -> String {
        format!("own {} {name}", agent.0)
    }
    #[idempotent]
    async fn anonymous(agent: Agent<'_>) -> String {
        tokio::task::yield_now().await;
        format!("anonymous {}", agent.0)
    }
    #[idempotent(state = &'static str)]
    async fn stated<'a, 'b, T>(agent: Agent<'a>, Json(n): Json<Cow<'b, str>>) -> Cow<'a, str>
    where
        'b: 'a,
        T: From<u8> + ToString + 'b,
    {
        let _ = T::from(1).to_string();
        tokio::task::yield_now().await;
        agent.0 + n
    }
    #[allow(clippy::elidable_lifetime_names, reason = "people do write them")]
    #[idempotent]
    async fn in_the_answer<'a>(agent: Agent<'a>) -> Result<Cow<'a, str>, StatusCode> {
        Ok(agent.0)
    }
    let router = || {
        let router = Router::new()
            .route("/own", post(own))
            .route("/anonymous", post(anonymous));
        let router = router
            .route("/stated", post(stated::<u32>))
            .route("/answer", post(in_the_answer));
        router.with_state("zoo")
    };
    for (path, body) in [
        ("/own", "own POST zoo"),
        ("/anonymous", "anonymous POST"),
        ("/stated", "POSTx"),
        ("/answer", "POST"),
    ] {
        assert_eq!(exercise(router(), json(path, "\"x\"")).await.body, body);
    }
}

pub(crate) fn helper() -> &'static str {
    "helper"
}

mod macros {
    /// All tokens come out of the macro, with paths that begin with `$crate`.
    macro_rules! whole {
        ($name:ident) => {
            #[$crate::names::macros::idempotent(
                                                    crate = $crate::names::macros::runtime,
                                                    scope = $crate::names::macros::nobody
                                                )]
            async fn $name(
                $crate::names::macros::Json(n): $crate::names::macros::Json<u32>,
            ) -> String {
                format!("{} {n}", $crate::names::helper())
            }
        };
    }
    pub(super) use whole;

    pub(crate) use axum::Json;
    pub(crate) use idempotent_runtime::{self as runtime, idempotent};

    pub(crate) fn nobody(parts: &http::request::Parts) -> Option<runtime::Scope> {
        parts.headers.get("x-nobody").map(runtime::Scope::new)
    }
}

macros::whole!(by_crate);

#[tokio::test]
async fn made_by_a_macro_with_crate_paths() {
    let router = Router::new().route("/", post(by_crate));
    assert_eq!(exercise(router, json("/", "3")).await.body, "helper 3");
}

trait Resource {
    const NAME: &'static str;

    #[idempotent]
    async fn list() -> &'static str {
        "listed"
    }

    #[idempotent(inner = Self::create_inner)]
    fn create(Path(id): Path<u32>) -> impl Future<Output = String> + Send
    where
        Self: 'static,
    {
        std::future::ready(format!("{} {id}", Self::NAME))
    }
}

struct Books;

impl Resource for Books {
    const NAME: &'static str = "books";
}

#[tokio::test]
async fn defaults_of_a_trait() {
    let router = || {
        Router::new()
            .route("/list", post(Books::list))
            .route("/create/{id}", post(Books::create))
    };
    assert_eq!(exercise(router(), empty("/list")).await.body, "listed");
    assert_eq!(exercise(router(), empty("/create/3")).await.body, "books 3");
}

/// `#[cfg]` on statements, on the end of a body and on whole functions.
#[tokio::test]
async fn conditional_code_in_the_body() {
    #[idempotent]
    async fn handler(#[cfg_attr(all(), cfg(any()))] _: Nothing, Json(n): Json<u32>) -> String {
        #[cfg(test)]
        let n = n + 1;
        #[cfg(not(test))]
        let n = Nothing::of(n);
        #[cfg(test)]
        {
            n.to_string()
        }
        #[cfg(not(test))]
        {
            n
        }
    }
    #[cfg(test)]
    #[idempotent]
    async fn twice() -> &'static str {
        "test"
    }
    #[idempotent]
    #[cfg(not(test))]
    async fn twice() -> Nothing {
        Nothing
    }
    let router = || {
        Router::new()
            .route("/", post(handler))
            .route("/twice", post(twice))
    };
    assert_eq!(exercise(router(), json("/", "3")).await.body, "4");
    assert_eq!(exercise(router(), empty("/twice")).await.body, "test");
}
