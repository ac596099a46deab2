//! What the tool prints without a store: its help, and what is wrong with a command line. `TRYCMD=overwrite` rewrites the
//! files in `tests/cmd`; read each change.

#[test]
fn help_and_usage_are_as_written() {
    trycmd::TestCases::new()
        .env("IDEMPOTENT_ACTOR", "ann")
        .case("tests/cmd/*.trycmd");
}

#[test]
fn completions_and_the_manual_name_every_command() {
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_idempotent"));
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let pages = [
        run(&["completions", "bash"]),
        run(&["completions", "zsh"]),
        run(&["completions", "fish"]),
        run(&["man"]),
    ];
    for command in [
        "stats", "list", "show", "resolve", "release", "forget", "purge", "audit", "migrate",
        "check",
    ] {
        for page in &pages {
            assert!(page.contains(command), "{command}: {page}");
        }
    }
}
