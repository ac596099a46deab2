//! Every mistake, and what is said about it.
//!
//! One mistake a file, `<rule>/<case>.rs`, found by glob. The handler is used in `main`, where a cascade
//! would show. Under `ours` the words are ours. Under `rustc` they are the compiler's, around ours: they are
//! compared with the release they were written for only.
//!
//! `TRYBUILD=overwrite cargo test -p idempotent-tests-ui` writes them anew.

use std::io::{self, Write as _};

#[test]
fn our_words() {
    trybuild::TestCases::new().compile_fail("ours/**/*.rs");
}

#[test]
fn the_compilers_words() {
    let compiler = compiler();
    if compiler.starts_with("rustc 1.95.") {
        trybuild::TestCases::new().compile_fail("rustc/**/*.rs");
    } else {
        // Not `eprintln!`, which the test harness keeps to itself when the test passes.
        let word = format!(
            "*** NOT TESTED, {} is not rustc 1.95: the_compilers_words\n",
            compiler.trim()
        );
        let _unread = io::stderr().write_all(word.as_bytes());
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
