//! The commands of the guide, in its order, print what it says. Digits count as digits only: times differ.

#[path = "../../tests/support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use idempotent_runtime::{Idempotency, IdempotencyKey, Scope};
use support::{Target, sqlite};

/// A command, and the lines that it is said to print.
struct Step {
    command: String,
    prints: String,
}

#[test]
fn the_guide_says_what_the_tool_prints() {
    steps_of("../idempotent-runtime/src/guide/unknown.md", 7);
}

#[test]
fn the_readme_says_what_the_tool_prints() {
    steps_of("../README.md", 1);
}

fn steps_of(page: &str, at_least: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let target = runtime.block_on(payment());
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let steps: Vec<_> = steps(&text).collect();
    assert!(
        steps.len() >= at_least,
        "{page} has {} commands",
        steps.len()
    );
    for Step { command, prints } in steps {
        let ran = shell(&target, &command);
        let said = String::from_utf8_lossy(&ran.stdout);
        let error = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{command}\n{said}\n{error}");
        assert_eq!(squeezed(&said), squeezed(&prints), "{command}\n{error}");
    }
}

/// A store in which one payment of account 7 is unknown, and another one is completed.
async fn payment() -> Target {
    let target = sqlite().await;
    let engine = Idempotency::builder()
        .store(target.store.clone())
        .build()
        .unwrap();
    let key = |key| {
        engine.store_key(
            "POST /payments",
            Some(&Scope::new("7")),
            &IdempotencyKey::new(key).unwrap(),
        )
    };
    target.unknown(key("order-4711"), "POST /payments").await;
    target.completed(key("order-4710"), "POST /payments").await;
    target
}

/// The commands of all blocks of consoles that call the tool.
fn steps(text: &str) -> impl Iterator<Item = Step> {
    let blocks = text.split("```console\n").skip(1);
    let blocks = blocks.filter_map(|block| Some(block.split_once("```")?.0));
    blocks
        .flat_map(|block| block.split("$ ").skip(1))
        .filter_map(|step| {
            let (command, prints) = step.split_once('\n')?;
            command.contains("idempotent ").then(|| Step {
                command: command.to_owned(),
                prints: prints.to_owned(),
            })
        })
}

fn shell(target: &Target, command: &str) -> Output {
    let tool = Path::new(env!("CARGO_BIN_EXE_idempotent"));
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", tool.parent().unwrap().display());
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .env("PATH", path)
        .env("USER", "ann");
    shell.env("IDEMPOTENT_STORE", &target.url).output().unwrap()
}

/// Every run of digits as one, and every run of spaces: columns are as wide as what stands in them.
fn squeezed(text: &str) -> String {
    let mut squeezed = String::new();
    for c in text.trim().chars() {
        let c = if c.is_ascii_digit() { '0' } else { c };
        if !(matches!(c, '0' | ' ') && squeezed.ends_with(c)) {
            squeezed.push(c);
        }
    }
    squeezed
}
