//! A private MariaDB.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use super::{Folder, Process, free_port, postgres::is_root, server};

/// A private MariaDB server, with the durable settings.
#[derive(Debug)]
pub(crate) struct MariaDb {
    program: PathBuf,
    settings: Vec<String>,
    port: u16,
    // Before the folder: fields are dropped in order, and the process must have ended before its folder is removed.
    process: Option<Process>,
    folder: Folder,
}

impl MariaDb {
    /// A server; nothing if MariaDB is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// A server that may be killed: it has a binary log.
    ///
    /// Without one, the server shows a commit to other sessions before it has written it, and a SIGKILL in between
    /// loses what they saw; the committing session has no answer yet. With one, the commit is written first.
    pub(crate) fn flushing() -> Option<Self> {
        Self::with(&["--log-bin=binary", "--sync-binlog=1", "--server-id=1"])
    }

    /// A server with these settings in addition, each `--name=value`.
    pub(crate) fn with(settings: &[&str]) -> Option<Self> {
        let mut mariadb = Self::new(settings)?;
        mariadb.restart();
        Some(mariadb)
    }

    /// The server that all tests of this process share; each test uses a table of its own.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<MariaDb>> = OnceLock::new();
        // Checked each time, so that each skipped test is reported.
        program("mariadbd").and(SHARED.get_or_init(Self::start).as_ref())
    }

    fn new(settings: &[&str]) -> Option<Self> {
        let program = program("mariadbd")?;
        let folder = Folder::new("mariadb");
        let install = server("mariadb-install-db")?;
        if is_root() {
            let given = Command::new("chown")
                .arg("mysql")
                .arg(folder.path())
                .status();
            assert!(given.is_ok_and(|status| status.success()), "chown");
        }
        let made = Command::new(install)
            // A starting server removes the temporary tables of all servers that share its temporary folder.
            .env("TMPDIR", folder.path())
            .args([
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])
            .args(user())
            .arg(format!(
                "--datadir={}",
                folder.path().join("data").display()
            ))
            .current_dir(folder.path())
            .output()
            .expect("mariadb-install-db");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        Some(Self {
            program,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            port: free_port(),
            process: None,
            folder,
        })
    }

    /// The address, as a URL.
    pub(crate) fn url(&self) -> String {
        Self::url_of(self.port)
    }

    /// The address with another port.
    pub(crate) fn url_of(port: u16) -> String {
        format!("mysql://root@127.0.0.1:{port}/mysql?ssl-mode=disabled")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The folder with all its files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its general log, if its settings write one to the file `general`.
    pub(crate) fn general_log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("data/general")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Stops all its processes where they are, or lets them go on.
    #[cfg(target_os = "linux")]
    pub(crate) fn freeze(&self, yes: bool) {
        let process = self.process.as_ref().expect("it is running");
        process.signal(if yes { "-STOP" } else { "-CONT" });
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it on its port and folder, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let data = self.folder.path().join("data");
        let arguments = [
            "--no-defaults".to_owned(),
            format!("--datadir={}", data.display()),
            format!("--port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--socket={}", self.folder.path().join("socket").display()),
            format!("--pid-file={}", self.folder.path().join("pid").display()),
            format!("--tmpdir={}", self.folder.path().display()),
            "--max-connections=300".to_owned(),
        ];
        let arguments = arguments
            .into_iter()
            .chain(user())
            .chain(self.settings.iter().cloned());
        let arguments: Vec<String> = arguments.collect();
        let start = || Process::start(&self.program, &arguments, self.folder.path());
        let mut process = start();
        let end = Instant::now() + Duration::from_secs(60);
        while !self.answers() {
            assert!(
                Instant::now() < end,
                "MariaDB does not answer, and its log ends with:\n{}",
                self.end_of_log()
            );
            thread::sleep(Duration::from_millis(10));
            // As when something else has its port for a moment.
            if process.has_ended() {
                process = start();
            }
        }
        self.process = Some(process);
    }

    fn end_of_log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]);
        log.into_owned()
    }

    /// Whether it greets a connection, which it does once it has recovered.
    fn answers(&self) -> bool {
        use std::io::Read as _;

        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        // The length of the greeting, its sequence number, and the protocol version.
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).is_ok() && greeting[4] == 10
    }
}

/// One of MariaDB's programs; Debian installs the server outside the users' path.
fn program(name: &str) -> Option<PathBuf> {
    let debian = PathBuf::from("/usr/sbin").join(name);
    if debian.is_file() {
        Some(debian)
    } else {
        server(name)
    }
}

/// MariaDB refuses to run as root.
fn user() -> Option<String> {
    is_root().then(|| "--user=mysql".to_owned())
}
