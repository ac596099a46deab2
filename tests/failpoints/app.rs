//! A service with one handler, whose process ends or stops by itself at a point in the life of its request.
//!
//! | variable | |
//! |---|---|
//! | `PORT` | where it listens |
//! | `DATABASE_URL` | its database, which has the table `effects` |
//! | `GUARANTEE` | which handler it has: `at most once`, `at least once`, `steps` or `transaction` |
//! | `CASE` | the name of the route and of the effect |
//! | `POINT`, `ACTION` | where the process does what: `abort`, or `stop` until it is continued |

use std::{env, process::ExitCode};

use axum::{
    Extension, Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{Next, from_fn},
    response::Response,
    routing::{MethodRouter, post},
};
use idempotent_runtime::{
    Execution, Idempotency, Policy, Step, StepError, Transaction, TransactionDatabase, idempotent,
    store,
};
use sqlx::{Connection, MySql, Pool, Postgres, Sqlite, pool::PoolOptions};
use tokio::net::TcpListener;

use self::{
    fate::{Fatal, Fate},
    points::Point,
    wire::behind_a_proxy,
};

#[path = "app/fate.rs"]
mod fate;
mod points;
#[path = "app/wire.rs"]
mod wire;

/// What the handlers share.
struct Shared<Db: Database> {
    pool: Pool<Db>,
    case: String,
}

impl<Db: Database> Clone for Shared<Db> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            case: self.case.clone(),
        }
    }
}

