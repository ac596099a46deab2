//! The stores of the run, each behind something that makes it slow, silent or dead.

use std::{error::Error, sync::Arc, time::Duration};

use idempotent_runtime::{
    Builder, Idempotency, MemoryStore,
    store::{redis::RedisStore, sql::postgres::PostgresStore},
};
use tokio::{sync::Semaphore, time::sleep};

use crate::{
    order::LEASE,
    proxy::Proxy,
    random::Random,
    servers::{postgres::Postgres, redis::Redis},
    service::policy,
    support::{Fault, FaultyStore, Operation, Process},
    watch::{Watch, WatchedStore},
};

/// How many processes use one store.
pub(crate) const NODES: usize = 3;

/// The store time-out of the engines: short, so that a store that is away for a second is away for long.
const STORE_TIME_OUT: Duration = Duration::from_millis(500);

/// Which store to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Memory,
    Redis,
    Postgres,
}

/// What keeps the records, while processes come and go.
pub(crate) struct Backend {
    /// How each process reaches them.
    ways: [Way; NODES],
    #[expect(dead_code, reason = "its drop ends it")]
    server: Server,
}

#[allow(dead_code, reason = "their drops end them")]
enum Server {
    None,
    Redis(Redis),
    Postgres(Postgres),
}

/// How one process reaches the records, and what can fail on it.
#[derive(Clone)]
enum Way {
    Memory(FaultyStore),
    Redis(Proxy),
    Postgres(Proxy),
}

impl StoreKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [Self::Memory, Self::Redis, Self::Postgres];
        all.into_iter().find(|kind| kind.name() == name)
    }

    /// Starts it; nothing if its server is not installed.
    pub(crate) fn start(self) -> Option<Backend> {
        let nodes = [(); NODES];
        Some(match self {
            Self::Memory => {
                let store = MemoryStore::new();
                Backend {
                    ways: nodes.map(|()| Way::Memory(FaultyStore::over(store.clone()))),
                    server: Server::None,
                }
            }
            Self::Redis => {
                let server = Redis::start()?;
                Backend {
                    ways: nodes.map(|()| Way::Redis(Proxy::to(server.port()))),
                    server: Server::Redis(server),
                }
            }
            Self::Postgres => {
                let server = Postgres::start()?;
                Backend {
                    ways: nodes.map(|()| Way::Postgres(Proxy::to(server.port()))),
                    server: Server::Postgres(server),
                }
            }
        })
    }
}

impl Backend {
    /// A process in this place, whose claims are watched.
    pub(crate) async fn open(
        &self,
        place: usize,
        watch: &Arc<Watch>,
    ) -> Result<Process, Box<dyn Error + Send + Sync>> {
        let watch = Arc::clone(watch);
        Ok(match &self.ways[place] {
            Way::Memory(store) => {
                let store = store.clone();
                Process::start(builder(), WatchedStore { store, watch })
            }
            Way::Redis(proxy) => {
                let store = RedisStore::builder(format!("redis://127.0.0.1:{}", proxy.port()))
                    .connect_timeout(Duration::from_millis(400))
                    .response_timeout(Duration::from_millis(200));
                let store = store.connect().await?;
                Process::start(builder(), WatchedStore { store, watch })
            }
            Way::Postgres(proxy) => {
                let store = PostgresStore::builder()
                    .migrate(true)
                    .time_out(Duration::from_millis(400));
                let store = store.connect(&Postgres::url_of(proxy.port())).await?;
                Process::start(builder(), WatchedStore { store, watch })
            }
        })
    }

    /// Makes the store fail in a random way for a while, and returns what was done. It is well again afterwards.
    pub(crate) async fn fail(&self, random: &mut Random) -> &'static str {
        let one = &self.ways[random.index(NODES)];
        match random.between(0, 2) {
            // For longer than a lease: others take over what this process executes.
            0 => {
                one.cut_off();
                sleep(LEASE + random.millis(200, 1500)).await;
                one.heal();
                "store faults: one process is cut off"
            }
            1 => one.fail(random).await,
            _ => {
                // The same happens to all.
                let seed = random.between(0, u64::MAX - 1);
                let [first, second, third] = self.ways.each_ref().map(|way| async move {
                    let mut random = Random::new(seed);
                    way.fail(&mut random).await
                });
                tokio::join!(first, second, third).0
            }
        }
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.ways.iter().for_each(Way::heal);
    }
}

