//! Private servers for the tests: each on a port and in a folder of its own, gone with the test.
//!
//! A server that is not installed is not tested, and that is said where nobody can miss it. With
//! `IDEMPOTENT_REQUIRE_SERVERS=1` it is a failure.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

pub(crate) mod mariadb;
pub(crate) mod postgres;
pub(crate) mod redis;

/// The path of a program, if it is installed.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The path of a server's program, or word that it is missing.
///
/// # Panics
///
/// If it is missing and `IDEMPOTENT_REQUIRE_SERVERS=1` demands it.
pub(crate) fn server(program: &str) -> Option<PathBuf> {
    let found = installed(program);
    if found.is_none() {
        let demanded = env::var_os("IDEMPOTENT_REQUIRE_SERVERS").is_some_and(|value| value == "1");
        assert!(
            !demanded,
            "{program} is not installed, and IDEMPOTENT_REQUIRE_SERVERS=1"
        );
        let test = thread::current().name().unwrap_or_default().to_owned();
        // Not `eprintln!`, which the test harness keeps to itself when the test passes. In one piece, because
        // other tests write at the same time.
        let word = format!("*** NOT TESTED, {program} is not installed: {test}\n");
        let _unread = io::stderr().write_all(word.as_bytes());
    }
    found
}

/// A port that nobody listens on, and that no other test of this process was given.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Below the ports that the system gives to outgoing connections, and for each process elsewhere.
    const FIRST: u32 = 18_000;
    const PORTS: u32 = 14_000;
    for _ in 0..PORTS {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (std::process::id().wrapping_mul(97) + turn) % PORTS;
        let port = u16::try_from(port).expect("a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A folder that is removed with this value.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("idempotent-{name}-{}-{turn}", std::process::id());
        let path = env::temp_dir().join(folder);
        // What a process of the same number left there.
        let _absent = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder for the server");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _still_written_to = fs::remove_dir_all(&self.0);
    }
}

/// A program that is killed with this value, and with the test's process, however that ends.
#[derive(Debug)]
pub(crate) struct Process {
    watch: Child,
    /// While it is open, the program lives.
    alive: Option<ChildStdin>,
}

impl Process {
    /// Starts it; what it says goes to a file `log` in its folder.
    pub(crate) fn start(
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        folder: &Path,
    ) -> Self {
        Self::watched(program, arguments, folder, Path::new(""))
    }

    /// As [`start`](Self::start), for a server that the whole process shares: the folder goes with it too,
    /// because nothing drops what is static.
    pub(crate) fn start_shared(
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        folder: &Path,
    ) -> Self {
        Self::watched(program, arguments, folder, folder)
    }

    fn watched(
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        folder: &Path,
        remove: &Path,
    ) -> Self {
        // A shell stands watch: it kills the program as soon as our end of the pipe is closed.
        const WATCH: &str = "\"$@\" </dev/null & program=$!; read -r _; kill -9 $program; wait $program; \
             [ -z \"$REMOVE\" ] || rm -rf \"$REMOVE\"";
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"));
        let log = log.expect("a log file");
        let mut watch = Command::new("sh")
            .args(["-c", WATCH, "watch"])
            .arg(program)
            .args(arguments)
            .env("REMOVE", remove)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("sh");
        let alive = watch.stdin.take();
        Self { watch, alive }
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.alive = None;
        let _gone = self.watch.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Tries until it succeeds.
///
/// # Panics
///
/// If it does not within half a minute.
pub(crate) fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            Instant::now() < patience,
            "waited for half a minute for {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
