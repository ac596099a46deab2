//! Waiting across processes that are two: one executes in a process of its own, the other waits in this one.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use idempotent_runtime::store::{self, AnyStore, sql::postgres::PostgresStore};
use tokio::sync::mpsc;

use crate::{
    servers::{mariadb::MariaDb, postgres::Postgres, redis::Redis},
    sql_waiting::{Process, Till, within},
    sqlite::File,
};

const KEYS: usize = 4;
/// Long enough for the polling to have slowed down.
const TAKES: Duration = Duration::from_millis(1800);

/// The store of a URL, with push where there is such a thing.
async fn open(url: &str) -> AnyStore {
    if url.starts_with("postgres:") {
        let builder = PostgresStore::builder().migrate(true).notify(true);
        return AnyStore::new(builder.connect(url).await.expect("a store"));
    }
    store::migrate(url).await.expect("a store")
}

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
    let process = Process::new(open(&url).await, &Till::default());
    for n in 0..KEYS {
        println!("executes {n} 0");
        let (answer, replayed) = process.pay(&format!("{keys}-{n}"), TAKES).await;
        assert!(!replayed, "{answer}");
        println!("completed {n} {}", now().as_micros());
    }
    // What wakes others may still be on its way: it stays until they have been answered.
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    end.await.expect("no panic").expect("the end of its input");
}

/// How long after the answer of the process that executed the one that waits has its own.
async fn across(url: &str) -> Vec<Duration> {
    static ROUND: AtomicU32 = AtomicU32::new(0);
    let keys = format!("round-{}", ROUND.fetch_add(1, Ordering::Relaxed));
    let here = Process::new(open(url).await, &Till::default());
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
    let (say, mut said) = mpsc::unbounded_channel();
    let reading = std::thread::spawn(move || {
        for line in output.lines() {
            // Nobody listens any more when a test has failed.
            let _unheard = say.send(line.expect("a line"));
        }
    });
    let mut hear = async |what: String| loop {
        let line = said.recv().await.expect("the other process goes on");
        // The harness writes its own words before the first of ours.
        if let Some((_, micros)) = line.split_once(&what) {
            return Duration::from_micros(micros.trim().parse().expect("a time"));
        }
    };
    let mut latencies = Vec::new();
    for n in 0..KEYS {
        hear(format!("executes {n} ")).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        let (answer, replayed) = here.pay(&format!("{keys}-{n}"), Duration::ZERO).await;
        let answered = now();
        assert!(replayed, "{answer} was executed here");
        let completed = hear(format!("completed {n} ")).await;
        latencies.push(answered.saturating_sub(completed));
    }
    // Its input ends with that.
    let ended = tokio::task::spawn_blocking(move || there.wait()).await;
    assert!(ended.expect("no panic").expect("its end").success());
    reading.join().expect("all was read");
    println!("waited for another process {latencies:?}");
    latencies
}

const PUSHED: Duration = Duration::from_millis(50);
const POLLED: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_wakes_another_process() {
    let Some(server) = Redis::start() else { return };
    within(PUSHED, async || across(&server.url()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_wakes_another_process_when_told_to() {
    let Some(server) = Postgres::start() else {
        return;
    };
    within(PUSHED, async || across(&server.url()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_polls_sqlite() {
    let file = File::new();
    within(POLLED, async || across(&file.url()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_polls_mysql() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    within(POLLED, async || across(&server.url()).await).await;
}
