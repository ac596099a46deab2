//! Run time of each path through the router's `oneshot`, and its ratio to the handler without the attribute.
//!
//! Divan measures each path by itself. The table at the end compares each path with the bare handler, in alternating
//! batches. One `block_on` runs a batch; its requests are built beforehand, and dropping the responses is included.

use std::cell::Cell;

use axum::{Router, body::Bytes, extract::Request, http::StatusCode};
use divan::Bencher;
use idempotent_bench::{app, compare, measuring};
use tokio::runtime::Runtime;

const SIZES: [usize; 2] = [32, 1024];

/// Requests in a batch, and pairs of batches.
const BATCH: u32 = 250;
const TURNS: usize = 201;

fn main() {
    divan::main();
    let turns = if measuring() { TURNS } else { 1 };
    for size in SIZES {
        println!("\n{size}-byte JSON body     bare      this   difference   ratio");
        for path in Path::ALL {
            path.report(size, turns);
        }
    }
}

/// The paths that a request can take.
#[derive(Clone, Copy)]
enum Path {
    Bare,
    /// The bare handler behind the layer that gives annotated handlers their engine.
    Layered,
    /// Compared with the bare handler behind that layer: the difference is the attribute's own.
    WithoutKey,
    FirstExecution,
    Replay,
    Mismatch,
    /// An execution and a duplicate that waits for it, compared with two concurrent bare requests.
    ReplayAfterWait,
}

impl Path {
    const ALL: [Self; 7] = [
        Self::Bare,
        Self::Layered,
        Self::WithoutKey,
        Self::FirstExecution,
        Self::Replay,
        Self::Mismatch,
        Self::ReplayAfterWait,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare, against itself",
            Self::Layered => "bare, behind layer",
            Self::WithoutKey => "without a key, layered",
            Self::FirstExecution => "first execution",
            Self::Replay => "replay",
            Self::Mismatch => "mismatch",
            Self::ReplayAfterWait => "execution + waiter",
        }
    }

    fn report(self, size: usize, turns: usize) {
        let bench = Bench::new(size);
        let pair = match self {
            Self::ReplayAfterWait => compare::in_turns(
                turns,
                BATCH,
                |_| bench.at_once(|_| app::request(app::BARE_YIELDING, None, &bench.body)),
                |turn| bench.at_once(|n| bench.keyed(app::YIELDING, turn, n)),
            ),
            path => compare::in_turns(
                turns,
                BATCH,
                |_| bench.in_sequence(StatusCode::CREATED, |_| bench.bare(path.base())),
                |turn| bench.in_sequence(path.status(), |n| path.request(&bench, turn, n)),
            ),
        };
        println!(
            "{:22} {:>6} {:>9} {:>9} ns {:>7.2}",
            self.name(),
            nanos(pair.base),
            nanos(pair.other),
            nanos(pair.other).cast_signed() - nanos(pair.base).cast_signed(),
            pair.ratio
        );
    }

    fn request(self, bench: &Bench, turn: usize, n: usize) -> Request {
        match self {
            Self::Bare => bench.bare(app::BARE),
            Self::Layered => bench.bare(app::BARE_LAYERED),
            Self::WithoutKey => app::request(app::PAYMENTS, None, &bench.body),
            Self::FirstExecution | Self::ReplayAfterWait => bench.keyed(app::PAYMENTS, turn, n),
            Self::Replay => app::request(app::PAYMENTS, Some(KNOWN), &bench.body),
            Self::Mismatch => app::request(app::PAYMENTS, Some(KNOWN), &bench.other),
        }
    }

    /// The path that it is compared with.
    fn base(self) -> &'static str {
        match self {
            Self::WithoutKey => app::BARE_LAYERED,
            _ => app::BARE,
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Mismatch => StatusCode::CONFLICT,
            _ => StatusCode::CREATED,
        }
    }
}

/// A key whose request is executed before the measurement.
const KNOWN: &str = "8e03978e-40d5-43e8-bc93-6894a57f9324";

struct Bench {
    runtime: Runtime,
    router: Router,
    body: Bytes,
    /// Another body of about the same size.
    other: Bytes,
}

impl Bench {
    fn new(size: usize) -> Self {
        let bench = Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("the runtime starts"),
            router: app::router(),
            body: app::body(size),
            other: app::body(size + 1),
        };
        bench.call(app::request(app::PAYMENTS, Some(KNOWN), &bench.body));
        bench
    }

    fn bare(&self, path: &str) -> Request {
        app::request(path, None, &self.body)
    }

    fn keyed(&self, path: &str, turn: usize, n: usize) -> Request {
        app::request(path, Some(&app::key(&turn.to_string(), n)), &self.body)
    }

    fn call(&self, request: Request) -> StatusCode {
        self.runtime.block_on(app::call(&self.router, request)).0
    }

    /// One batch of sequential requests.
    fn in_sequence(
        &self,
        status: StatusCode,
        request: impl Fn(usize) -> Request,
    ) -> std::time::Duration {
        let requests: Vec<_> = (0..BATCH as usize).map(request).collect();
        compare::timed(|| {
            self.runtime.block_on(async {
                for request in requests {
                    assert_eq!(app::call(&self.router, request).await.0, status);
                }
            });
        })
    }

    /// One batch of pairs of equal, concurrent requests.
    fn at_once(&self, request: impl Fn(usize) -> Request) -> std::time::Duration {
        let twice = |n| (request(n), request(n));
        let pairs: Vec<_> = (0..BATCH as usize).map(twice).collect();
        compare::timed(|| {
            self.runtime.block_on(async {
                for (one, two) in pairs {
                    let answers =
                        tokio::join!(app::call(&self.router, one), app::call(&self.router, two));
                    assert_eq!(answers.0.0, StatusCode::CREATED);
                    assert_eq!(answers.0, answers.1);
                }
            });
        })
    }

    /// Divan's measurement: one `block_on` for each request.
    fn measure(&self, bencher: Bencher, path: Path) {
        let number = Cell::new(0);
        bencher
            .with_inputs(|| path.request(self, 0, number.replace(number.get() + 1)))
            .bench_local_values(|request| self.call(request));
    }
}

macro_rules! paths {
    ($($name:ident: $path:ident;)*) => {$(
        #[divan::bench(args = SIZES)]
        fn $name(bencher: Bencher, size: usize) {
            Bench::new(size).measure(bencher, Path::$path);
        }
    )*};
}

paths! {
    bare: Bare;
    without_key: WithoutKey;
    first_execution: FirstExecution;
    replay: Replay;
    mismatch: Mismatch;
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
