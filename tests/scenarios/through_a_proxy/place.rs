//! A store on a real server behind a proxy, and processes of the service on it.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use axum::response::IntoResponse;
use http::StatusCode;
use idempotent_runtime::{
    Idempotency, Policy, StoreKey,
    store::{
        AnyStore, Record, Store,
        redis::RedisStore,
        sql::{mysql::MySqlStore, postgres::PostgresStore},
    },
};

use crate::{
    proxy::{Message, Proxy, Treatment},
    servers::{mariadb::MariaDb, postgres::Postgres, redis::Redis},
    support::{
        Adapter, CountingHandler, FaultyStore, Server, TestRequest, TestResponse, send, wait_until,
    },
};

/// Makes one test of each case for each kind of server.
macro_rules! on_each_server {
    ($($case:ident,)*) => {
        mod redis {
            use crate::through_a_proxy::place::{ServerKind, on_each_server};
            on_each_server! { ServerKind::Redis; $($case,)* }
        }

        mod postgres {
            use crate::through_a_proxy::place::{ServerKind, on_each_server};
            on_each_server! { ServerKind::Postgres; $($case,)* }
        }

        mod mysql {
            use crate::through_a_proxy::place::{ServerKind, on_each_server};
            on_each_server! { ServerKind::MariaDb; $($case,)* }
        }
    };
    ($kind:expr; $($case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::through_a_proxy::place::run($kind, |place| Box::pin(async move {
                    super::$case(&place).await;
                }));
            }
        )*
    };
}
pub(super) use on_each_server;

/// How a request is late: its connection stays open until the client gives it up, or is closed at once.
pub(super) const LATE: [Treatment; 2] = [Treatment::HoldRequest, Treatment::HoldRequestAndClose];

/// The kind of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerKind {
    Redis,
    Postgres,
    MariaDb,
}

/// Records on a real server that no other test uses, and a proxy to it.
pub(super) struct Place {
    pub(super) kind: ServerKind,
    pub(super) proxy: Proxy,
    /// The name of the table, or the prefix of the keys.
    name: String,
    /// The store without the proxy.
    pub(super) store: AnyStore,
}

/// One process of the service. It ends when dropped.
pub(super) struct Service {
    pub(super) engine: Idempotency,
    pub(super) server: Server,
}

/// Runs a case, if the server is installed.
pub(super) fn run(
    kind: ServerKind,
    case: impl FnOnce(Place) -> std::pin::Pin<Box<dyn Future<Output = ()>>>,
) {
    let port = match kind {
        ServerKind::Redis => Redis::shared().map(Redis::port),
        ServerKind::Postgres => Postgres::shared().map(Postgres::port),
        ServerKind::MariaDb => MariaDb::shared().map(MariaDb::port),
    };
    let Some(port) = port else { return };
    crate::support::in_real_time(async move {
        case(Place::new(kind, port).await).await;
    });
}

