//! Steps of a handler whose process is aborted, and of the next attempt in another process.

use std::{
    convert::Infallible,
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use idempotent_runtime::{
    Execution, Idempotency, IdempotencyLayer, OnCrash, Policy, Step,
    store::{self, AnyStore},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::servers::{Folder, mariadb::MariaDb, postgres::Postgres, redis::Redis};

/// Where the process aborts, and how often `charge` calls the provider, in both attempts together.
const POINTS: [(&str, usize); 3] = [
    ("before-the-effect", 1),
    ("between-effect-and-append", 2),
    ("after-the-append", 1),
];

/// A provider that honours keys: a file with one line for each call. Processes share it.
#[derive(Clone)]
struct Provider(PathBuf);

impl Provider {
    /// Records the call. The number of its effect is that of the first call with its key.
    fn call(&self, step: &Step) -> usize {
        let line = format!("{} {}", step.name(), step.downstream_key());
        let mut file = OpenOptions::new().create(true).append(true).open(&self.0);
        let file = file.as_mut().expect("the provider's file");
        writeln!(file, "{line}").expect("a call");
        let calls = self.calls();
        let effects = calls.iter().position(|call| *call == line);
        effects.expect("the call is recorded")
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(&self.0).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

/// One attempt of the handler in this process, which aborts at this point, if at any.
async fn attempt(store: AnyStore, provider: Provider, key: &str, aborts: &'static str) -> String {
    let policy = Policy::new()
        .on_crash(OnCrash::Retry)
        .lease(Duration::from_millis(500));
    let engine = Idempotency::builder().policy(policy).store(store).build();
    let handler = service_fn(move |request: Request<_>| {
        let provider = provider.clone();
        async move {
            let execution = Execution::from_extensions(request.extensions()).cloned();
            let execution = execution.expect("the request has a key");
            let charging = provider.clone();
            let charge = execution.step("charge", |step: Step| async move {
                abort_if(aborts == POINTS[0].0);
                let effect = charging.call(&step);
                abort_if(aborts == POINTS[1].0);
                Ok::<_, Infallible>(effect)
            });
            let charge = charge.await.expect("a charge");
            abort_if(aborts == POINTS[2].0);
            let mail = execution.step("mail", |step: Step| async move {
                Ok::<_, Infallible>(provider.call(&step))
            });
            mail.await.expect("a mail");
            let body = Bytes::from(format!("{} charge {charge}", execution.attempt()));
            Ok::<_, Infallible>(Response::new(Full::new(body)))
        }
    });
    let request = Request::post("/pay").header("idempotency-key", key);
    let request = request.body(Full::new(Bytes::new())).expect("a request");
    let layer = IdempotencyLayer::new(engine.expect("an engine"));
    let response = layer.layer(handler).oneshot(request).await;
    let response = response.unwrap_or_else(|never| match never {});
    let body = response.into_body().collect().await.expect("a body");
    String::from_utf8_lossy(&body.to_bytes()).into_owned()
}

fn abort_if(here: bool) {
    if here {
        std::process::abort();
    }
}

/// The process that is aborted; see the tests that start it. By itself it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborts_in_a_process_of_its_own() {
    let (Ok(url), Ok(folder), Ok(point)) = (
        std::env::var("STEPS_IN"),
        std::env::var("STEPS_PROVIDER"),
        std::env::var("STEPS_ABORT"),
    ) else {
        return;
    };
    let (aborts, _) = POINTS[point.parse::<usize>().expect("a point")];
    let store = store::migrate(&url).await.expect("a store");
    attempt(store, Provider(folder.into()), aborts, aborts).await;
}

fn abort_in_another_process(url: &str, provider: &Path, point: usize) {
    let test = module_path!().split_once("::").expect("a crate").1;
    let test = format!("{test}::aborts_in_a_process_of_its_own");
    let ended = Command::new(std::env::current_exe().expect("this test"))
        .args([&test, "--exact"])
        .env("STEPS_IN", url)
        .env("STEPS_PROVIDER", provider)
        .env("STEPS_ABORT", point.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let ended = ended.expect("a process");
    assert!(ended.code().is_none(), "it ends by a signal: {ended}");
}

async fn a_provider_sees_one_key_wherever_the_process_aborts(url: &str) {
    for (point, (name, calls)) in POINTS.into_iter().enumerate() {
        // Given a process that was aborted at this point.
        let folder = Folder::new("provider");
        let provider = Provider(folder.path().join("calls"));
        abort_in_another_process(url, &provider.0, point);

        // When the next one gets the request again.
        let store = store::connect(url).await.expect("a store");
        let answer = attempt(store, provider.clone(), name, "").await;

        // Then it has the charge of the first one, and the provider saw one key.
        assert_eq!(answer, "2 charge 0", "{name}");
        let charges = provider.calls();
        let (mut charges, mails): (Vec<_>, Vec<_>) = charges
            .into_iter()
            .partition(|call| call.starts_with("charge "));
        assert_eq!((charges.len(), mails.len()), (calls, 1), "{name}");
        charges.dedup();
        assert_eq!(charges.len(), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborts_on_redis() {
    let Some(server) = Redis::start() else { return };
    a_provider_sees_one_key_wherever_the_process_aborts(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborts_on_postgres() {
    let Some(server) = Postgres::start() else {
        return;
    };
    a_provider_sees_one_key_wherever_the_process_aborts(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborts_on_mariadb() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    a_provider_sees_one_key_wherever_the_process_aborts(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborts_on_sqlite() {
    let file = crate::sqlite::DatabaseFile::new();
    a_provider_sees_one_key_wherever_the_process_aborts(&file.url()).await;
}
