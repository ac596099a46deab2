//! The errors for every mistake, compared with goldens.
//!
//! Each file `<rule>/<case>.rs` has one mistake and its errors beside it, and is found by glob. `main` uses the handler,
//! so that follow-up errors would show. Under `ours` the messages are written by the attribute. Under `rustc` they are
//! written by the compiler, with our notes: these are compared only with the release that they were recorded with.
//!
//! `TRYBUILD=overwrite cargo test -p idempotent-tests-ui` rewrites the goldens.

use std::io::{self, Write as _};

#[test]
fn our_messages() {
    trybuild::TestCases::new().compile_fail("ours/**/*.rs");
}

#[test]
fn messages_of_the_compiler() {
    let compiler = compiler();
    if compiler.starts_with("rustc 1.95.") {
        trybuild::TestCases::new().compile_fail("rustc/**/*.rs");
    } else {
        // The test harness hides the output of `eprintln!` if the test passes.
        let warning = format!(
            "*** NOT TESTED, {} is not rustc 1.95: messages_of_the_compiler\n",
            compiler.trim()
        );
        let _unread = io::stderr().write_all(warning.as_bytes());
    }
}

/// The compiler that trybuild is going to use.
fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc)
        .arg("--version")
        .output()
        .expect("rustc runs");
    String::from_utf8(output.stdout).expect("text")
}
