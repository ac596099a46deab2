//! An app whose handler writes one row in its transaction, and then does what the request says.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use idempotent_runtime::{
    Execution, Idempotency, Policy, Retention, StepError, Transaction, idempotent, store::AnyStore,
};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::database::{TestDatabase, World};

/// The handler and what it shares with its test.
pub(crate) struct App<Db: TestDatabase> {
    pub(crate) world: World<Db>,
    pub(crate) engine: Idempotency,
    router: Router,
    pub(crate) control: Control,
}

/// What a test and its handlers share.
#[derive(Clone, Default)]
pub(crate) struct Control(Arc<Shared>);

struct Shared {
    /// How often the handler ran.
    runs: Mutex<u32>,
    /// A handler with `x-act: wait` waits for a permit.
    gate: Semaphore,
    /// What a handler has kept.
    kept: Mutex<Vec<Box<dyn std::any::Any + Send>>>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            runs: Mutex::new(0),
            gate: Semaphore::new(0),
            kept: Mutex::default(),
        }
    }
}

impl Control {
    pub(crate) fn runs(&self) -> u32 {
        *self.0.runs.lock().unwrap()
    }

    /// Counts one more run, and says how many there are.
    fn run(&self) -> u32 {
        let mut runs = self.0.runs.lock().unwrap();
        *runs += 1;
        *runs
    }

    /// What handlers have kept, which is theirs no more.
    pub(crate) fn take_kept(&self) -> Vec<Box<dyn std::any::Any + Send>> {
        std::mem::take(&mut *self.0.kept.lock().unwrap())
    }

    fn keep(&self, kept: impl std::any::Any + Send) {
        self.0.kept.lock().unwrap().push(Box::new(kept));
    }

    pub(crate) fn open(&self, handlers: usize) {
        self.0.gate.add_permits(handlers);
    }

