//! The place of a handler, and the names of its neighbours.

use axum::{Json, Router, routing::post};
use idempotent_runtime::idempotent;

use crate::support::{empty, exercise, json};

/// A module and a function with one name.
pub(crate) mod create {
    use idempotent_runtime::idempotent;

    #[idempotent]
    pub(crate) async fn create() -> &'static str {
        "inside"
    }

    pub(super) mod private {
        #[::idempotent_runtime::idempotent]
        pub(in crate::places) async fn create() -> &'static str {
            "far inside"
        }
    }
}

#[idempotent]
pub(crate) async fn create() -> &'static str {
    "outside"
}

#[tokio::test]
async fn handlers_in_modules_of_the_same_name() {
    let router = || {
        let router = Router::new()
            .route("/outside", post(create))
            .route("/inside", post(create::create));
        router.route("/far", post(create::private::create))
    };
    assert_eq!(exercise(router(), empty("/outside")).await.body, "outside");
    assert_eq!(exercise(router(), empty("/inside")).await.body, "inside");
    assert_eq!(exercise(router(), empty("/far")).await.body, "far inside");
}

/// Handlers with one name in two blocks, one of them inside another handler's body.
#[tokio::test]
async fn handlers_in_blocks_of_functions() {
    fn first() -> Router {
        #[idempotent]
        async fn handler() -> &'static str {
            #[idempotent]
            async fn handler(Json(_): Json<u32>) {}
            let _ = handler;
            "first"
        }
        Router::new().route("/", post(handler))
    }
    let second = {
        #[idempotent]
        async fn handler(Json(n): Json<u32>) -> String {
            n.to_string()
        }
        Router::new().route("/", post(handler))
    };
    assert_eq!(exercise(first(), empty("/")).await.body, "first");
    assert_eq!(exercise(second, json("/", "2")).await.body, "2");
}

/// A handler in a block, generic over a trait of that block.
#[tokio::test]
async fn a_handler_generic_over_a_local_trait() {
    trait Named {
        const NAME: &'static str;
    }
    struct Books;
    impl Named for Books {
        const NAME: &'static str = "books";
    }
    #[idempotent]
    async fn create<T: Named>() -> &'static str {
        T::NAME
    }
    let router = Router::new().route("/", post(create::<Books>));
    assert_eq!(exercise(router, empty("/")).await.body, "books");
}
