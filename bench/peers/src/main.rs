//! A server that `../peers.sh` measures: the benchmarks' handler behind one of the crates that are compared, on one thread
//! and a free port. The argument is the name of the crate.
//!
//! All serve the same two paths, whose responses are kept for a day and for five seconds, and store them in this process.
//! Where a default would make a crate slower, or drop records early, than its own documentation means it to, another
//! setting is chosen, with its reason beside it.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{Router, routing::post};
use axum_idempotent::{IdempotentLayer, IdempotentOptions};
use idempotent::{memory::MemoryStore, middleware::IdempotencyLayer};
use idempotent_bench::app;
use ruts::{CookieOptions, SessionLayer, store::moka::MokaStore};
use tower_cookies::CookieManagerLayer;

const LONG: Duration = Duration::from_hours(24);
const SHORT: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let router = match name.as_str() {
        "ours" => app::router(),
        "axum-idempotent" => axum_idempotent()?,
        "idempotent" => idempotent()?,
        _ => return Err(format!("`{name}` is not ours, axum-idempotent or idempotent").into()),
    };
    Ok(app::serve(router).await?)
}

/// Keyed by the header, which its documentation calls the fastest mode: it does not look at the rest of the request.
///
/// It keeps responses in the client's session. Only a request with a session's cookie is covered.
fn axum_idempotent() -> Result<Router, Box<dyn Error>> {
    both(|handler, ttl| {
        let seconds = i64::try_from(ttl.as_secs())?;
        let options = IdempotentOptions::new(seconds).use_idempotency_key_header(None, false);
        let cookie = CookieOptions::build().max_age(ttl.as_secs());
        // Its store forgets sessions over 10,000, and those that nobody returns to never.
        let store = MokaStore::builder()
            .max_capacity(u64::MAX)
            .time_to_live(ttl)
            .build();
        Ok(handler
            .layer(IdempotentLayer::<MokaStore>::new(options))
            .layer(SessionLayer::new(Arc::new(store)).with_cookie_options(cookie))
            .layer(CookieManagerLayer::new()))
    })
}

/// With its defaults, but for the ttl.
fn idempotent() -> Result<Router, Box<dyn Error>> {
    both(|handler, ttl| {
        // It would look for expired records once a minute only, and hold twelve times as many.
        let store = MemoryStore::builder().sweep_interval(SHORT).try_build()?;
        let layer = IdempotencyLayer::new(store).completed_ttl(ttl);
        Ok(handler.layer(layer))
    })
}

/// The handler on both paths, each behind what this returns for its ttl.
fn both(
    behind: impl Fn(Router, Duration) -> Result<Router, Box<dyn Error>>,
) -> Result<Router, Box<dyn Error>> {
    let long = Router::new().route(app::PAYMENTS, post(app::bare));
    let short = Router::new().route(app::SHORT_LIVED, post(app::bare));
    Ok(behind(long, LONG)?.merge(behind(short, SHORT)?))
}
