//! The processes of the demo.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use crate::servers::{Process, free_port};

/// How one process after the other is started in a node's place.
#[derive(Debug)]
pub(crate) struct Node {
    name: usize,
    port: u16,
    lives: u32,
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
            lives: 0,
            process: None,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// SIGKILLs what runs, and starts the demo. It is not waited for: clients find it when it is there.
    pub(crate) fn start(&mut self, setting: &Setting<'_>) {
        self.process = None;
        self.lives += 1;
        let set = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
            let mut pair = OsString::from(format!("{name}="));
            pair.push(value);
            pair
        };
        // An id never comes twice, because each life has a name of its own.
        let node = format!("n{}x{}", self.name, self.lives);
        let arguments = [
            set("PORT", &self.port.to_string()),
            set("NODE", &node),
            set("LEDGER", &setting.ledger),
            set("IDEMPOTENT_STORE", &setting.store),
            set(
                "ACCEPT_WEAKER_DURABILITY",
                &if setting.weak { "1" } else { "0" },
            ),
            // Short, so that what a kill left behind is soon known to be unknown.
            set("LEASE", &"1s"),
            set("RUST_LOG", &"error"),
            setting.demo.clone().into_os_string(),
        ];
        self.process = Some(Process::start(Path::new("env"), arguments, setting.folder));
    }
}

/// Builds the demo, and gives its path: beside whatever this program is.
pub(crate) fn demo() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "-p",
            "idempotent-examples",
            "--example",
            "payments",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo");
    assert!(built.success(), "the demo does not build");
    let here = std::env::current_exe().expect("a path");
    let found = here
        .ancestors()
        .map(|folder| folder.join("examples/payments"));
    found
        .into_iter()
        .find(|demo| demo.is_file())
        .expect("the demo beside this program")
}
