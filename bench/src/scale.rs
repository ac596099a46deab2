//! The run time of a request with a million records in the store, compared with a thousand.
//!
//! Each size has a process of its own, because two stores in one process share a heap: what the records of one do to the
//! allocator would slow the other as well. The processes take turns, and the result is the median over the turns of the
//! ratio within a turn. First executions and replays use keys spread over the store.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use axum::{Router, body::Bytes};
use tokio::runtime::Runtime;

use crate::{app, compare, measuring};

const FEW: usize = 1_000;
const MANY: usize = 1_000_000;
const TURNS: usize = 9;
/// Requests in a batch, and batches in a process: together so few that a store of a thousand records stays small.
const BATCH: u32 = 100;
const BATCHES: usize = 11;
/// The most that a first execution and a replay may cost with a million records.
const MOST: [(Kind, f64); 2] = [(Kind::First, 1.15), (Kind::Replay, 1.5)];

/// Compares both kinds of request, or measures one of them if this is a process that the comparison started. `allocator`
/// is the name of the one that the program has.
///
/// # Panics
///
/// If a ratio is above its limit.
pub fn run(allocator: &str) {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, child, kind, records] = &arguments[..]
        && child == "child"
    {
        let records = records.parse().expect("a number of records");
        let time = Bench::new(records).measure(Kind::named(kind));
        println!("{}", time.as_nanos());
        return;
    }
    let (many, turns) = if measuring() {
        (MANY, TURNS)
    } else {
        (10 * FEW, 1)
    };
    println!("{allocator:18} {FEW:>9} {many:>11} records   ratio");
    for (kind, most) in MOST {
        let pair = compare::in_turns(
            turns,
            BATCH,
            |_| in_a_process(kind, FEW),
            |_| in_a_process(kind, many),
        );
        println!(
            "{:18} {:>6} ns {:>8} ns {:>15.2}",
            kind.name(),
            pair.base.as_nanos(),
            pair.other.as_nanos(),
            pair.ratio
        );
        assert!(!measuring() || pair.ratio <= most, "more than {most}");
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    First,
    Replay,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::First => "first execution",
            Self::Replay => "replay",
        }
    }

    fn named(name: &str) -> Self {
        let mut kinds = [Self::First, Self::Replay].into_iter();
        kinds
            .find(|kind| kind.name() == name)
            .expect("the name of a kind")
    }
}

/// The time of a batch, measured in a new process of this program.
fn in_a_process(kind: Kind, records: usize) -> Duration {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program)
        .args(["child", kind.name(), &records.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("this program can be started");
    assert!(output.status.success(), "the process failed");
    let text = String::from_utf8(output.stdout).expect("it prints a number");
    let nanoseconds = text.trim().parse().expect("it prints a number");
    Duration::from_nanos(nanoseconds)
}

struct Bench {
    runtime: Runtime,
    router: Router,
    body: Bytes,
    records: usize,
}

impl Bench {
    /// A router whose engine has stored this many records.
    fn new(records: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("the runtime starts");
        let bench = Self {
            runtime,
            router: app::router(),
            body: app::body(32),
            records,
        };
        bench.runtime.block_on(async {
            for n in 0..records {
                bench.send(&app::key("old", n)).await;
            }
        });
        bench
    }

    /// The median time of a batch.
    fn measure(&self, kind: Kind) -> Duration {
        let mut times: Vec<_> = (0..BATCHES).map(|turn| self.batch(kind, turn)).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    fn batch(&self, kind: Kind, turn: usize) -> Duration {
        let key = |n: usize| match kind {
            Kind::First => app::key(&format!("new-{turn}"), n),
            // A prime, so that the keys of a batch are far from each other and from those of the last one.
            Kind::Replay => app::key("old", (turn * BATCH as usize + n) * 7_919 % self.records),
        };
        let requests: Vec<_> = (0..BATCH as usize)
            .map(|n| app::request(app::PAYMENTS, Some(&key(n)), &self.body))
            .collect();
        compare::timed(|| {
            self.runtime.block_on(async {
                for request in requests {
                    assert!(app::call(&self.router, request).await.0.is_success());
                }
            });
        })
    }

    async fn send(&self, key: &str) {
        let request = app::request(app::PAYMENTS, Some(key), &self.body);
        assert!(app::call(&self.router, request).await.0.is_success());
    }
}
