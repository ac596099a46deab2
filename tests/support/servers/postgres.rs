//! A private PostgreSQL.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::{Folder, Process, free_port, server, until};

/// A private PostgreSQL server, with the durable settings.
#[derive(Debug)]
pub(crate) struct Postgres {
    program: PathBuf,
    settings: Vec<String>,
    port: u16,
    // Before the folder: fields are dropped in order, and the process must have ended before its folder is removed.
    process: Option<Process>,
    folder: Folder,
}

/// Removes the System V segment by which a server detects another server in its folder: a killed server leaves it, and
/// the system allows only a few. Processes that still use it keep it until they end.
const FREE: &str = "segment=$(awk 'NR == 7 { print $2 }' data/postmaster.pid) && ipcrm -m $segment";

impl Postgres {
    /// A server; nothing if PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// A server with these settings in addition, each `name=value`.
    pub(crate) fn with(settings: &[&str]) -> Option<Self> {
        let mut postgres = Self::new(settings)?;
        postgres.restart();
        Some(postgres)
    }

    /// The server that all tests of this process share; each test uses a table of its own.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Postgres>> = OnceLock::new();
        // Checked each time, so that each skipped test is reported.
        program("postgres").and(SHARED.get_or_init(Self::start).as_ref())
    }

    fn new(settings: &[&str]) -> Option<Self> {
        let initdb = program("initdb")?;
        let folder = Folder::new("postgres");
        give_away(folder.path());
        let made = unprivileged(&initdb)
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=test",
                "--encoding=UTF8",
                "--locale=C",
                "-D",
            ])
            .arg(folder.path().join("data"))
            .current_dir(folder.path())
            .output()
            .expect("initdb");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let hba = "local all all trust\nhost all secretive 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
        std::fs::write(folder.path().join("data/pg_hba.conf"), hba)
            .expect("pg_hba.conf is written");
        Some(Self {
            program: program("postgres")?,
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
        format!("postgres://test@127.0.0.1:{port}/postgres?sslmode=disable")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The folder with all its files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has written to its log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Stops all its processes where they are, or lets them go on.
    #[cfg(target_os = "linux")]
    pub(crate) fn freeze(&self, yes: bool) {
        let process = self.process.as_ref().expect("it is running");
        process.signal(if yes { "-STOP" } else { "-CONT" });
    }

    /// Kills the server with SIGKILL; its child processes end when they notice.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it on its port and folder, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let data = self.folder.path().join("data");
        // Repeated until it succeeds: child processes of a killed server hold its shared memory until all of them
        // have noticed. Only a failed start is repeated: a server that is killed during its recovery leaves a
        // process that never ends.
        until("PostgreSQL", || {
            let said = self.log().len();
            let command = unprivileged(&self.program);
            let mut arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            arguments.push("-D".into());
            arguments.push(data.clone().into());
            let common = [
                &format!("port={}", self.port),
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                "max_connections=200",
                "log_min_messages=warning",
                // In its folder, where it is removed with the rest, and not in /dev/shm.
                "dynamic_shared_memory_type=mmap",
            ];
            for setting in common
                .into_iter()
                .chain(self.settings.iter().map(String::as_str))
            {
                arguments.extend(["-c".into(), setting.into()]);
            }
            let process = Process::start_and_then(
                Path::new(command.get_program()),
                arguments,
                self.folder.path(),
                FREE,
            );
            let failed = || self.log()[said..].contains("is still in use");
            let answers = until("PostgreSQL to recover", || {
                if self.answers() {
                    return Some(true);
                }
                failed().then_some(false)
            });
            answers.then(|| self.process = Some(process))
        });
    }

    /// Whether it accepts connections, which it does not during its recovery.
    fn answers(&self) -> bool {
        use std::io::{Read as _, Write as _};

        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        // The start-up message of protocol 3.0.
        let parameters = b"user\0test\0database\0postgres\0\0";
        let length = u32::try_from(8 + parameters.len()).expect("short");
        let mut message = length.to_be_bytes().to_vec();
        message.extend_from_slice(&196_608_u32.to_be_bytes());
        message.extend_from_slice(parameters);
        let mut answer = [0];
        stream.write_all(&message).is_ok()
            && stream.read_exact(&mut answer).is_ok()
            && answer == *b"R"
    }
}

/// One of PostgreSQL's programs, which Debian installs outside the path.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<_> = folders
        .map(|version| version.path().join("bin").join(name))
        .collect();
    found.retain(|program| program.is_file());
    found.sort();
    found.pop().or_else(|| server(name))
}

/// A command that does not run as root, which PostgreSQL refuses.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    // `setpriv` replaces itself with the program, so that killing the process kills the program.
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program);
    command
}

fn give_away(path: &Path) {
    if is_root() {
        let given = Command::new("chown")
            .arg("postgres:postgres")
            .arg(path)
            .status();
        assert!(given.is_ok_and(|status| status.success()), "chown");
    }
}

/// Lets only the server read this file, which it demands of its private key.
pub(crate) fn keep_secret(file: &Path) {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

    std::fs::set_permissions(file, Permissions::from_mode(0o600)).expect("its owner's file");
    give_away(file);
}

pub(super) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id");
    id.stdout.trim_ascii() == b"0"
}
