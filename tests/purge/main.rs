//! How much a purge of many expired records slows the requests that run at the same time.
//!
//! ```text
//! cargo run --release -p idempotent-tests --bin purge -- postgres 10000000
//! cargo run --release -p idempotent-tests --bin purge -- mariadb 1000000
//! cargo run --release -p idempotent-tests --bin purge -- sqlite 1000000
//! ```
//!
//! 1. The table is filled with this many expired records (default: ten million), in the order in which they expired,
//!    each with a response of about 200 bytes. Ten million take about 5 GB of disk.
//! 2. Sixteen clients send 200 pairs of acquire and complete per second, evenly spaced. They alternate between 5
//!    seconds alone and 15 seconds beside a [`Purger`] with its defaults: other load on the machine and its disk is in
//!    both.
//! 3. This is repeated until no expired record is left, or a purge finds none. A third argument bounds the seconds of
//!    purging.
//! 4. Before that it lists and counts the table, whose time depends on what is looked at and not on what is stored.
//! 5. The last lines are the ratio of a pair's times at p99, beside the purge to alone, and how many pairs in a
//!    thousand took longer than twice the p99 alone. The exit code is 1 if the ratio is above 2, and 2 if nothing could
//!    be measured.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use idempotent_runtime::store::{
    Store,
    inspect::{Query, StateKind},
    purger::Purger,
};
use tokio::{
    task::JoinSet,
    time::{interval, sleep},
};

use self::driver::{Client as _, StoreClient, claim, draw};

#[path = "../throughput/driver.rs"]
#[allow(dead_code, reason = "shared with a program that uses more of it")]
mod driver;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
mod tables;

const CLIENTS: u32 = 16;
const PAIRS_PER_SECOND: u32 = 200;
/// How long the clients run alone.
const ALONE: Duration = Duration::from_secs(5);
/// How long they run beside the purge.
const BESIDE: Duration = Duration::from_secs(15);
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

/// Purges a table of this many expired records; the ratio of times at p99, or nothing if the purge stops too early.
async fn measure<S: Store + Clone>(store: S, records: u64, most: Duration) -> Option<f64> {
    list(&store).await;
    let (mut usual, mut beside) = (Vec::new(), Vec::new());
    let (mut gone, mut time) = (0, Duration::ZERO);
    while gone < records && time < most {
        usual.extend(report("alone", window(&store, sleep(ALONE)).await.0));

        let started = Instant::now();
        let purge = async {
            // The first purge starts within this time.
            let every = Duration::from_secs(1);
            let purger = Purger::builder().every(every).start(store.clone());
            while started.elapsed() < BESIDE && gone + purger.purged() < records {
                sleep(Duration::from_millis(100)).await;
            }
            purger.stop().await
        };
        let (times, purged) = window(&store, purge).await;
        beside.extend(report("beside the purge", times));
        time += started.elapsed();
        gone += purged;
        if purged == 0 {
            // A few batches may have been purged without being counted, because no answer arrived.
            if gone < records - records / 100 {
                eprintln!("purge: stopped after {gone} of {records} expired records");
                return None;
            }
            break;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate that is shown")]
    let rate = gone as f64 / time.as_secs_f64();
    println!("{gone} purged, {rate:.0} a second");
    Some(compare(
        &report("all alone", usual),
        &report("all beside the purge", beside),
    ))
}

/// Prints how long a page and a count take.
async fn list(store: &impl Store) {
    let inspectable = store.inspectable().expect("an SQL store lists");
    for (what, query) in [
        ("a first page", Query::new()),
        (
            "a first page of what is unknown",
            Query::new().state(StateKind::Unknown),
        ),
        (
            "a page by the digits in a log",
            Query::new().prefix("00ab".parse().expect("digits")),
        ),
    ] {
        let began = Instant::now();
        let page = inspectable.list(&query).await.expect("a page");
        let (found, more) = (page.entries.len(), page.next.is_some());
        println!(
            "{what}: {found} records, more: {more}, {:.1?}",
            began.elapsed()
        );
    }
    for max_scan in [10_000, 100_000] {
        let began = Instant::now();
        let stats = inspectable.stats(None, max_scan).await.expect("counts");
        println!(
            "counts of {max_scan} records: {} live, {:.1?}",
            stats.records(),
            began.elapsed()
        );
    }
}

/// The ratio of times at p99.
fn compare(usual: &[Duration], beside: &[Duration]) -> f64 {
    let p99 = at(usual, 0.99);
    let slow = |times: &[Duration]| {
        let slow = times.len() - times.partition_point(|time| *time <= 2 * p99);
        #[expect(clippy::cast_precision_loss, reason = "a share that is shown")]
        let share = 1000.0 * slow as f64 / times.len() as f64;
        share
    };
    let ratio = at(beside, 0.99).div_duration_f64(p99);
    println!(
        "longer than twice the usual p99: {:.2} in a thousand alone, {:.2} beside the purge",
        slow(usual),
        slow(beside)
    );
    println!("ratio of times at p99 {ratio:.2}");
    ratio
}

/// The times of the pairs that were sent during this future, and its output.
async fn window<S: Store + Clone, T>(
    store: &S,
    during: impl Future<Output = T>,
) -> (Vec<Duration>, T) {
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for place in 0..CLIENTS {
        let (mut client, over) = (StoreClient::new(store.clone()), Arc::clone(&over));
        clients.spawn(async move {
            let pace = Duration::from_secs(1) * CLIENTS / PAIRS_PER_SECOND;
            // Starts the clients at different moments.
            sleep(pace * place / CLIENTS).await;
            let (mut ticks, mut times) = (interval(pace), Vec::new());
            while !over.load(Ordering::Relaxed) {
                // A client that was delayed catches up, so that a slow store does not reduce the load.
                ticks.tick().await;
                let claim = claim(draw(1));
                let sent = Instant::now();
                client.pair(&claim).await;
                times.push(sent.elapsed());
            }
            times
        });
    }
    let output = during.await;
    over.store(true, Ordering::Relaxed);
    (clients.join_all().await.concat(), output)
}

/// Sorts and prints them.
fn report(when: &str, mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort_unstable();
    let millis = |share| at(&times, share).as_secs_f64() * 1000.0;
    println!(
        "{when}: {} pairs, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.2} ms",
        times.len(),
        millis(0.5),
        millis(0.99),
        millis(0.999),
        millis(1.0)
    );
    times
}

/// The time that this share of the sorted times does not exceed.
fn at(times: &[Duration], share: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a place in a list that fits in memory"
    )]
    let place = (times.len().saturating_sub(1) as f64 * share) as usize;
    times[place]
}
