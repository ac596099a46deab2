//! What each command does.

mod audit;
mod change;
mod list;
mod maintain;
mod resolve;
mod show;
mod stats;

use clap::CommandFactory as _;

use crate::{
    cli::{Cli, Command},
    failure::Failure,
    session::Session,
};

/// Runs the command.
pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let global = &cli.global;
    let command = match cli.command {
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "idempotent",
                &mut std::io::stdout(),
            );
            return Ok(());
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?;
            return Ok(());
        }
        Command::Migrate => return maintain::migrate(global).await,
        Command::Check => return maintain::check(global).await,
        command => command,
    };
    let session = Session::open(global, false).await?;
    match command {
        Command::Stats(stats) => stats::run(global, &session, &stats).await,
        Command::List(list) => list::run(global, &session, list).await,
        Command::Show(show) => show::run(global, &session, &show).await,
        Command::Resolve(resolve) => resolve::run(global, &session, resolve).await,
        Command::Release(release) => resolve::release(global, &session, &release).await,
        Command::Forget(forget) => change::forget(global, &session, &forget).await,
        Command::Purge(purge) => maintain::purge(global, &session, &purge).await,
        Command::Audit(audit) => audit::run(global, &session, &audit).await,
        Command::Completions { .. } | Command::Man | Command::Migrate | Command::Check => {
            unreachable!("answered above")
        }
    }
}