    /// Waits until the handler has run that often.
    pub(crate) async fn until_runs(&self, runs: u32) {
        while self.runs() < runs {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// An answer that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
    pub(crate) replayed: bool,
}

impl Answer {
    #[track_caller]
    pub(crate) fn assert(&self, status: u16, text: &str, replayed: bool) {
        let expected = Self {
            status,
            text: text.into(),
            replayed,
        };
        assert_eq!(*self, expected);
    }

    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        let json: serde_json::Value = serde_json::from_str(&self.text).unwrap_or_default();
        assert_eq!(
            (self.status, json["code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
    }
}

impl<Db: TestDatabase> App<Db> {
    pub(crate) fn new(world: World<Db>) -> Self {
        Self::with(world, Policy::new())
    }

    pub(crate) fn with(world: World<Db>, policy: Policy) -> Self {
        let store = world.store.clone();
        Self::over(world, store, policy, Control::default())
    }

    /// Over another store on the same records, as in another process.
    pub(crate) fn over(
        world: World<Db>,
        store: AnyStore,
        policy: Policy,
        control: Control,
    ) -> Self {
        Self::routed(world, store, policy, control, post(write::<Db>))
    }

    /// Before its handler had a transaction.
    pub(crate) fn plain(world: World<Db>, policy: Policy) -> Self {
        let store = world.store.clone();
        Self::routed(world, store, policy, Control::default(), post(plain::<Db>))
    }

    fn routed(
        world: World<Db>,
        store: AnyStore,
        policy: Policy,
        control: Control,
        route: axum::routing::MethodRouter<(World<Db>, Control)>,
    ) -> Self {
        let engine = Idempotency::builder().store(store).policy(policy).build();
        let engine = engine.expect("an engine");
        let router = Router::new()
            .route("/write", route)
            .layer(Extension(engine.clone()))
            .with_state((world.clone(), control.clone()));
        Self {
            world,
            engine,
            router,
            control,
        }
    }

    /// Writes the row `name` under a key of the same name, and does what `act` says.
    pub(crate) async fn write(&self, name: &str, act: &str) -> Answer {
        let request = Request::post("/write")
            .header("idempotency-key", name)
            .header("x-act", act)
            .body(Body::from(name.to_owned()))
            .expect("a request");
        self.answer(request).await
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("an answer");
        let (head, body) = response.into_parts();
        let text = match body.collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            Err(error) => format!("broken: {error}"),
        };
        Answer {
            status: head.status.as_u16(),
            text,
            replayed: head.headers.contains_key("idempotent-replay"),
        }
    }

    pub(crate) async fn without_a_key(&self) -> Answer {
        let request = Request::post("/write")
            .header("x-act", "ok")
            .body(Body::from("none"));
        self.answer(request.expect("a request")).await
    }

    pub(crate) fn in_task(
        self: &Arc<Self>,
        name: &str,
        act: &str,
    ) -> tokio::task::JoinHandle<Answer> {
        let (app, name, act) = (Arc::clone(self), name.to_owned(), act.to_owned());
        tokio::spawn(async move { app.write(&name, &act).await })
    }
}

type Shares<Db> = State<(World<Db>, Control)>;

#[idempotent]
async fn plain<Db: TestDatabase>(State((_, control)): Shares<Db>, _: Execution) -> &'static str {
    control.run();
    std::future::pending().await
}

#[idempotent(transaction)]
async fn write<Db: TestDatabase>(
    State((world, control)): Shares<Db>,
    execution: Execution,
    mut tx: Transaction<Db>,
    headers: HeaderMap,
    name: String,
) -> Response {
    let run = control.run();
    let act = headers["x-act"].to_str().expect("text").to_owned();
    if act == "keep-unused" {
        control.keep(tx);
        return "kept".into_response();
    }
    let insert = |name: &str| format!("insert into {} values ('{name}', 'x')", world.effects);
    Db::run(&mut tx, insert(&name))
        .await
        .expect("the row is written");
    let done = format!("written {run}");
    match act.as_str() {
        "ok" => {}
        "status" => return (StatusCode::PAYMENT_REQUIRED, done).into_response(),
        "server-error" => return (StatusCode::BAD_GATEWAY, done).into_response(),
        "redirect" => return (StatusCode::SEE_OTHER, done).into_response(),
        "too-many" => return (StatusCode::TOO_MANY_REQUESTS, done).into_response(),
        "release" => return (Retention::Release, done).into_response(),
        "panic" => panic!("as the test asked"),
        "rollback-only" => tx.rollback_only(),
        "wait" => control.0.gate.acquire().await.expect("open").forget(),
        "savepoint" => {
            let mut inner = tx.begin().await.expect("a savepoint");
            Db::run(&mut inner, insert("undone"))
                .await
                .expect("written");
            inner.rollback().await.expect("undone");
            let mut inner = tx.begin().await.expect("a savepoint");
            Db::run(&mut inner, insert(&format!("{name}-kept")))
                .await
                .expect("written");
            inner.commit().await.expect("kept");
        }
        "forget-savepoint" => std::mem::forget(tx.begin().await.expect("a savepoint")),
        "dropped-savepoint" => drop(tx.begin().await.expect("a savepoint")),
        "step" => return (StatusCode::OK, charge(&execution, run).await).into_response(),
        "step-unknown" => {
            let charged = charge(&execution, run).await;
            return (StatusCode::GATEWAY_TIMEOUT, Retention::Unknown, charged).into_response();
        }
        "swallow" => {
            let twice = Db::run(&mut tx, insert(&name)).await;
            assert!(twice.is_err(), "the row is there already");
        }
        "commit" => drop(Db::run(&mut tx, "commit".into()).await),
        "commit-and-release" => {
            Db::run(&mut tx, "commit".into()).await.expect("it runs");
            return (StatusCode::TOO_MANY_REQUESTS, "later").into_response();
        }
        "error-and-release" => {
            let failed = Db::run(&mut tx, "select no_such_column".into()).await;
            assert!(failed.is_err(), "{failed:?}");
            return (StatusCode::TOO_MANY_REQUESTS, "later").into_response();
        }
        "rollback" => drop(Db::run(&mut tx, "rollback".into()).await),
        "begin-again" => {
            for statement in ["commit", "begin"] {
                Db::run(&mut tx, statement.into()).await.expect("it runs");
            }
        }
        "ddl" => {
            let made = format!("create table {name}_made (n integer)");
            Db::run(&mut tx, made).await.expect("a table");
        }
        "keep" => control.keep(tx),
        "swap" | "swap-status" => {
            let mut other = world.pool.acquire().await.expect("a connection").detach();
            std::mem::swap(&mut *tx, &mut other);
            if act == "swap-status" {
                return (StatusCode::PAYMENT_REQUIRED, done).into_response();
            }
        }
        "settings" => {
            assert_eq!(
                Db::leftover(&mut tx).await,
                None,
                "what an earlier handler set"
            );
            for setting in Db::SETTINGS {
                Db::run(&mut tx, (*setting).into()).await.expect("set");
            }
        }
        "elsewhere" => {
            Db::look_elsewhere(&mut tx).await.expect("it looks there");
        }
        "sizeable" => return (done + &"x".repeat(200 << 10)).into_response(),
        "stream" | "large" | "broken" | "streams-tx" => {
            return streamed(&act, tx, done);
        }
        act => panic!("{act}?"),
    }
    done.into_response()
}

/// A step, and in which run it was done.
async fn charge(execution: &Execution, run: u32) -> String {
    let charged = execution.step("charge", || async { Ok::<_, String>(run) });
    match charged.await {
        Ok(run) => format!("charged in run {run}"),
        Err(StepError::Fault(fault)) => format!("{:?}", fault.kind()),
        Err(StepError::Failed(error)) => error,
    }
}

/// A body of unknown length.
fn streamed<Db: TestDatabase>(act: &str, tx: Transaction<Db>, done: String) -> Response {
    let piece = |text: String| Ok::<_, std::io::Error>(Bytes::from(text));
    let mut pieces = vec![piece(done), piece(" in pieces".into())];
    match act {
        "large" => pieces.push(piece("x".repeat(2 << 20))),
        "broken" => pieces.push(Err(std::io::Error::other("broken off"))),
        _ => {}
    }
    let keeps = (act == "streams-tx").then_some(tx);
    let pieces = futures_util::stream::iter(pieces);
    let pieces = futures_util::StreamExt::map(pieces, move |piece| {
        let _read_from = &keeps;
        piece
    });
    Body::from_stream(pieces).into_response()
}
