//! `idempotent`: looks at the records of a service, and resolves those whose outcome is unknown.
//!
//! [`cli`] is what can be asked, [`session`] opens the store, [`commands`] answers, [`view`] is what is shown of a record,
//! and [`output`] prints it. [`failure`] names each exit code.

mod ask;
mod cli;
mod commands;
mod failure;
mod output;
mod session;
mod view;

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;

use cli::Cli;

fn main() -> ExitCode {
    log_to_stderr();
    // Exits with 2 if the arguments make no sense, and with 0 after `--help`.
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(cli)),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.code()
        }
    }
}

/// Warnings of the store, as of weaker durability; more by `RUST_LOG`.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing_subscriber::filter::LevelFilter::WARN.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .init();
}
