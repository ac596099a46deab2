//! Ways to run a scenario and to wait in it, all bounded in real time.

use std::{
    future::Future,
    panic::Location,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime::Builder, task::yield_now, time};

use super::Adapter;

/// After this long a scenario counts as hung. Generous: a loaded machine is slow, and a hang never ends.
const SCENARIO_BOUND: Duration = Duration::from_secs(240);

/// After this long an event that must happen counts as missing.
const EVENT_BOUND: Duration = Duration::from_secs(30);

/// Runs a scenario on one thread, under tokio's paused clock: it moves when the scenario moves it, or when every task
/// sleeps.
pub(crate) fn with_paused_clock(scenario: impl Future<Output = ()>) {
    let _watchdog = Watchdog::start();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(scenario);
}

/// Runs a scenario [`with_paused_clock`], once with the attribute and once with the layer.
pub(crate) fn with_each_adapter(scenario: impl AsyncFn(Adapter)) {
    for adapter in [Adapter::Attribute, Adapter::Layer] {
        with_paused_clock(scenario(adapter));
    }
}

/// Runs a scenario on two threads, in real time.
pub(crate) fn in_real_time(scenario: impl Future<Output = ()>) {
    let _watchdog = Watchdog::start();
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(scenario);
    runtime.shutdown_background();
}

/// Runs all tasks that are ready, without moving the clock.
///
/// Exact under [`with_paused_clock`] only: there all tasks share one thread, and no chain of wake-ups is as long as the
/// number of turns.
pub(crate) async fn run_ready_tasks() {
    for _ in 0..64 {
        yield_now().await;
    }
}

/// Moves the paused clock, in steps small enough for heartbeats.
pub(crate) async fn advance(duration: Duration) {
    let mut left = duration;
    while !left.is_zero() {
        let step = left.min(Duration::from_secs(1));
        time::advance(step).await;
        run_ready_tasks().await;
        left -= step;
    }
}

/// Waits in real time until this has happened.
#[track_caller]
pub(crate) fn wait_until(mut happened: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let (caller, since) = (Location::caller(), Instant::now());
    async move {
        while !happened() {
            assert!(
                since.elapsed() < EVENT_BOUND,
                "{caller}: not within {EVENT_BOUND:?}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Waits for a random time of at most this many microseconds, to vary the moment of what follows. No test may depend on
/// its length.
pub(crate) async fn random_pause(most: u64) {
    let micros = rand::random_range(0..=most);
    // A timer would round short pauses to the same millisecond, so they are spun.
    if micros < 1500 {
        let end = Instant::now() + Duration::from_micros(micros);
        while Instant::now() < end {
            yield_now().await;
        }
    } else {
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

/// Ends the process when a scenario hangs, because the test runner would wait without end.
struct Watchdog(#[expect(dead_code, reason = "its drop is the signal")] mpsc::Sender<()>);

impl Watchdog {
    fn start() -> Self {
        let name = thread::current().name().unwrap_or("a scenario").to_owned();
        let (alive, ended) = mpsc::channel::<()>();
        thread::spawn(move || {
            if ended.recv_timeout(SCENARIO_BOUND) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{name} hangs: it did not end within {SCENARIO_BOUND:?}");
                std::process::abort();
            }
        });
        Self(alive)
    }
}
