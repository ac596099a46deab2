//! Throughput, processor time and latency of requests on one core and on more, up to all.
//!
//! Each thread has a runtime and a router of its own, as a server with a listener per core has. They share one engine and
//! its store, so what their requests cost more than on one thread is what they contend for. The bare handler shows what
//! the machine itself adds. On a machine with other load compare processor time, which does not count the time that a
//! thread waited for a core; the throughput and the tail of the latencies do. A thread that sleeps on a lock shows in them
//! alone.

use std::{
    iter,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use axum::extract::Request;
use idempotent_bench::{app, measuring};
use idempotent_runtime::Idempotency;
use rustix::time::{ClockId, clock_gettime};

/// Requests of a sample, however many threads share them: the store grows alike.
const REQUESTS: usize = 20_000;
/// Records that replays are spread over.
const RECORDS: usize = 1_000;
const TURNS: usize = 15;

fn main() {
    let (turns, requests) = if measuring() {
        (TURNS, REQUESTS)
    } else {
        (1, RECORDS)
    };
    let all = thread::available_parallelism().map_or(1, usize::from);
    let counts: Vec<_> = doubling_up_to(all).collect();
    println!(
        "                 threads      req/s  to one   processor  to one      mean       p50       p99     p99.9"
    );
    for kind in [Kind::Bare, Kind::First, Kind::Replay] {
        Sample::take(kind, 1, requests); // the first allocations of a process are not its usual ones
        let mut series: Vec<Vec<Sample>> = counts.iter().map(|_| Vec::new()).collect();
        for turn in 0..turns {
            for at in 0..counts.len() {
                // Each turn starts with another count, so that none has an advantage from its place.
                let at = (turn + at) % counts.len();
                series[at].push(Sample::take(kind, counts[at], requests));
            }
        }
        for (threads, samples) in counts.iter().zip(&series) {
            report(kind, *threads, samples, &series[0]);
        }
    }
}

/// 1, 2, 4 and so on, and last this number itself.
fn doubling_up_to(all: usize) -> impl Iterator<Item = usize> {
    iter::successors(Some(1), move |&threads| {
        (threads < all).then(|| all.min(threads * 2))
    })
}

/// Prints the medians of the samples, and of their ratios to the samples with one thread of the same turns.
fn report(kind: Kind, threads: usize, samples: &[Sample], one: &[Sample]) {
    let pairs = || samples.iter().zip(one);
    let mut latencies: Vec<_> = samples.iter().flat_map(|s| &s.latencies).copied().collect();
    latencies.sort_unstable();
    let mean = latencies
        .iter()
        .sum::<Duration>()
        .div_duration_f64(MICROSECOND)
        / count(&latencies);
    println!(
        "{:16} {threads:>7} {:>10.0} {:>7.2} {:>8.2} us {:>7.2} {mean:>6.2} us {:>6.2} us {:>6.2} us {:>6.2} us",
        kind.name(),
        median(samples.iter().map(Sample::per_second)),
        median(pairs().map(|(this, one)| this.per_second() / one.per_second())),
        median(samples.iter().map(Sample::processor_each)),
        median(pairs().map(|(this, one)| this.processor_each() / one.processor_each())),
        percentile(&latencies, 0.5),
        percentile(&latencies, 0.99),
        percentile(&latencies, 0.999),
    );
}

#[derive(Clone, Copy)]
enum Kind {
    Bare,
    First,
    Replay,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::First => "first execution",
            Self::Replay => "replay",
        }
    }

    /// The requests of one thread.
    fn requests(self, thread: usize, count: usize) -> Vec<Request> {
        let body = app::body(32);
        let request = |n| match self {
            Self::Bare => app::request(app::BARE, Some(&app::key("bare", n)), &body),
            Self::First => {
                let key = app::key(&format!("new-{thread}"), n);
                app::request(app::PAYMENTS, Some(&key), &body)
            }
            // Threads start at places of their own, since all at one record is another question.
            Self::Replay => {
                let key = app::key("old", (n + thread * 97) % RECORDS);
                app::request(app::PAYMENTS, Some(&key), &body)
            }
        };
        (0..count).map(request).collect()
    }
}

/// What one thread measured.
struct Share {
    started: Instant,
    ended: Instant,
    processor: Duration,
    latencies: Vec<Duration>,
}

impl Share {
    fn take(engine: Idempotency, requests: Vec<Request>, start: &Barrier) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("the runtime starts");
        let router = app::router_on(engine);
        let mut latencies = Vec::with_capacity(requests.len());
        start.wait();
        let (started, processor) = (Instant::now(), processor_time());
        let ended = runtime.block_on(async {
            let mut ended = started;
            for request in requests {
                assert!(app::call(&router, request).await.0.is_success());
                let now = Instant::now();
                latencies.push(now - ended);
                ended = now;
            }
            ended
        });
        Self {
            started,
            ended,
            processor: processor_time().saturating_sub(processor),
            latencies,
        }
    }
}

/// What all threads measured at once.
struct Sample {
    wall: Duration,
    processor: Duration,
    latencies: Vec<Duration>,
}

impl Sample {
    /// A new engine's, with records for the replays.
    fn take(kind: Kind, threads: usize, requests: usize) -> Self {
        let engine = app::engine();
        if let Kind::Replay = kind {
            let records = kind.requests(0, RECORDS);
            Share::take(engine.clone(), records, &Barrier::new(1));
        }
        let start = Barrier::new(threads);
        let shares: Vec<_> = thread::scope(|scope| {
            let spawned: Vec<_> = (0..threads)
                .map(|thread| {
                    let (engine, start) = (engine.clone(), &start);
                    let requests = kind.requests(thread, requests / threads);
                    scope.spawn(move || Share::take(engine, requests, start))
                })
                .collect();
            spawned
                .into_iter()
                .map(|thread| thread.join().expect("every request succeeds"))
                .collect()
        });
        let started = shares.iter().map(|share| share.started).min();
        let ended = shares.iter().map(|share| share.ended).max();
        Self {
            wall: ended
                .zip(started)
                .map_or(Duration::ZERO, |(ended, started)| ended - started),
            processor: shares.iter().map(|share| share.processor).sum(),
            latencies: shares
                .into_iter()
                .flat_map(|share| share.latencies)
                .collect(),
        }
    }

    fn per_second(&self) -> f64 {
        count(&self.latencies) / self.wall.as_secs_f64()
    }

    /// Microseconds of processor time a request.
    fn processor_each(&self) -> f64 {
        self.processor.div_duration_f64(MICROSECOND) / count(&self.latencies)
    }
}

const MICROSECOND: Duration = Duration::from_micros(1);

/// The processor time that this thread has used.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a processor time is not negative")
}

/// How many, as what is divided by.
fn count(latencies: &[Duration]) -> f64 {
    f64::from(u32::try_from(latencies.len()).expect("a sample is smaller"))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The microseconds that this part of the sorted latencies does not exceed.
fn percentile(sorted: &[Duration], part: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in the list"
    )]
    let at = (count(sorted) * part) as usize;
    sorted[at.min(sorted.len() - 1)].div_duration_f64(MICROSECOND)
}
