//! A connection that breaks at any byte leads to one execution, under one key.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router, extract::State, http::StatusCode, routing::post};
use idempotent_runtime::{Idempotency, client::Keyed, idempotent};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use tokio::net::TcpListener;

use super::proxy::{Cut, Proxy};

type Executions = Arc<AtomicUsize>;

#[idempotent(required)]
async fn pay(State(executions): State<Executions>) -> (StatusCode, String) {
    let n = executions.fetch_add(1, Ordering::SeqCst) + 1;
    (StatusCode::CREATED, format!("payment {n}"))
}

async fn server(executions: &Executions) -> SocketAddr {
    let engine = Idempotency::builder().build().unwrap();
    let app = Router::new()
        .route("/payments", post(pay))
        .layer(Extension(engine))
        .with_state(Arc::clone(executions));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

fn keyed() -> Keyed {
    Keyed::new().pauses(Duration::from_millis(1), Duration::from_millis(10))
}

fn client(retried: bool) -> ClientWithMiddleware {
    let client = ClientBuilder::new(reqwest::Client::new());
    if !retried {
        return client.with(keyed()).build();
    }
    // The middleware makes one attempt only, and the one around it the others.
    let retry = ExponentialBackoff::builder()
        .retry_bounds(Duration::from_millis(1), Duration::from_millis(10))
        .build_with_max_retries(5);
    let keyed = keyed().give_up_after(Duration::ZERO);
    client
        .with(RetryTransientMiddleware::new_with_policy(retry))
        .with(keyed)
        .build()
}

/// Sends one payment through a proxy that cuts it, and returns how many bytes the first exchange had.
async fn pays_once(
    client: &ClientWithMiddleware,
    server: SocketAddr,
    cut: Cut,
    paid: &Executions,
) -> (usize, usize) {
    let before = paid.load(Ordering::SeqCst);
    let proxy = Proxy::start(server, cut).await;
    let url = format!("http://{}/payments", proxy.address);
    let answer = client.post(url).body("{\"amount\":100}").send().await;
    let answer = answer.unwrap_or_else(|error| panic!("{cut:?}: {error:?}"));
    assert_eq!(answer.status(), 201, "{cut:?}");
    let text = answer.text().await.unwrap();
    assert_eq!(text, format!("payment {}", before + 1), "{cut:?}");
    assert_eq!(paid.load(Ordering::SeqCst), before + 1, "{cut:?}");
    (
        proxy.seen.0.load(Ordering::SeqCst),
        proxy.seen.1.load(Ordering::SeqCst),
    )
}

async fn pays_once_wherever_it_is_cut(retried: bool) {
    let executions = Executions::default();
    let server = server(&executions).await;
    let client = client(retried);
    let whole = Cut::Answer(usize::MAX);
    let (request, answer) = pays_once(&client, server, whole, &executions).await;
    assert!(request > 100 && answer > 100, "{request} {answer}");
    for at in 0..=request {
        pays_once(&client, server, Cut::Request(at), &executions).await;
    }
    if retried {
        // It takes an answer that breaks off in its body for final.
        return;
    }
    for at in 0..answer {
        pays_once(&client, server, Cut::Answer(at), &executions).await;
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_at_any_byte_leads_to_one_execution() {
    pays_once_wherever_it_is_cut(false).await;
}

#[tokio::test]
async fn so_does_one_whose_attempts_are_made_by_a_middleware_around_it() {
    pays_once_wherever_it_is_cut(true).await;
}
