//! Duplicates that wait on SQL stores: through few connections, and across processes.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use idempotent_runtime::{
    Idempotency, IdempotencyLayer,
    store::{
        Store,
        sql::{mysql::MySqlStore, postgres::PostgresStore},
    },
};
use sqlx::{Connection as _, PgConnection, postgres::PgPoolOptions};
use tokio::sync::Semaphore;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::{
    proxy::Proxy,
    servers::{mariadb::MariaDb, postgres::Postgres},
    sql_setup::new_table,
    sqlite::File,
};

/// What the handlers of all processes did.
#[derive(Clone, Default)]
pub(crate) struct Till {
    executions: Arc<AtomicU32>,
}

/// One process of a service, in front of a store.
#[derive(Clone)]
pub(crate) struct Process {
    layer: IdempotencyLayer,
    till: Till,
}

impl Process {
    pub(crate) fn new(store: impl Store, till: &Till) -> Self {
        let engine = Idempotency::builder()
            .store(store)
            .build()
            .expect("an engine");
        Self {
            layer: IdempotencyLayer::new(engine),
            till: till.clone(),
        }
    }

    /// Sends a request whose execution takes this long, and gives the answer's body and how it came about.
    pub(crate) async fn pay(&self, key: &str, takes: Duration) -> (String, bool) {
        self.pay_while(key, move || tokio::time::sleep(takes)).await
    }

    /// Sends a request whose execution does this.
    async fn pay_while<F>(
        &self,
        key: &str,
        working: impl Fn() -> F + Clone + Send + 'static,
    ) -> (String, bool)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let till = self.till.clone();
        let handler = service_fn(move |_| {
            let (till, working) = (till.clone(), working.clone());
            async move {
                let number = till.executions.fetch_add(1, Ordering::SeqCst) + 1;
                working().await;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!(
                    "paid {number}"
                )))))
            }
        });
        let request = Request::post("/pay")
            .header("idempotency-key", key)
            .body(Full::new(Bytes::new()));
        let response = self
            .layer
            .layer(handler)
            .oneshot(request.expect("a request"))
            .await;
        let response = response.unwrap_or_else(|never| match never {});
        let replayed = response.headers().contains_key("idempotent-replay");
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        (String::from_utf8_lossy(&body).into_owned(), replayed)
    }
}

