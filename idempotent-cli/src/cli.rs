//! The command line: what can be asked, and how it is written. The comments of options are their help: plain text.
#![expect(
    clippy::doc_markdown,
    reason = "people read these comments in a terminal"
)]

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use http::{HeaderName, HeaderValue, StatusCode};
use idempotent_runtime::store::{
    Weakness,
    inspect::{KeyPrefix, StateKind},
};

/// Looks at the idempotency records of a service, and resolves those whose outcome is unknown.
///
/// Reads only, unless `--allow-writes` is given. A live lease is never released.
#[derive(Debug, Parser)]
#[command(name = "idempotent", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 the store or something else failed, 2 wrong usage, 3 no such record, 4 refused, 5 partly done.";

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The URL of the store, as the service has it: redis://…, postgres://…, mysql://…, sqlite://path/to/file.db
    #[arg(
        long,
        env = "IDEMPOTENT_STORE",
        value_name = "URL",
        hide_env_values = true,
        global = true
    )]
    pub(crate) store: Option<String>,
    /// How to print: a table for people, or a form for programs
    #[arg(short, long, value_enum, default_value_t = Format::Table, global = true)]
    pub(crate) output: Format,
    /// Permit commands that change the store
    #[arg(long, global = true)]
    pub(crate) allow_writes: bool,
    /// Who is at work, for the audit. Default: the user of the system
    #[arg(long, env = "IDEMPOTENT_ACTOR", value_name = "NAME", global = true)]
    pub(crate) actor: Option<String>,
    /// A weakness of the server that the service accepts too, as a refusal names it: FsyncOff, for example
    #[arg(
        long,
        env = "IDEMPOTENT_ACCEPT",
        value_name = "WEAKNESS",
        value_delimiter = ',',
        global = true
    )]
    pub(crate) accept: Vec<Weakness>,
    /// Accept a server that does not report how durable it is
    #[arg(long, global = true)]
    pub(crate) accept_unverified: bool,
}

