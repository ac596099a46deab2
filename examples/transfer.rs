//! Money between accounts: rows and record are committed in one transaction, so the effect happens exactly once.
//!
//! ```text
//! cargo run --example transfer                                     in the SQLite file transfer.db
//! DATABASE_URL=postgres://user@host/db cargo run --example transfer    or mysql://…
//!
//! curl -i localhost:8000/api/transfers -H 'Idempotency-Key: 1' -H 'Content-Type: application/json' \
//!     -d '{"from":"a","to":"b","amount":5}'
//! ```
//!
//! Kill the process whenever you like and send the same request again: the money moves once, and the answer stays the
//! same. There is nothing to configure for a crash: what was not committed had no effect, so the retry executes.
//!
//! | request | answer |
//! |---|---|
//! | `POST /api/transfers` | 201; 409 `insufficient_funds`, which is an outcome too, and nothing has moved |
//! | `GET /api/accounts` | ten accounts, `a` to `j`, of 1,000 each at first; the total never changes |
//! | `GET /api/transfers/count` | how many transfers were committed |
//!
//! The request header `x-delay-ms: N` sleeps after the rows were written, before the answer; `x-panic: 1` panics there.
//! `PORT`, `LEASE` and `TTL` come from the environment, as in the payments demo.

use std::{collections::BTreeMap, error::Error, process::ExitCode, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use idempotent_runtime::{
    Idempotency, Transaction, idempotent,
    store::{self, purger::Purger},
};
use serde::{Deserialize, Serialize};
use sqlx::{MySql, Pool, Postgres, Sqlite};
use tokio::net::TcpListener;

use self::{
    bank::{Bank, TransferError},
    knobs::{Delay, Panic},
    settings::Settings,
};

#[path = "transfer/bank.rs"]
mod bank;
#[path = "payments/knobs.rs"]
mod knobs;
#[path = "payments/settings.rs"]
#[allow(dead_code, reason = "the payments demo has more of them")]
mod settings;

/// Where the accounts are unless `DATABASE_URL` says otherwise.
const FILE: &str = "sqlite://transfer.db";

/// How long a shutdown waits for executions.
const DRAIN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Deserialize, Serialize)]
struct NewTransfer {
    from: String,
    to: String,
    amount: i64,
}

#[derive(Debug, Serialize)]
struct Transferred {
    id: i64,
    #[serde(flatten)]
    transfer: NewTransfer,
}

/// Moves money. The transaction begins before this function runs and ends after it: there is nothing to commit. An error
/// rolls it back.
#[idempotent(transaction)]
async fn transfer<Db: Bank>(
    mut tx: Transaction<Db>,
    delay: Delay,
    panic: Panic,
    Json(transfer): Json<NewTransfer>,
) -> Result<(StatusCode, Json<Transferred>), Failure> {
    let NewTransfer { from, to, amount } = &transfer;
    let id = Db::transfer(&mut tx, from, to, *amount).await?;
    delay.sleep().await;
    panic.panic_if_asked();
    Ok((StatusCode::CREATED, Json(Transferred { id, transfer })))
}

async fn accounts<Db: Bank>(
    State(pool): State<Pool<Db>>,
) -> Result<Json<BTreeMap<String, i64>>, Failure> {
    let accounts = Db::accounts(&pool).await?;
    Ok(Json(accounts.into_iter().collect()))
}

#[derive(Debug, Serialize)]
struct Count {
    rows: i64,
}

async fn count<Db: Bank>(State(pool): State<Pool<Db>>) -> Result<Json<Count>, Failure> {
    let rows = Db::count(&pool).await?;
    Ok(Json(Count { rows }))
}

/// An error as a response.
#[derive(Debug)]
struct Failure(TransferError);

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        Self(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self(error.into())
    }
}

#[derive(Debug, Serialize)]
struct ErrorBody {
    error: &'static str,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, error) = match &self.0 {
            TransferError::InsufficientFunds => (StatusCode::CONFLICT, "insufficient_funds"),
            TransferError::UnknownAccount => (StatusCode::NOT_FOUND, "unknown_account"),
            TransferError::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_transfer"),
            // A deadlock, a lost connection: rolled back like any error, so a retry may execute.
            TransferError::Database(error) => {
                tracing::error!(%error, "the database refused");
                return (
                    StatusCode::SERVICE_UNAVAILABLE,
                    idempotent_runtime::Retention::Release,
                    Json(ErrorBody { error: "database" }),
                )
                    .into_response();
            }
        };
        (status, Json(ErrorBody { error })).into_response()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    match start().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("transfer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves with the accounts in the database of `DATABASE_URL`.
async fn start() -> Result<(), Box<dyn Error>> {
    let settings = Settings::from_env()?;
    let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| FILE.into());
    match url.split(':').next() {
        Some("postgres" | "postgresql") => serve::<Postgres>(&settings, &url).await,
        Some("mysql" | "mariadb") => serve::<MySql>(&settings, &url).await,
        Some("sqlite") => serve::<Sqlite>(&settings, &url).await,
        _ => Err("DATABASE_URL: expected postgres://…, mysql://… or sqlite://file.db".into()),
    }
}

async fn serve<Db: Bank>(settings: &Settings, url: &str) -> Result<(), Box<dyn Error>> {
    // The records are in the same database as the accounts.
    let store = store::migrate(url).await?;
    let pool = bank::open::<Db>(url).await?;
    let purger = Purger::builder().start(store.clone());
    let idempotency = Idempotency::builder()
        .store(store)
        .policy(settings.policy.clone())
        .install()?;
    let app = Router::new()
        .route("/api/transfers", post(transfer::<Db>))
        .route("/api/transfers/count", get(count::<Db>))
        .route("/api/accounts", get(accounts::<Db>))
        .route("/health", get(async || "ok\n"))
        .with_state(pool);
    let listener = TcpListener::bind(("127.0.0.1", settings.port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(signal())
        .await?;
    // The server does not wait for executions whose clients have gone.
    idempotency.shutdown(DRAIN).await;
    purger.stop().await;
    Ok(())
}

/// Waits for Ctrl-C or, on Unix, SIGTERM.
async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
            }
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