/// Fifty duplicates wait, and hold no connection while they do: others are served as if they were not there.
async fn fifty_wait(store: impl Store) {
    let till = Till::default();
    let process = Process::new(store, &till);
    // Until the others are through, or it is plain that they will not be.
    let gate = Arc::new(Semaphore::new(0));
    let waiting = (0..50).map(|_| {
        let gate = Arc::clone(&gate);
        process.pay_while("one", move || {
            let gate = Arc::clone(&gate);
            async move { gate.acquire().await.expect("it opens").forget() }
        })
    });
    let others = async {
        // Long enough for all of them to have come.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let paying = async {
            for n in 0..10 {
                let (body, replayed) = process.pay(&format!("other-{n}"), Duration::ZERO).await;
                assert_eq!((&*body, replayed), (&*format!("paid {}", n + 2), false));
            }
        };
        let paid = tokio::time::timeout(Duration::from_secs(10), paying).await;
        gate.add_permits(1);
        paid
    };
    let (answers, paid) = tokio::join!(futures_util::future::join_all(waiting), others);
    paid.expect("ten others are served while fifty wait");
    assert!(
        answers.iter().all(|(body, _)| body == "paid 1"),
        "{answers:?}"
    );
    assert_eq!(
        answers.iter().filter(|(_, replayed)| !replayed).count(),
        1,
        "{answers:?}"
    );
    assert_eq!(till.executions.load(Ordering::SeqCst), 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_wait_on_one_connection_to_postgres() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let builder = PostgresStore::builder().table(new_table()).migrate(true);
    fifty_wait(builder.connections(1).connect(&server.url()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_wait_on_the_applications_one_connection_to_postgres() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect(&server.url())
        .await
        .unwrap();
    let store = PostgresStore::builder().table(new_table()).from_pool(pool);
    store.migrate().await.unwrap();
    fifty_wait(store).await;
}

/// What listens takes no connection of the application's away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_wait_on_the_applications_one_connection_to_postgres_and_are_notified() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect(&server.url())
        .await
        .unwrap();
    let builder = PostgresStore::builder().table(new_table()).notify(true);
    let store = builder.from_pool(pool.clone());
    store.migrate().await.unwrap();
    fifty_wait(store).await;
    // It has not become the listener's.
    pool.acquire().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_wait_on_one_connection_to_mysql() {
    let Some(server) = MariaDb::shared() else {
        return;
    };
    let builder = MySqlStore::builder().table(new_table()).migrate(true);
    fifty_wait(builder.connections(1).connect(&server.url()).await.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_wait_on_one_sqlite_file() {
    let file = File::new();
    fifty_wait(file.open().await).await;
}

/// How long after the answer of the process that executed those who wait in the other have theirs, sorted.
async fn across(first: impl Store, second: impl Store) -> Vec<Duration> {
    let till = Till::default();
    let (first, second) = (Process::new(first, &till), Process::new(second, &till));
    between(&first, &second, 5).await
}

/// So many keys, each executed by the first while the second waits.
async fn between(first: &Process, second: &Process, keys: usize) -> Vec<Duration> {
    let before = first.till.executions.load(Ordering::SeqCst);
    let mut latencies = Vec::new();
    for n in 0..keys {
        let key = format!("key-{before}-{n}");
        let executing = async {
            // Long enough for the polling to have slowed down.
            let answer = first.pay(&key, Duration::from_millis(1600)).await;
            (answer, Instant::now())
        };
        let waiting = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let answer = second.pay(&key, Duration::ZERO).await;
            (answer, Instant::now())
        };
        let ((executed, completed), (replayed, answered)) = tokio::join!(executing, waiting);
        assert_eq!(replayed, (executed.0, true));
        latencies.push(answered.saturating_duration_since(completed));
    }
    let executed = first.till.executions.load(Ordering::SeqCst) - before;
    assert_eq!(executed as usize, keys);
    latencies.sort();
    println!("waited {latencies:?}");
    latencies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_notify_waiters_in_another_process_are_woken() {
    let Some(server) = Postgres::shared() else {
        return;
    };
    let table = new_table();
    let connect = async || {
        let builder = PostgresStore::builder()
            .table(table.clone())
            .migrate(true)
            .notify(true);
        builder.connect(&server.url()).await.expect("a store")
    };
    within(Duration::from_millis(50), async || {
        across(connect().await, connect().await).await
    })
    .await;
}

/// Every wait of a measurement is over in time. A machine that runs other tests beside this one stalls now and then:
/// then the whole is measured again, twice at most.
pub(crate) async fn within(most: Duration, measure: impl AsyncFn() -> Vec<Duration>) {
    let mut measured = Vec::new();
    for _ in 0..3 {
        let latencies = measure().await;
        let in_time = latencies.iter().all(|latency| *latency < most);
        measured.push(latencies);
        if in_time {
            return;
        }
    }
    panic!("not once all within {most:?}: {measured:?}");
}

/// A listener whose server vanished without a word, as behind a firewall that forgot the connection, finds out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_hears_nothing_any_more_listens_anew() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let proxy = Proxy::to(server.port());
    let connect = async |port| {
        let builder = PostgresStore::builder().migrate(true).notify(true);
        builder
            .connect(&Postgres::url_of(port))
            .await
            .expect("a store")
    };
    let listening = async || {
        let mut behind = PgConnection::connect(&server.url()).await.unwrap();
        let listening = "select count(*) from pg_stat_activity where query like 'LISTEN%' and application_name = \
                         'idempotent'";
        sqlx::query_scalar::<_, i64>(listening)
            .fetch_one(&mut behind)
            .await
            .unwrap()
    };
    let until_listening = async |times: i64| {
        let patience = Instant::now() + Duration::from_secs(30);
        while listening().await < times {
            assert!(Instant::now() < patience, "{} listen", listening().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let till = Till::default();
    let first = Process::new(connect(server.port()).await, &till);
    let second = Process::new(connect(proxy.port()).await, &till);
    until_listening(2).await;
    let before = proxy.accepted();
    // The connection stands, and nothing comes through it.
    proxy.silence(true);
    let patience = Instant::now() + Duration::from_secs(30);
    while proxy.accepted() == before {
        assert!(Instant::now() < patience, "nobody noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.silence(false);
    proxy.cut();
    // The one that was made anew; what the other last asked for is whether its server is there.
    until_listening(1).await;
    within(Duration::from_millis(50), async || {
        between(&first, &second, 2).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_push_waiters_in_another_process_poll() {
    let most = Duration::from_millis(500);
    within(most, async || {
        let file = File::new();
        across(file.open().await, file.open().await).await
    })
    .await;
    if let Some(server) = MariaDb::shared() {
        within(most, async || {
            let table = new_table();
            let connect = async || {
                let builder = MySqlStore::builder().table(table.clone()).migrate(true);
                builder.connect(&server.url()).await.expect("a store")
            };
            across(connect().await, connect().await).await
        })
        .await;
    }
    if let Some(server) = Postgres::shared() {
        within(most, async || {
            let table = new_table();
            let connect = async || {
                let builder = PostgresStore::builder().table(table.clone()).migrate(true);
                builder.connect(&server.url()).await.expect("a store")
            };
            across(connect().await, connect().await).await
        })
        .await;
    }
}
