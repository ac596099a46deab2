//! Crash torture: several processes of an example on one store are killed at random while clients retry.
//!
//! ```text
//! cargo run -p idempotent-tests --bin torture -- --store redis --kill-store --seconds 60 --seed 7
//! cargo run -p idempotent-tests --bin torture -- --store postgres --kill-store
//! cargo run -p idempotent-tests --bin torture -- --store mariadb --kill-store
//! cargo run -p idempotent-tests --bin torture -- --store sqlite
//! cargo run -p idempotent-tests --bin torture -- --app transfer --lose-replies --store postgres --kill-store
//! ```
//!
//! `payments` has a ledger of its effects outside of the store, and is executed at most once. `transfer` writes its rows in
//! the transaction that completes the record: every retry ends with an outcome, no rows are without a record and no record
//! without rows, and the accounts hold together what they began with.
//!
//! | option | default | |
//! |---|---|---|
//! | `--store` | `redis` | `redis`, `postgres` and `mariadb` start a private durable server, `redis-weak` one without persistence, `mariadb-weak` one without a binary log; `sqlite` makes a file that the processes share; anything else is the URL of a store |
//! | `--app` | `payments` | the example: `payments`, or `transfer` on an SQL store |
//! | `--lose-replies` | no | loses a reply of the server every 20 to 200 ms, with its connection, and one of 16 replies to clients |
//! | `--kill-store` | no | also kills that server with SIGKILL and restarts it |
//! | `--seconds` | 60 | how long processes are killed |
//! | `--seed` | from the clock | decides what is killed when, and which client asks which process |
//! | `--nodes` | 4 | number of processes |
//! | `--demo` | built first | the path of a built example, such as one with optimisations |
//! | `--clients` | 16 | number of clients; two of them share each key |
//!
//! Without a binary log, MariaDB shows a commit to other sessions before it is on disk. `mariadb-weak` sometimes finds
//! the consequence: an outcome that was replayed, and is unknown after the next kill.
//!
//! The exit code is 0 if no key was executed twice or torn, no acknowledged outcome was lost and no two answers differed, 1
//! if that happened, and 2 if the run could not start.

use std::{
    fs,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use self::{app::App, run::Plan, stores::StoreKind};

mod app;
mod client;
mod ledger;
mod nodes;
#[path = "../support/proxy.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod proxy;
mod random;
mod run;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
mod stores;
mod transfers;

fn main() -> ExitCode {
    let plan = match parse(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("torture: {error}");
            return ExitCode::from(2);
        }
    };
    println!("seed {}", plan.seed);
    match run::run(&plan) {
        None => ExitCode::from(2),
        Some(report) => {
            println!("{report}");
            if report.is_clean() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Plan, String> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut plan = Plan {
        app: App::Payments,
        store: StoreKind::Redis,
        kill_store: false,
        lose_replies: false,
        time: Duration::from_secs(60),
        seed: u64::from(now.subsec_nanos()),
        nodes: 4,
        clients: 16,
        demo: None,
    };
    while let Some(option) = arguments.next() {
        match option.as_str() {
            "--kill-store" => plan.kill_store = true,
            "--lose-replies" => plan.lose_replies = true,
            _ => set(&mut plan, &option, arguments.next())?,
        }
    }
    if plan.kill_store && !plan.store.can_be_killed() {
        return Err(
            "--kill-store kills a server that was started here: --store redis, redis-weak, postgres, mariadb or \
             mariadb-weak"
                .into(),
        );
    }
    if plan.app == App::Transfers && !plan.store.is_sql() {
        return Err(
            "--app transfer needs an SQL store: --store postgres, mariadb or sqlite".into(),
        );
    }
    Ok(plan)
}

/// Sets an option that has a value.
fn set(plan: &mut Plan, option: &str, value: Option<String>) -> Result<(), String> {
    let value = value.ok_or_else(|| format!("{option} needs a value"))?;
    let number = || {
        value
            .parse()
            .map_err(|_| format!("{option}: {value:?} is not a number"))
    };
    match option {
        "--app" => {
            plan.app = match &*value {
                "payments" => App::Payments,
                "transfer" => App::Transfers,
                _ => return Err(format!("--app {value}: expected payments or transfer")),
            }
        }
        "--store" => plan.store = StoreKind::named(&value),
        // Absolute, because the processes run in another folder.
        "--demo" => {
            let demo =
                fs::canonicalize(&value).map_err(|error| format!("--demo {value}: {error}"))?;
            plan.demo = Some(demo);
        }
        "--seconds" => plan.time = Duration::from_secs(number()?),
        "--seed" => plan.seed = number()?,
        "--nodes" => plan.nodes = small(number()?)?,
        "--clients" => plan.clients = small(number()?)?,
        _ => {
            return Err(format!(
                "unknown option {option}: see the head of tests/torture/main.rs"
            ));
        }
    }
    Ok(())
}

fn small(number: u64) -> Result<usize, String> {
    usize::try_from(number)
        .ok()
        .filter(|number| (1..=1000).contains(number))
        .ok_or_else(|| format!("{number}: expected 1 to 1000"))
}
