//! The run time of a request with a million records in the store, compared with a thousand.
//!
//! First executions and replays of keys spread over the store, alternately on two engines. The small one is rebuilt for
//! each turn, because first executions make its store grow.

use std::time::Duration;

use axum::{Router, body::Bytes};
use idempotent_bench::{app, compare, measuring};
use tokio::runtime::Runtime;

const FEW: usize = 1_000;
const MANY: usize = 1_000_000;
const BATCH: u32 = 500;
const TURNS: usize = 101;
const MOST: f64 = 1.3;

fn main() {
    let (many, turns) = if measuring() {
        (MANY, TURNS)
    } else {
        (10 * FEW, 1)
    };
    let bench = Bench {
        runtime: tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("the runtime starts"),
        body: app::body(32),
    };
    let large = bench.filled(many);
    println!("{:18} {FEW:>9} {many:>11} records   ratio", "");
    for (name, kind) in [("first execution", Kind::First), ("replay", Kind::Replay)] {
        let pair = compare::in_turns(
            turns,
            BATCH,
            |turn| bench.batch(&bench.filled(FEW), FEW, kind, turn),
            |turn| bench.batch(&large, many, kind, turn),
        );
        println!(
            "{name:18} {:>6} ns {:>8} ns {:>15.2}",
            pair.base.as_nanos(),
            pair.other.as_nanos(),
            pair.ratio
        );
        assert!(!measuring() || pair.ratio <= MOST, "more than {MOST}");
    }
}

#[derive(Clone, Copy)]
enum Kind {
    First,
    Replay,
}

struct Bench {
    runtime: Runtime,
    body: Bytes,
}

impl Bench {
    /// A router whose engine has stored this many records.
    fn filled(&self, records: usize) -> Router {
        let router = app::router();
        self.runtime.block_on(async {
            for n in 0..records {
                let request = app::request(app::PAYMENTS, Some(&app::key("old", n)), &self.body);
                app::call(&router, request).await;
            }
        });
        router
    }

    fn batch(&self, router: &Router, records: usize, kind: Kind, turn: usize) -> Duration {
        let key = |n: usize| match kind {
            Kind::First => app::key(&format!("new-{turn}"), n),
            // A prime, so that the keys of a batch are far from each other and from those of the last one.
            Kind::Replay => app::key("old", (turn * BATCH as usize + n) * 7_919 % records),
        };
        let requests: Vec<_> = (0..BATCH as usize)
            .map(|n| app::request(app::PAYMENTS, Some(&key(n)), &self.body))
            .collect();
        compare::timed(|| {
            self.runtime.block_on(async {
                for request in requests {
                    assert!(app::call(router, request).await.0.is_success());
                }
            });
        })
    }
}
