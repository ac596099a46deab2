//! The demo: an HTTP service to explore with `curl`.
//!
//! ```text
//! cargo run --example payments          listens on 127.0.0.1:8000 and prints what to try
//! bash examples/try.sh                  tries it
//! ```
//!
//! | request | what it is there for |
//! |---|---|
//! | `POST /api/payments` | the usual case: duplicates wait for the first one's answer |
//! | `POST /api/orders` | duplicates are told to come back; an error of the handler is an outcome too |
//! | `PUT`, `PATCH`, `DELETE /api/orders/{id}` | any method can be idempotent by key |
//! | `POST /api/reports?bytes=N` | the key is required; responses of any size, `&stream=1` of unknown length |
//! | `GET /api/effects` | how often each handler really ran |
//! | `GET /health`, `GET /metrics` | alive; Prometheus text |
//!
//! The request header `x-delay-ms: N` makes a handler sleep before its effect, a minute at most, and
//! `x-panic: 1` makes a payment panic after it; see [`knobs`]. The environment sets the rest, see [`settings`].
//!
//! Its rooms: `settings` is what may be chosen, `effects` stands for the business, `knobs` for the trouble,
//! `routes` has the handlers, `metrics` is what they look like from outside. This file puts them together, and takes them apart again in good order.

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

// An example's file is the root of its crate, so the compiler would look for its rooms beside it.
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

/// How long a shutdown waits for what runs: the longest delay a client may ask for, and a little more.
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

/// What the environment chose, as long as it makes sense.
fn set_up() -> Result<(Settings, Effects), Box<dyn Error>> {
    let settings = Settings::from_env()?;
    let effects = Effects::new(settings.node.as_deref(), settings.ledger.as_deref())?;
    Ok((settings, effects))
}

/// Serves until a signal comes, then drains.
async fn serve(settings: &Settings, effects: Effects) -> Result<Shutdown, Box<dyn Error>> {
    // What routes do not choose for themselves, the environment does.
    let mut engine = Idempotency::builder().policy(settings.policy.clone());
    // Purges until it is dropped.
    let mut _purger = None;
    if let Some(url) = &settings.store {
        let (store, purger) = store::open(url, settings.weaker_durability).await?;
        engine = engine.store(store);
        _purger = Some(purger);
    }
    let idempotency = engine.build()?;
    let app = routes::app(effects, idempotency.clone()).merge(metrics::route()?);
    let listener = TcpListener::bind(("127.0.0.1", settings.port))
        .await
        .map_err(|error| format!("cannot listen on 127.0.0.1:{}: {error}", settings.port))?;
    // Before anybody knows that we are here, so that no signal finds us unprepared.
    let mut signals = Signals::new()?;
    invite(&format!("http://{}", listener.local_addr()?));

    let (close, closing) = oneshot::channel::<()>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async {
        let _closed = closing.await;
    });
    let server = tokio::spawn(serving.into_future());
    signals.next().await;
    drop(close);
    say("draining what runs; a second signal ends at once");
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
    // The server first: it takes no new connections and lets clients have their answers. One that does not
    // read its answer must not keep the process alive, hence the deadline.
    let ended = timeout_at(deadline, &mut server).await;
    // Then the engine: an execution whose client has gone is part of no connection, and the server does not
    // wait for it.
    let left = deadline.saturating_duration_since(Instant::now());
    let report = idempotency.shutdown(left).await;
    match ended {
        Ok(joined) => joined??,
        Err(_too_slow) => server.abort(),
    }
    Ok(report)
}

/// The signals that ask the program to end: Ctrl-C and, where there is such a thing, SIGTERM.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// From here on signals are noticed.
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
    #[expect(clippy::unnecessary_wraps, reason = "the same face as on Unix")]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    #[expect(clippy::unused_self, reason = "the same face as on Unix")]
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
        // Unasked, a line per request would only slow down who measures.
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
    // Panics are part of what there is to try: one line each, and no backtrace, will do.
    panic::set_hook(Box::new(|panicked| tracing::error!("{panicked}")));
}

/// Says where the demo is and what to do with it.
fn invite(url: &str) {
    let try_it = include_str!("payments/invitation.txt").replace("{url}", url);
    say(try_it.trim_end());
}

/// Prints a line. That nobody reads it is no reason to end.
fn say(line: &str) {
    let _unread = writeln!(io::stdout(), "{line}");
}
