use axum::{Router, routing::post};
use idempotent_runtime::idempotent;
use axum::extract::State;

struct Api<T>(T);

impl<T: Clone + Send + Sync + 'static> Api<T> {
    #[idempotent]
    async fn handler(_: State<T>) {}
}

fn main() {
    let _: Router<u32> = Router::new().route("/", post(Api::<u32>::handler));
}
