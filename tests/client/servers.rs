//! Servers that answer as Stripe does, or as the IETF draft says, without problem details.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http_body_util::Full;
use idempotent_runtime::{
    IdempotencyKey,
    client::{Expired, Keyed, RequestKey},
};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error};
use tokio::net::TcpListener;

/// Answers from a list, the last one again and again, and the keys that it saw.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn requests(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn keys(&self) -> HashSet<String> {
        self.0.lock().unwrap().iter().cloned().collect()
    }
}

type Answer = (u16, &'static [(&'static str, &'static str)], &'static str);

async fn server(answers: &'static [Answer]) -> (String, Seen) {
    let seen = Seen::default();
    let noted = seen.clone();
    let answer = async move |request: Request| -> Response {
        let mut seen = noted.0.lock().unwrap();
        let (status, headers, body) = answers[seen.len().min(answers.len() - 1)];
        let key = request.headers().get("idempotency-key");
        seen.push(key.map_or_else(String::new, |key| key.to_str().unwrap().to_owned()));
        let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        response
            .headers_mut()
            .extend(headers.collect::<HeaderMap>());
        response
    };
    let app = Router::new().route("/pay", post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/pay", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, seen)
}

fn client(keyed: Keyed) -> ClientWithMiddleware {
    let keyed = keyed.pauses(Duration::from_millis(1), Duration::from_millis(10));
    ClientBuilder::new(reqwest::Client::new())
        .with(keyed)
        .build()
}

const IN_USE: Answer = (
    409,
    &[],
    r#"{"error":{"type":"idempotency_error","code":"idempotency_key_in_use"}}"#,
);
const REUSED: Answer = (
    400,
    &[],
    r#"{"error":{"type":"idempotency_error","message":"Keys for idempotent requests"}}"#,
);
const PAID: Answer = (200, &[], "paid");

#[tokio::test]
async fn conflicts_are_waited_for_and_refusals_are_final_under_one_key() {
    for (answers, status, requests) in [
        (&[IN_USE, IN_USE, PAID][..], 200, 3),
        (
            &[(500, &[("stripe-should-retry", "true")][..], ""), PAID][..],
            200,
            2,
        ),
        (&[REUSED, PAID][..], 400, 1),
        // As the draft says it, with and without words.
        (&[(409, &[][..], ""), PAID][..], 200, 2),
        (
            &[
                (
                    409,
                    &[][..],
                    "<p>A request is outstanding for this Idempotency-Key</p>",
                ),
                PAID,
            ][..],
            200,
            2,
        ),
        (&[(422, &[][..], ""), PAID][..], 422, 1),
        (&[(400, &[][..], ""), PAID][..], 400, 1),
        // An outcome is one whatever its status.
        (
            &[(503, &[("idempotent-replay", "true")][..], ""), PAID][..],
            503,
            1,
        ),
    ] {
        let answers: &'static [Answer] = answers.to_vec().leak();
        let (url, seen) = server(answers).await;
        let answer = client(Keyed::new())
            .post(url)
            .body("1")
            .send()
            .await
            .unwrap();
        assert_eq!(
            (answer.status().as_u16(), seen.requests()),
            (status, requests),
            "{answers:?}"
        );
        assert_eq!(seen.keys().len(), 1);
    }
}

#[tokio::test]
async fn the_time_in_retry_after_is_waited_for_or_the_client_gives_up() {
    static ANSWERS: [Answer; 2] = [(503, &[("retry-after", "3600")], ""), PAID];
    let (url, seen) = server(&ANSWERS).await;
    let answer = client(Keyed::new())
        .post(url)
        .body("1")
        .send()
        .await
        .unwrap();
    assert_eq!((answer.status().as_u16(), seen.requests()), (503, 1));
}

#[tokio::test]
async fn a_key_that_the_caller_brings_survives_the_client() {
    let (url, seen) = server(&[PAID]).await;
    let key = RequestKey::random();
    for _ in 0..2 {
        let request = client(Keyed::new()).post(&url).with_extension(key.clone());
        request.body("1").send().await.unwrap();
    }
    client(Keyed::new())
        .post(&url)
        .header("idempotency-key", "own")
        .body("1")
        .send()
        .await
        .unwrap();
    assert_eq!(seen.requests(), 3);
    assert_eq!(seen.keys().len(), 2);
    assert!(seen.keys().contains("own"));
}

#[tokio::test]
async fn a_key_that_the_server_may_have_forgotten_is_not_sent() {
    let (url, seen) = server(&[PAID]).await;
    let key = IdempotencyKey::from_bytes("old").unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(25 * 60 * 60);
    let request = client(Keyed::new())
        .post(url)
        .with_extension(RequestKey::new(key, long_ago));
    let error = request.body("1").send().await.unwrap_err();
    let Error::Middleware(error) = error else {
        panic!("{error:?}")
    };
    assert!(error.is::<Expired>());
    assert_eq!(seen.requests(), 0);
}

#[tokio::test]
async fn requests_of_other_methods_get_no_key_and_quotes_are_written_where_they_are_wanted() {
    let (url, seen) = server(&[PAID]).await;
    client(Keyed::new().methods([]))
        .post(&url)
        .body("1")
        .send()
        .await
        .unwrap();
    client(Keyed::new().quoted())
        .post(&url)
        .body("1")
        .send()
        .await
        .unwrap();
    let keys = seen.0.lock().unwrap().clone();
    assert_eq!(keys[0], "");
    assert!(keys[1].starts_with('"') && keys[1].ends_with('"') && keys[1].len() == 34);
}

#[tokio::test]
async fn a_body_that_cannot_be_sent_twice_is_sent_once() {
    let (url, seen) = server(&[IN_USE, PAID]).await;
    let body = reqwest::Body::wrap(Full::new(Bytes::from("1")));
    let answer = client(Keyed::new()).post(url).body(body).send().await;
    assert_eq!(
        (answer.unwrap().status().as_u16(), seen.requests()),
        (409, 1)
    );
    assert_ne!(seen.0.lock().unwrap()[0], "");
}