/// A database that the effects are written to.
trait Database: TransactionDatabase {
    fn write(
        connection: &mut Self::Connection,
        case: &str,
        note: &str,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Has the process end when this connection commits, where that is not a message of its own.
    fn at_commit(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

macro_rules! database {
    ($db:ty, $insert:literal, $count:literal, |$connection:ident| $at_commit:expr) => {
        impl Database for $db {
            async fn write(
                connection: &mut Self::Connection,
                case: &str,
                note: &str,
            ) -> Result<(), sqlx::Error> {
                // Two executions at once wait for each other here.
                let counted = sqlx::query($count).bind(case).execute(&mut *connection);
                counted.await?;
                let written = sqlx::query($insert).bind(case).bind(note);
                written.execute(connection).await.map(drop)
            }

            async fn at_commit($connection: &mut Self::Connection) -> Result<(), sqlx::Error> {
                $at_commit
            }
        }
    };
}

database!(
    Postgres,
    "insert into effects (name, note) values ($1, $2)",
    "update counters set n = n + 1 where name = $1",
    |_connection| Ok(())
);
database!(
    MySql,
    "insert into effects (name, note) values (?, ?)",
    "update counters set n = n + 1 where name = ?",
    |_connection| Ok(())
);
database!(
    Sqlite,
    "insert into effects (name, note) values (?, ?)",
    "update counters set n = n + 1 where name = ?",
    |connection| {
        let mut handle = connection.lock_handle().await?;
        handle.set_commit_hook(|| {
            Fate::meet(Point::CommitLost);
            true
        });
        Ok(())
    }
);

/// The answer. Only the outcome has these words, so that a message that has them is its completion.
fn receipt(execution: &Execution) -> (StatusCode, Fatal) {
    let attempt = execution.attempt();
    let text = format!("{} {attempt}", wire::OUTCOME);
    (StatusCode::CREATED, Fatal::new(text))
}

type Refused = (StatusCode, String);

fn refused(error: &sqlx::Error) -> Refused {
    (StatusCode::TOO_MANY_REQUESTS, error.to_string())
}

async fn effect<Db: Database>(shared: &Shared<Db>) -> Result<(), Refused> {
    Fate::meet(Point::BeforeItsEffect);
    let mut connection = shared
        .pool
        .acquire()
        .await
        .map_err(|error| refused(&error))?;
    let written = Db::write(&mut connection, &shared.case, "").await;
    written.map_err(|error| refused(&error))?;
    Fate::meet(Point::AfterItsEffect);
    Ok(())
}

#[idempotent(required)]
async fn at_most_once<Db: Database>(
    State(shared): State<Shared<Db>>,
    _: Fate,
    execution: Execution,
) -> Result<(StatusCode, Fatal), Refused> {
    effect(&shared).await?;
    Ok(receipt(&execution))
}

#[idempotent(required, on_crash = "retry")]
async fn at_least_once<Db: Database>(
    State(shared): State<Shared<Db>>,
    _: Fate,
    execution: Execution,
) -> Result<(StatusCode, Fatal), Refused> {
    effect(&shared).await?;
    Ok(receipt(&execution))
}

/// Its effect is in a step, as a call of a service that honours keys.
#[idempotent(required, on_crash = "retry")]
async fn steps<Db: Database>(
    State(shared): State<Shared<Db>>,
    execution: Execution,
) -> Result<(StatusCode, Fatal), StepError<StatusCode>> {
    Fate::meet(Point::BeforeTheStep);
    let call = async |step: Step| {
        let failed = |_: sqlx::Error| StatusCode::BAD_GATEWAY;
        let mut connection = shared.pool.acquire().await.map_err(failed)?;
        let written = Db::write(&mut connection, &shared.case, &step.downstream_key()).await;
        written.map_err(failed)?;
        Fate::meet(Point::InTheStep);
        Ok::<_, StatusCode>(())
    };
    execution.step("call", |step: Step| call(step)).await?;
    Fate::meet(Point::AfterTheStep);
    Ok(receipt(&execution))
}

#[idempotent(transaction)]
async fn transaction<Db: Database>(
    State(shared): State<Shared<Db>>,
    _: Fate,
    execution: Execution,
    mut tx: Transaction<Db>,
) -> Result<(StatusCode, Fatal), Refused> {
    Db::at_commit(&mut tx)
        .await
        .map_err(|error| refused(&error))?;
    Fate::meet(Point::BeforeItsEffect);
    let written = Db::write(&mut tx, &shared.case, "").await;
    written.map_err(|error| refused(&error))?;
    Fate::meet(Point::AfterItsEffect);
    Ok(receipt(&execution))
}

async fn around(request: Request, next: Next) -> Response {
    Fate::meet(Point::BeforeTheClaim);
    wire::arm();
    let response = next.run(request).await;
    Fate::meet(Point::BeforeTheAnswer);
    response
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

#[tokio::main]
async fn main() -> ExitCode {
    let url = var("DATABASE_URL");
    let served = match url.split(':').next() {
        Some("postgres") => serve::<Postgres>(&url).await,
        Some("mysql") => serve::<MySql>(&url).await,
        _ => serve::<Sqlite>(&url).await,
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve<Db: Database>(url: &str) -> Result<(), Box<dyn std::error::Error>> {
    let store = store::connect(&behind_a_proxy(url)?).await?;
    let options: <Db::Connection as Connection>::Options = url.parse()?;
    let pool = PoolOptions::new().connect_lazy_with(options);
    let policy = Policy::new().lease(fate::LEASE);
    let engine = Idempotency::builder().store(store).policy(policy).build()?;
    let handler: MethodRouter<Shared<Db>> = match &*var("GUARANTEE") {
        "at most once" => post(at_most_once::<Db>),
        "at least once" => post(at_least_once::<Db>),
        "steps" => post(steps::<Db>),
        "transaction" => post(transaction::<Db>),
        guarantee => return Err(format!("GUARANTEE={guarantee:?}").into()),
    };
    let case = var("CASE");
    let app = Router::new()
        .route(&format!("/{case}"), handler)
        .layer(Extension(engine))
        .layer(from_fn(around))
        .with_state(Shared { pool, case });
    let listener = TcpListener::bind(("127.0.0.1", var("PORT").parse()?)).await?;
    axum::serve(listener, app).await?;
    Ok(())
}
