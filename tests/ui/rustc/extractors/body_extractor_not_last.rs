use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
use axum::extract::{FromRequest, Request};
use http::Method;

struct Whole;

impl<S: Sync> FromRequest<S> for Whole {
    type Rejection = ();

    async fn from_request(_: Request, _: &S) -> Result<Self, ()> {
        Ok(Self)
    }
}

#[idempotent(state = ())]
async fn handler(_: Whole, _: Method) {}

fn main() {
    let _: Router = Router::new().route("/", post(handler));
}
