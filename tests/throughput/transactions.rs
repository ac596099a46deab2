//! A handler whose transaction commits the record, compared with the same handler and a transaction of its own: over HTTP.

use axum::{Router, extract::State, http::StatusCode, routing::post};
use idempotent_runtime::{
    Idempotency, Transaction, idempotent,
    store::{Claim, sql::postgres::PostgresStore},
};
use sqlx::{PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    driver::{CLIENTS, Client, ROUNDS, Sides, StoreClient, drive, hex},
    servers::postgres::Postgres,
};

/// Requests in a round.
const REQUESTS: u64 = 10_000;
/// Connections of each side that have a transaction.
const TRANSACTIONS: usize = 32;
/// Those of the store beside them.
const RECORDS: usize = 16;
/// The least ratio of requests per second.
const LEAST_RATE: f64 = 0.55;

/// Whether it is fast enough; nothing if that cannot be measured here.
pub(crate) async fn measure() -> Option<bool> {
    let server = Postgres::start()?;
    let pool = PgPoolOptions::new().max_connections(u32::try_from(TRANSACTIONS).ok()?);
    let pool = pool.connect(&server.url()).await.expect("a pool");
    let made = "create table transfers (id bigserial primary key, note text not null)";
    sqlx::query(made).execute(&pool).await.expect("a table");
    let builder = PostgresStore::builder().migrate(true).connections(RECORDS);
    let url = server.url();
    let store = builder.transactions(TRANSACTIONS).connect(&url);
    let store = store.await.expect("a store");
    let engine = Idempotency::builder().store(store.clone()).build();
    let app = Router::new()
        .route("/kept", post(kept))
        .layer(engine.expect("an engine"))
        .route("/plain", post(plain))
        .with_state(pool.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move { axum::serve(listener, app).await });

    println!("{CLIENTS} connections over HTTP, {TRANSACTIONS} to the database on each side");
    let (mut sides, mut alone) = (Sides::default(), Sides::default());
    for _ in 0..ROUNDS {
        empty(&pool).await;
        let bare = drive(clients(port, "/plain").await, REQUESTS).await;
        empty(&pool).await;
        let ours = drive(clients(port, "/kept").await, REQUESTS).await;
        sides.push(ours, bare);
        empty(&pool).await;
        let store = drive(vec![StoreClient::new(store.clone()); CLIENTS], REQUESTS).await;
        alone.push(store, bare);
    }
    println!(
        "the store's own part, acquire and complete without HTTP and a transaction, to the bare handler:"
    );
    alone.ratio_of_rates();
    println!("with the attribute, to the same handler without:");
    Some(sides.ratio_of_rates() >= LEAST_RATE)
}

async fn empty(pool: &PgPool) {
    for statement in ["truncate transfers, idempotency_records", "checkpoint"] {
        sqlx::query(statement).execute(pool).await.expect(statement);
    }
}

#[idempotent(transaction)]
async fn kept(mut tx: Transaction<sqlx::Postgres>, note: String) -> (StatusCode, String) {
    let id = transfer(&mut tx, &note).await;
    (StatusCode::CREATED, id.to_string())
}

async fn plain(State(pool): State<PgPool>, note: String) -> (StatusCode, String) {
    let mut tx = pool.begin().await.expect("a transaction");
    let id = transfer(&mut tx, &note).await;
    tx.commit().await.expect("committed");
    (StatusCode::CREATED, id.to_string())
}

async fn transfer(connection: &mut PgConnection, note: &str) -> i64 {
    let insert = sqlx::query_scalar("insert into transfers (note) values ($1) returning id");
    let inserted = insert.bind(note).fetch_one(connection).await;
    inserted.expect("a row")
}

/// A client of the service, with one connection.
struct HttpClient {
    stream: TcpStream,
    route: &'static str,
    answer: Vec<u8>,
}

async fn clients(port: u16, route: &'static str) -> Vec<HttpClient> {
    let mut all = Vec::new();
    for _ in 0..CLIENTS {
        let stream = TcpStream::connect(("127.0.0.1", port)).await;
        let stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        all.push(HttpClient {
            stream,
            route,
            answer: vec![0; 4096],
        });
    }
    all
}

impl Client for HttpClient {
    async fn pair(&mut self, claim: &Claim) {
        let (route, key) = (self.route, hex(claim.key.as_bytes()));
        let request = format!(
            "POST {route} HTTP/1.1\r\nhost: localhost\r\nidempotency-key: {key}\r\ncontent-type: text/plain\r\n\
             content-length: 32\r\n\r\n{:32}",
            "a transfer"
        );
        self.stream
            .write_all(request.as_bytes())
            .await
            .expect("sent");
        let mut length = 0;
        loop {
            let read = self.stream.read(&mut self.answer[length..]).await;
            length += read.expect("read");
            let answer = std::str::from_utf8(&self.answer[..length]).expect("text");
            if is_whole(answer) {
                assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
                return;
            }
            assert!(length < self.answer.len(), "{answer}");
        }
    }
}

/// Whether the answer has as many bytes as its head says.
fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| length.parse() == Ok(body.len()))
}
