//! The demo: an HTTP service to explore with `curl`.
//!
//! ```text
//! cargo run --example payments          listens on 127.0.0.1:8000 and prints what to try
//! bash examples/try.sh                  tries it
//! ```
//!
//! | request | what it shows |
//! |---|---|
//! | `POST /api/payments` | the usual case: duplicates wait for the first one's answer |
//! | `POST /api/orders` | duplicates get a conflict; an error of the handler is an outcome too |
//! | `PUT`, `PATCH`, `DELETE /api/orders/{id}` | any method can be idempotent by key |
//! | `POST /api/reports?bytes=N` | the key is required; responses of any size, `&stream=1` of unknown length |
//! | `DELETE /api/tokens/{token}` | a revoked token gets 401, and never a stored response |
//! | `GET /api/effects` | how often each handler really ran |
//! | `GET /health`, `GET /metrics` | whether the demo is up; metrics as Prometheus text |
//!
//! The request header `x-delay-ms: N` makes a handler sleep before its effect, a minute at most, and
//! `x-panic: 1` makes a payment panic after it; see [`knobs`]. The environment sets the rest, see [`settings`].
//!
//! Modules: `settings` reads the environment, `accounts` authenticates, `store` opens the store, `effects` counts and records effects, `knobs`
//! are the headers above, `routes` has the handlers, `metrics` the metrics. This file starts the service and shuts it
//! down.

use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
    panic,
    process::ExitCode,
    time::Duration,
};

use idempotent_runtime::{Idempotency, Shutdown};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan};

use self::{effects::Effects, settings::Settings};

// An example's file is the root of its crate, so the compiler would look for its modules beside it.
#[path = "payments/accounts.rs"]
mod accounts;
#[path = "payments/effects.rs"]
mod effects;
#[path = "payments/knobs.rs"]
mod knobs;
#[path = "payments/metrics.rs"]
mod metrics;
#[path = "payments/routes.rs"]
mod routes;
#[path = "payments/settings.rs"]
mod settings;
#[path = "payments/store.rs"]
mod store;

/// How long a shutdown waits for executions: the longest delay that a client may ask for, and a little more.
const DRAIN: Duration = knobs::LONGEST_DELAY.saturating_add(Duration::from_secs(10));

#[tokio::main]
async fn main() -> ExitCode {
    let (settings, effects) = match set_up() {
        Ok(chosen) => chosen,
        Err(error) => {
            eprintln!("payments: {error}");
            return ExitCode::from(2);
        }
    };
    log();
    match serve(&settings, effects).await {
        Ok(report) => {
            say(&format!(
                "bye: {} executions drained, {} unknown, {} unconfirmed",
                report.drained, report.unknown, report.unconfirmed
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("payments: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the environment and opens the ledger.
fn set_up() -> Result<(Settings, Effects), Box<dyn Error>> {
    let settings = Settings::from_env()?;
    let effects = Effects::new(settings.node.as_deref(), settings.ledger.as_deref())?;
    Ok((settings, effects))
}

/// Serves until a signal arrives, then drains.
async fn serve(settings: &Settings, effects: Effects) -> Result<Shutdown, Box<dyn Error>> {
    let metrics = metrics::route()?;
    // The environment's policy is the default for every option that a route does not set.
    let mut engine = Idempotency::builder().policy(settings.policy.clone());
    // Purges until it is dropped.
    let mut _purger = None;
    if let Some(url) = &settings.store {
        let (store, purger) = store::open(url, &settings.accept).await?;
        engine = engine.store(store);
        _purger = Some(purger);
    }
    let idempotency = engine.install()?;
    let app = routes::app(effects).merge(metrics);
    let listener = TcpListener::bind(("127.0.0.1", settings.port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{}: {error}", settings.port))?;
    // Before the address is printed, because a signal may follow at once.
    let mut signals = Signals::new()?;
    print_invitation(&format!("http://{}", listener.local_addr()?));

    let (close, closing) = oneshot::channel::<()>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async {
        let _closed = closing.await;
    });
    let server = tokio::spawn(serving.into_future());
    signals.next().await;
    drop(close);
    say("draining executions; a second signal ends the demo at once");
    tokio::select! {
        report = drain(server, &idempotency) => report,
        () = signals.next() => Err("ended by a second signal".into()),
    }
}

/// Ends the server, then the engine, within [`DRAIN`].
async fn drain(
    mut server: JoinHandle<io::Result<()>>,
    idempotency: &Idempotency,
) -> Result<Shutdown, Box<dyn Error>> {
    let deadline = Instant::now() + DRAIN;
    // The server first: it accepts no new connections and completes the responses under way. A client that does
    // not read its response must not keep the process alive, hence the deadline.
    let ended = timeout_at(deadline, &mut server).await;
    // Then the engine: a detached execution belongs to no connection, so the server does not wait for it.
    let left = deadline.saturating_duration_since(Instant::now());
    let report = idempotency.shutdown(left).await;
    match ended {
        Ok(joined) => joined??,
        Err(_too_slow) => server.abort(),
    }
    Ok(report)
}

/// The signals that ask the program to end: Ctrl-C and, on Unix, SIGTERM.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Catches signals from here on.
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "the same interface as on Unix")]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    #[expect(clippy::unused_self, reason = "the same interface as on Unix")]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Logs to standard error. `RUST_LOG=idempotent_runtime=info` adds a line for each idempotent request, with
/// its endpoint, attempt and outcome.
fn log() {
    let chosen = EnvFilter::try_from_default_env();
    let spans = match chosen {
        Ok(_) => FmtSpan::CLOSE,
        // By default no line per request, which would distort measurements.
        Err(_) => FmtSpan::NONE,
    };
    let filter =
        chosen.unwrap_or_else(|_| EnvFilter::new("warn,idempotent_runtime=info,payments=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(spans)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    // The demo panics on request: one line each, without a backtrace, is enough.
    panic::set_hook(Box::new(|panicked| tracing::error!("{panicked}")));
}

/// Prints the demo's address and what to try.
fn print_invitation(url: &str) {
    let try_it = include_str!("payments/invitation.txt").replace("{url}", url);
    say(try_it.trim_end());
}

/// Prints a line. A closed standard output is not an error.
fn say(line: &str) {
    let _unread = writeln!(io::stdout(), "{line}");
}