impl Global {
    /// Who is at work.
    pub(crate) fn actor(&self) -> String {
        let named = self.actor.clone().filter(|name| !name.trim().is_empty());
        named
            .or_else(|| std::env::var("USER").ok())
            .unwrap_or_else(|| "unknown user".into())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns
    Table,
    /// One JSON document
    Json,
    /// One JSON object a line
    Jsonl,
    /// Comma-separated values with a heading (RFC 4180)
    Csv,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Count the records by state
    Stats(Stats),
    /// List records: unknown ones oldest first, all others in the order of the store
    List(List),
    /// Show one record
    Show(Show),
    /// Resolve a record whose outcome is unknown: store its response, or let the next retry execute
    Resolve(Resolve),
    /// Let the next retry of an unknown record execute: `resolve --not-executed`
    Release(Release),
    /// Delete a completed record, so that its key executes again
    Forget(Forget),
    /// Delete expired records
    Purge(Purge),
    /// Show who resolved, revealed and deleted what
    Audit(Audit),
    /// Create the tables of the store, or bring them up to date
    Migrate,
    /// Ask the server for its durability and its settings, as a service does at start
    Check,
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Look at no more records than this, and estimate the rest
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) max_scan: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Filters {
    /// Records in this state only
    #[arg(long, value_enum)]
    pub(crate) state: Option<State>,
    /// Records of this endpoint only, as logs name it: `POST /payments`
    #[arg(long, value_name = "E")]
    pub(crate) endpoint: Option<String>,
    /// Records only that were created at least this long ago: 10m, 2h, 3days
    #[arg(long, value_name = "AGE", value_parser = duration)]
    pub(crate) older_than: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// List no more than this
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
    /// Go on where the list before ended
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<String>,
    /// Look at no more records than this
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_scan: u64,
}

/// Which record: by its ID, or by what the client sent.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The ID, or the beginning of it as logs print it: at least four digits
    #[arg(required_unless_present = "endpoint", conflicts_with = "endpoint")]
    pub(crate) id: Option<KeyPrefix>,
    /// The endpoint of the key: the name of the route's policy, or `POST /orders/{id}`
    #[arg(long, requires = "key_stdin", value_name = "E")]
    pub(crate) endpoint: Option<String>,
    /// The scope of the key, where the service has one
    #[arg(long, requires = "endpoint", value_name = "SCOPE")]
    pub(crate) caller: Option<String>,
    /// Read the client's key from the standard input. The service's secret is in IDEMPOTENT_SECRET, if it has one
    #[arg(long, requires = "endpoint")]
    pub(crate) key_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Reveal the stored response, which is written into the audit: needs --allow-writes, --reason and, where
    /// responses are encrypted, IDEMPOTENT_KEYRING
    #[arg(long, requires = "reason")]
    pub(crate) body: bool,
    /// Why the response is revealed
    #[arg(long, value_name = "TEXT", requires = "body")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("target").required(true).args(["id", "all"]))]
#[command(group = clap::ArgGroup::new("outcome").required(true).args(["not_executed", "status"]))]
pub(crate) struct Resolve {
    /// The whole ID
    pub(crate) id: Option<KeyPrefix>,
    /// All unknown records that the filters name
    #[arg(long, requires = "max")]
    pub(crate) all: bool,
    /// Nothing was executed: the next retry executes
    #[arg(long)]
    pub(crate) not_executed: bool,
    /// The status of the response that retries get from now on
    #[arg(long, value_name = "STATUS", requires = "body_file")]
    pub(crate) status: Option<StatusCode>,
    /// A header of that response: `Name: value`
    #[arg(long = "header", value_name = "HEADER", value_parser = header, requires = "status")]
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The body of that response: a file, or `-` for the standard input
    #[arg(long, value_name = "FILE", requires = "status")]
    pub(crate) body_file: Option<PathBuf>,
    /// How long the response is kept
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub(crate) ttl: Duration,
    #[command(flatten)]
    pub(crate) consent: Consent,
    /// With --all: records of this endpoint only
    #[arg(long, value_name = "E", requires = "all")]
    pub(crate) endpoint: Option<String>,
    /// With --all: records only that were created at least this long ago
    #[arg(long, value_name = "AGE", value_parser = duration, requires = "all")]
    pub(crate) older_than: Option<Duration>,
    /// With --all: refuse if there are more than this
    #[arg(long, value_name = "N", requires = "all")]
    pub(crate) max: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Release {
    /// The whole ID
    pub(crate) id: KeyPrefix,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// The whole ID
    pub(crate) id: KeyPrefix,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

/// What every change asks for.
#[derive(Clone, Debug, Args)]
pub(crate) struct Consent {
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Purge {
    /// Delete no more than this
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Show no more than this, the newest first
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    InFlight,
    Unknown,
    Completed,
    Tombstone,
}

impl From<State> for StateKind {
    fn from(state: State) -> Self {
        match state {
            State::InFlight => Self::InFlight,
            State::Unknown => Self::Unknown,
            State::Completed => Self::Completed,
            State::Tombstone => Self::Tombstone,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 10m, 2h or 3days"))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| "there is no `:` behind the name; write `Name: value`".to_owned())?;
    let name = name.trim().parse::<HeaderName>();
    let value = HeaderValue::from_str(value.trim());
    Ok((
        name.map_err(|error| error.to_string())?,
        value.map_err(|error| error.to_string())?,
    ))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn headers_are_read_as_they_are_written() {
        let (name, value) = header("Content-Type: application/json").unwrap();
        assert_eq!(
            (name.as_str(), value.to_str().unwrap()),
            ("content-type", "application/json")
        );
        assert!(
            header("Content-Type application/json")
                .unwrap_err()
                .contains("Name: value")
        );
        assert!(header("Bad Name: x").is_err());
        assert!(header("X-Line: a\nb").is_err());
    }
}
