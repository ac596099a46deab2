//! Duplicates that wait in another process: one executes in a process of its own, the other waits in this one.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use idempotent_runtime::store::{self, AnyStore, sql::postgres::PostgresStore};
use tokio::sync::mpsc;

use super::{NOTIFIED, POLLED};
use crate::{
    servers::{mariadb::MariaDb, postgres::Postgres, redis::Redis},
    service::{Executions, Gate, Service, new_key},
    sqlite::DatabaseFile,
    toolbox::within,
};

const KEYS: u32 = 4;

/// The store of a URL, which notifies where it can.
async fn open(url: &str) -> AnyStore {
    if url.starts_with("postgres:") {
        let builder = PostgresStore::builder().migrate(true).notify(true);
        return AnyStore::new(builder.connect(url).await.expect("a store"));
    }
    store::migrate(url).await.expect("a store")
}

/// The time since the epoch, on the clock that all processes share.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time")
}

/// The process that executes; see the tests that start it. By itself it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executes_in_a_process_of_its_own() {
    let (Ok(url), Ok(keys)) = (std::env::var("EXECUTE_IN"), std::env::var("EXECUTE_KEYS")) else {
        return;
    };
    let next_line = async || {
        let read = || std::io::stdin().read_line(&mut String::new());
        let read = tokio::task::spawn_blocking(read).await;
        read.expect("no panic").expect("the input")
    };
    let service = Service::new(open(&url).await, &Executions::default());
    for n in 0..KEYS {
        let (key, gate) = (format!("{keys}-{n}"), Gate::closed());
        let ending = async {
            service.executions().started(n + 1).await;
            println!("executes {n} 0");
            next_line().await;
            gate.open();
        };
        let (answer, ()) = tokio::join!(service.pay_behind(&key, &gate), ending);
        println!("completed {n} {}", now().as_micros());
        assert!(!answer.replayed, "{answer:?}");
    }
    // Its notification may still be on its way: the process stays until the duplicate has its answer.
    next_line().await;
}

/// How long after the answer of the process that executes the duplicate in this one has its own, for each key.
async fn across(url: &str) -> Vec<Duration> {
    let keys = new_key();
    let here = Service::new(open(url).await, &Executions::default());
    let test = module_path!().split_once("::").expect("a crate").1;
    let test = format!("{test}::executes_in_a_process_of_its_own");
    let mut there = Command::new(std::env::current_exe().expect("this test"))
        .args([&test, "--exact", "--nocapture"])
        .env("EXECUTE_IN", url)
        .env("EXECUTE_KEYS", &keys)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let output = BufReader::new(there.stdout.take().expect("its output"));
    let mut input = there.stdin.take().expect("its input");
    let (sender, mut lines) = mpsc::unbounded_channel();
    let reader = std::thread::spawn(move || {
        for line in output.lines() {
            // The receiver is gone when the test has failed.
            let _failed = sender.send(line.expect("a line"));
        }
    });
    let mut printed = async |what: String| loop {
        let line = lines.recv().await.expect("the other process is alive");
        // The test harness prints its own lines, and no line end before the first of ours.
        if let Some((_, micros)) = line.split_once(&what) {
            return Duration::from_micros(micros.trim().parse().expect("a time"));
        }
    };
    let mut latencies = Vec::new();
    for n in 0..KEYS {
        printed(format!("executes {n} ")).await;
        let end = || input.write_all(b"end\n").expect("it reads");
        let (answer, _) = here.wait(&format!("{keys}-{n}"), end).await;
        let answered = now();
        assert!(answer.replayed, "{answer:?} was executed here");
        let completed = printed(format!("completed {n} ")).await;
        latencies.push(answered.saturating_sub(completed));
    }
    // With its input the process ends.
    drop(input);
    let ended = tokio::task::spawn_blocking(move || there.wait()).await;
    assert!(ended.expect("no panic").expect("its end").success());
    reader.join().expect("all was read");
    println!("from the answer of another process to that of this one: {latencies:?}");
    latencies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_wakes_another_process() {
    let Some(server) = Redis::start() else { return };
    within(NOTIFIED, async || across(&server.url()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_wakes_another_process_where_it_notifies() {
    let Some(server) = Postgres::start() else {
        return;
    };
    within(NOTIFIED, async || across(&server.url()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_polls_sqlite() {
    let file = DatabaseFile::new();
    within(POLLED, async || across(&file.url()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_polls_mysql() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    within(POLLED, async || across(&server.url()).await).await;
}
