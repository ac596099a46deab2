//! Two ways to run a scenario, both bounded in real time.

use std::{
    future::Future,
    panic::Location,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime::Builder, task::yield_now, time};

use super::Adapter;

/// After this a scenario hangs. Generous, because a loaded machine is slow and a hang is for ever.
const HANGS: Duration = Duration::from_secs(240);

/// After this what was bound to happen does not.
const LATE: Duration = Duration::from_secs(30);

/// Runs a scenario on one thread, under a clock that stands still unless the scenario moves it or everybody
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

/// Runs a scenario as [`with_paused_clock`], once through the attribute and once through the layer.
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

/// Lets all that can run, run, without moving the clock.
pub(crate) async fn run_ready_tasks() {
    for _ in 0..64 {
        yield_now().await;
    }
}

/// Moves the clock on, in steps small enough for heartbeats.
pub(crate) async fn advance(duration: Duration) {
    let mut left = duration;
    while !left.is_zero() {
        let step = left.min(Duration::from_secs(1));
        time::advance(step).await;
        run_ready_tasks().await;
        left -= step;
    }
}

/// Waits until something that is bound to happen has happened, in real time.
#[track_caller]
pub(crate) fn wait_until(mut happened: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let (caller, since) = (Location::caller(), Instant::now());
    async move {
        while !happened() {
            assert!(since.elapsed() < LATE, "{caller}: it did not happen");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A random moment of up to so many microseconds.
pub(crate) async fn random_pause(most: u64) {
    let micros = rand::random_range(0..=most);
    // Short ones are spun: a timer would round them all to the same millisecond.
    if micros < 1500 {
        let end = Instant::now() + Duration::from_micros(micros);
        while Instant::now() < end {
            yield_now().await;
        }
    } else {
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

/// Ends the process when a scenario hangs: a test runner would wait for it without end.
struct Watchdog(#[expect(dead_code, reason = "its drop is the signal")] mpsc::Sender<()>);

impl Watchdog {
    fn start() -> Self {
        let name = thread::current().name().unwrap_or("a scenario").to_owned();
        let (alive, ended) = mpsc::channel::<()>();
        thread::spawn(move || {
            if ended.recv_timeout(HANGS) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{name} hangs: it did not end within {HANGS:?}");
                std::process::abort();
            }
        });
        Self(alive)
    }
}