impl Place {
    async fn new(kind: ServerKind, port: u16) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("late{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self {
            kind,
            proxy: Proxy::to(port),
            store: open(kind, port, &name, None).await,
            name,
        }
    }

    /// A process whose store is behind the proxy.
    pub(super) async fn behind_proxy(&self, policy: &Policy, handler: &CountingHandler) -> Service {
        let store = open(self.kind, self.proxy.port(), &self.name, None).await;
        Service::start(store, policy, None, handler).await
    }

    /// The same, with an engine and a store that wait this long for an answer.
    pub(super) async fn patient(
        &self,
        patience: Duration,
        policy: &Policy,
        handler: &CountingHandler,
    ) -> Service {
        let port = self.proxy.port();
        let store = open(self.kind, port, &self.name, Some(patience)).await;
        Service::start(store, policy, Some(patience * 2), handler).await
    }

    /// A process that reaches the server itself.
    pub(super) async fn direct(&self, policy: &Policy, handler: &CountingHandler) -> Service {
        Service::start(self.store.clone(), policy, None, handler).await
    }

    /// The record, read past the proxy.
    pub(super) async fn record(&self, of: [u8; 32]) -> Option<Record> {
        let record = self.store.get(&StoreKey::from_bytes(of)).await;
        record.expect("the server answers")
    }

    /// Waits until the record is absent or expired.
    pub(super) async fn until_free(&self, of: [u8; 32]) {
        let since = Instant::now();
        while self.record(of).await.is_some() {
            assert!(since.elapsed() < BOUND, "the key is still claimed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether the server itself removes expired records.
    pub(super) fn forgets_expired(&self) -> bool {
        self.kind == ServerKind::Redis
    }

    /// From now on the process behind the proxy reaches its store no more, or it does again.
    pub(super) fn cut_off(&self, yes: bool) {
        self.proxy.refuse(yes);
        self.proxy.cut();
    }
}

/// After this long an event that must happen counts as missing.
const BOUND: Duration = Duration::from_secs(30);

/// Its type is erased, so that each case is compiled once.
async fn open(kind: ServerKind, port: u16, name: &str, patience: Option<Duration>) -> AnyStore {
    let table = || name.parse().expect("a name");
    match kind {
        ServerKind::Redis => {
            let store = RedisStore::builder(format!("redis://127.0.0.1:{port}"));
            let store = store.prefix(format!("{name}:"));
            let store = match patience {
                Some(patience) => store.response_timeout(patience),
                None => store,
            };
            AnyStore::new(store.connect().await.expect("a store"))
        }
        ServerKind::Postgres => {
            let store = PostgresStore::builder().table(table()).migrate(true);
            let store = store.connections(3);
            let store = store.time_out(patience.unwrap_or(Duration::from_secs(2)));
            let store = store.connect(&Postgres::url_of(port)).await;
            AnyStore::new(store.expect("a store"))
        }
        ServerKind::MariaDb => {
            let store = MySqlStore::builder().table(table()).migrate(true);
            let store = store.connections(3);
            let store = store.time_out(patience.unwrap_or(Duration::from_secs(2)));
            let store = store.connect(&MariaDb::url_of(port)).await;
            AnyStore::new(store.expect("a store"))
        }
    }
}

impl Service {
    pub(super) async fn start(
        store: impl Store,
        policy: &Policy,
        store_timeout: Option<Duration>,
        handler: &CountingHandler,
    ) -> Self {
        let engine = Idempotency::builder().store(store).policy(policy.clone());
        let engine = match store_timeout {
            Some(limit) => engine.store_timeout(limit),
            None => engine,
        };
        let engine = engine.build().expect("an engine");
        let server = Server::start(Adapter::Attribute.app(&engine, handler)).await;
        Self { engine, server }
    }

    pub(super) async fn send(&self, request: &TestRequest) -> TestResponse {
        self.server.send(request).await
    }

    /// Sends the request again for as long as its key is blocked or the store is away, as clients do.
    pub(super) async fn retry(&self, request: &TestRequest) -> TestResponse {
        let since = Instant::now();
        loop {
            let answer = self.send(request).await;
            let blocked = match answer.status.as_u16() {
                409 => answer.code() == "conflict",
                503 => true,
                _ => false,
            };
            if !blocked {
                return answer;
            }
            assert!(since.elapsed() < BOUND, "the key stays blocked: {answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The store key of a request, as every engine of these tests derives it.
pub(super) async fn record_of(request: &TestRequest) -> [u8; 32] {
    let store = FaultyStore::new();
    let engine = Idempotency::builder().store(store.clone()).build();
    let app = Adapter::Attribute.app(&engine.expect("an engine"), &CountingHandler::new());
    send(&app, request).await.assert_charge(1);
    *store.keys()[0].as_bytes()
}

/// Runs a case for each of these at the same time: most of it is waiting.
pub(super) async fn for_each<T>(values: impl IntoIterator<Item = T>, case: impl AsyncFn(T)) {
    let case = &case;
    let cases = values.into_iter().map(async |value| case(value).await);
    futures_util::future::join_all(cases).await;
}

/// Lets a late request go, and waits until the server has carried it out.
pub(super) async fn arrives(message: &Message) {
    message.let_go();
    wait_until(|| message.answered()).await;
}

/// A handler whose executions with odd numbers ask to be sent again, which releases the key.
pub(super) fn refusing_at_first() -> CountingHandler {
    CountingHandler::responding(|n| {
        let status = match n % 2 {
            1 => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::CREATED,
        };
        (status, format!("charge {n}")).into_response()
    })
}

pub(super) fn no_wait() -> Policy {
    Policy::new().wait(false)
}
