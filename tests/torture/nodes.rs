//! The processes of the example.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    app::App,
    servers::{Process, free_port},
};

/// A node: one process at a time on one port.
#[derive(Debug)]
pub(crate) struct Node {
    name: usize,
    port: u16,
    starts: u32,
    process: Option<Process>,
}

/// What all nodes share.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) demo: PathBuf,
    pub(crate) folder: &'a Path,
    pub(crate) ledger: PathBuf,
    pub(crate) store: String,
    pub(crate) weak: bool,
}

impl Node {
    pub(crate) fn new(name: usize) -> Self {
        Self {
            name,
            port: free_port(),
            starts: 0,
            process: None,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Kills the node's process with SIGKILL and starts the next one, without waiting for it: clients retry until it
    /// listens.
    pub(crate) fn start(&mut self, setting: &Setting<'_>) {
        self.process = None;
        self.starts += 1;
        let set = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
            let mut pair = OsString::from(format!("{name}="));
            pair.push(value);
            pair
        };
        // No id occurs twice, because each process has a name of its own.
        let node = format!("n{}x{}", self.name, self.starts);
        let arguments = [
            set("PORT", &self.port.to_string()),
            set("NODE", &node),
            set("LEDGER", &setting.ledger),
            set("IDEMPOTENT_STORE", &setting.store),
            set("ACCEPT", &if setting.weak { "AppendOnlyOff" } else { "" }),
            set("DATABASE_URL", &setting.store),
            // Short, so that retries soon find out that what a kill left in flight has ended.
            set("LEASE", &"1s"),
            set("RUST_LOG", &"error"),
            setting.demo.clone().into_os_string(),
        ];
        self.process = Some(Process::start(Path::new("env"), arguments, setting.folder));
    }
}

/// Builds the example and returns its path, which is in the same target folder as this program.
pub(crate) fn demo(app: App) -> PathBuf {
    let example = app.example();
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "-p",
            "idempotent-examples",
            "--example",
            example,
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo");
    assert!(built.success(), "the example {example} does not build");
    let here = std::env::current_exe().expect("a path");
    let found = here
        .ancestors()
        .map(|folder| folder.join("examples").join(example));
    found
        .into_iter()
        .find(|demo| demo.is_file())
        .expect("the example in the target folder")
}
