//! How much a purge of many expired records slows the requests that run meanwhile.
//!
//! ```text
//! cargo run --release -p idempotent-tests --bin purge -- postgres 10000000
//! cargo run --release -p idempotent-tests --bin purge -- mariadb 1000000
//! cargo run --release -p idempotent-tests --bin purge -- sqlite 1000000
//! ```
//!
//! 1. The table is filled with that many records (default: ten million) that have expired, in the order in which they
//!    expired, each with a response of about 200 bytes. Ten million take about 5 GB of disk.
//! 2. Sixteen clients send 200 pairs of acquire and complete a second, evenly: for half a minute as they are, then
//!    while a [`Purger`] works at its defaults, until nothing expired is left. A third number is the most seconds to
//!    wait for that.
//! 3. The last line is the ratio of the times of a pair at p99, during the purge to before it. The exit code is 1 if
//!    it is above 2, and 2 if nothing could be measured.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use idempotent_runtime::store::{Store, purger::Purger};
use tokio::{
    task::JoinSet,
    time::{interval, sleep},
};

use self::{
    driver::{Client as _, Ours, claim, draw},
    tables::Table,
};

#[path = "../throughput/driver.rs"]
#[allow(dead_code, reason = "shared with a program that uses more of it")]
mod driver;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
mod tables;

const CLIENTS: u32 = 16;
const PAIRS_PER_SECOND: u32 = 200;
const BEFORE: Duration = Duration::from_secs(30);
/// The largest ratio of times at p99.
const MOST: f64 = 2.0;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let number = |place: usize, default: u64| match arguments.get(place) {
        Some(number) => number.parse().ok(),
        None => Some(default),
    };
    let (Some(records), Some(most)) = (number(1, 10_000_000), number(2, 86_400)) else {
        eprintln!("purge: expected a store, a number of records and a number of seconds");
        return ExitCode::from(2);
    };
    let most = Duration::from_secs(most);
    let ratio = match arguments.first().map(String::as_str) {
        Some("postgres") => tables::postgres(records, most).await,
        Some("mariadb") => tables::mariadb(records, most).await,
        Some("sqlite") => tables::sqlite(records, most).await,
        _ => {
            eprintln!("purge: which store? postgres, mariadb or sqlite");
            None
        }
    };
    match ratio {
        Some(ratio) if ratio <= MOST => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
        None => ExitCode::from(2),
    }
}

/// Fills the table and purges it; the ratio of times at p99.
async fn measure<S: Store + Clone>(
    table: &impl Table,
    store: S,
    records: u64,
    most: Duration,
) -> f64 {
    let started = Instant::now();
    table.fill(records).await;
    println!(
        "{records} expired records after {:.0} s",
        started.elapsed().as_secs_f64()
    );

    let load = Load::start(&store);
    sleep(BEFORE).await;
    let before = load.stop("before").await;

    let load = Load::start(&store);
    let started = Instant::now();
    // Not half a minute, on average, until it looks.
    let purger = Purger::builder()
        .every(Duration::from_secs(1))
        .start(store.clone());
    while !table.is_purged(records).await && started.elapsed() < most {
        sleep(Duration::from_secs(1)).await;
    }
    let time = started.elapsed().as_secs_f64();
    let during = load.stop("during").await;
    purger.stop().await;
    println!("purged for {time:.0} s, {} left", table.left().await);
    let ratio = during.div_duration_f64(before);
    println!("ratio of times at p99 {ratio:.2}");
    ratio
}

/// Clients at a steady pace.
struct Load {
    over: Arc<AtomicBool>,
    clients: JoinSet<Vec<Duration>>,
}

impl Load {
    fn start<S: Store + Clone>(store: &S) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for place in 0..CLIENTS {
            let (mut client, over) = (Ours::new(store.clone()), Arc::clone(&over));
            clients.spawn(async move {
                let pace = Duration::from_secs(1) * CLIENTS / PAIRS_PER_SECOND;
                // Not all at once.
                sleep(pace * place / CLIENTS).await;
                let (mut ticks, mut times) = (interval(pace), Vec::new());
                while !over.load(Ordering::Relaxed) {
                    // A client that was held up makes up for it: what is slow must not lessen the load.
                    ticks.tick().await;
                    let claim = claim(draw(1));
                    let sent = Instant::now();
                    client.pair(&claim).await;
                    times.push(sent.elapsed());
                }
                times
            });
        }
        Self { over, clients }
    }

    /// The time at p99.
    async fn stop(self, when: &str) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        let mut times = self.clients.join_all().await.concat();
        times.sort_unstable();
        let at = |share: f64| {
            let place = times.len().saturating_sub(1);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "a place in a list that fits in memory"
            )]
            let place = (place as f64 * share) as usize;
            times[place]
        };
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        println!(
            "{when}: {} pairs, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.2} ms",
            times.len(),
            millis(at(0.5)),
            millis(at(0.99)),
            millis(at(0.999)),
            millis(at(1.0))
        );
        at(0.99)
    }
}