impl Way {
    async fn fail(&self, random: &mut Random) -> &'static str {
        match self {
            Self::Memory(store) => fail_in_memory(store, random).await,
            Self::Redis(proxy) | Self::Postgres(proxy) => fail_behind(proxy, random).await,
        }
    }

    fn cut_off(&self) {
        match self {
            Self::Memory(store) => store.fail_randomly(0, 100),
            Self::Redis(proxy) | Self::Postgres(proxy) => {
                proxy.refuse(true);
                proxy.cut();
            }
        }
    }

    fn heal(&self) {
        match self {
            Self::Memory(store) => store.heal(),
            Self::Redis(proxy) | Self::Postgres(proxy) => heal(proxy),
        }
    }
}

fn builder() -> Builder {
    Idempotency::builder()
        .policy(policy())
        .store_timeout(STORE_TIME_OUT)
        .max_detached(256)
}

async fn fail_in_memory(store: &FaultyStore, random: &mut Random) -> &'static str {
    let seed = random.between(0, u64::MAX - 1);
    let (what, percent, time) = match random.between(0, 3) {
        0 => (
            "store faults: some operations fail",
            25,
            random.millis(300, 1500),
        ),
        1 => (
            "store faults: most operations fail",
            75,
            random.millis(200, 1000),
        ),
        2 => ("store faults: dead", 100, random.millis(200, 1500)),
        _ => {
            let arrives = Arc::new(Semaphore::new(0));
            for _ in 0..8 {
                store.fail_next(Operation::Acquire, Fault::Late(Arc::clone(&arrives)));
            }
            sleep(random.millis(100, 900)).await;
            arrives.add_permits(8);
            return "store faults: acquires that arrive late";
        }
    };
    store.fail_randomly(seed, percent);
    sleep(time).await;
    store.heal();
    what
}

async fn fail_behind(proxy: &Proxy, random: &mut Random) -> &'static str {
    let what = match random.between(0, 6) {
        0 => {
            proxy.delay(random.millis(5, 150));
            sleep(random.millis(300, 1000)).await;
            "store faults: slow replies"
        }
        1 => {
            proxy.delay_requests(random.millis(5, 150));
            sleep(random.millis(300, 1000)).await;
            "store faults: slow requests"
        }
        2 => {
            // Longer than any time-out: what was given up arrives after all.
            proxy.delay_requests(random.millis(300, 1500));
            sleep(random.millis(200, 800)).await;
            proxy.delay_requests(Duration::ZERO);
            sleep(Duration::from_millis(1500)).await;
            "store faults: requests that arrive late"
        }
        3 => {
            proxy.silence(true);
            sleep(random.millis(200, 1500)).await;
            "store faults: no replies"
        }
        4 => {
            proxy.refuse(true);
            proxy.cut();
            sleep(random.millis(200, 2000)).await;
            "store faults: dead"
        }
        5 => {
            for _ in 0..random.between(1, 6) {
                proxy.lose_next_reply();
                sleep(random.millis(10, 80)).await;
            }
            "store faults: lost replies"
        }
        _ => {
            for _ in 0..random.between(1, 4) {
                proxy.cut();
                sleep(random.millis(10, 200)).await;
            }
            "store faults: cut connections"
        }
    };
    heal(proxy);
    what
}

fn heal(proxy: &Proxy) {
    proxy.delay(Duration::ZERO);
    proxy.delay_requests(Duration::ZERO);
    proxy.silence(false);
    proxy.refuse(false);
    // A client keeps a connection whose reply it still waits for.
    proxy.cut();
}
