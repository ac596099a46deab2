//! Private servers for the tests: each on a port and in a folder of its own, removed with the test.
//!
//! Tests of a server that is not installed are skipped, and a line on standard error says so. With
//! `IDEMPOTENT_REQUIRE_SERVERS=1` they fail.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write as _},
    net::TcpListener,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
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

/// The path of a server's program; if it is missing, says that the test is skipped.
///
/// # Panics
///
/// If it is missing and `IDEMPOTENT_REQUIRE_SERVERS=1` is set.
pub(crate) fn server(program: &str) -> Option<PathBuf> {
    let found = installed(program);
    if found.is_none() {
        let demanded = env::var_os("IDEMPOTENT_REQUIRE_SERVERS").is_some_and(|value| value == "1");
        assert!(
            !demanded,
            "{program} is not installed, and IDEMPOTENT_REQUIRE_SERVERS=1"
        );
        not_tested(&format!("{program} is not installed"));
    }
    found
}

/// Prints that this test is skipped, and why.
pub(crate) fn not_tested(why: &str) {
    let test = thread::current().name().unwrap_or_default().to_owned();
    // Not `eprintln!`, whose output the test harness drops when the test passes. In one write, because other tests
    // write at the same time.
    let line = format!("*** NOT TESTED, {why}: {test}\n");
    let _unread = io::stderr().write_all(line.as_bytes());
}

/// A port that is not in use and was not given to another test of this process.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Below the range of ephemeral ports, and starting elsewhere in each process.
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

/// The prefix of the names of this process's folders.
fn folders() -> String {
    format!("idempotent-{}-", std::process::id())
}

/// A folder that is removed with this value, or with the process.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let _begun = sweeper();
        let path = env::temp_dir().join(format!("{}{name}-{turn}", folders()));
        // A process with the same id may have left one.
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

/// A program that is killed when this value is dropped, and when the test's process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Process {
    watch: Child,
    /// The program is killed when this is closed.
    alive: Option<ChildStdin>,
}

impl Process {
    /// Starts it; its output goes to the file `log` in its folder.
    pub(crate) fn start(
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        folder: &Path,
    ) -> Self {
        Self::start_and_then(program, arguments, folder, "")
    }

    /// As [`start`](Self::start), with a shell command that runs in the folder once the program has ended.
    pub(crate) fn start_and_then(
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        folder: &Path,
        then: &str,
    ) -> Self {
        // A shell watches: it kills the program as soon as our end of the pipe is closed. The shell ignores the signals
        // that a terminal sends to all its processes; the program handles them by itself.
        const WATCH: &str = "log=$1; then=$2; shift 2; \"$@\" </dev/null >>\"$log\" 2>&1 & program=$!; \
             trap '' INT TERM HUP; read -r _; kill -9 $program; wait $program; eval \"$then\"";
        let log = folder.join("log");
        let file = File::options().create(true).append(true).open(&log);
        let mut watch = Command::new("sh")
            .args(["-c", WATCH, "watch"])
            .arg(&log)
            .arg(then)
            .arg(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(sweeper())
            .stderr(file.expect("a log file"))
            .spawn()
            .expect("sh");
        let alive = watch.stdin.take();
        Self { watch, alive }
    }

    /// Sends a signal to the program and to all processes that it has started.
    #[cfg(target_os = "linux")]
    pub(crate) fn signal(&self, signal: &str) {
        let mut found = children(self.watch.id());
        let mut next = 0;
        while let Some(&process) = found.get(next) {
            found.extend(children(process));
            next += 1;
        }
        let reaches = |process: &u32| {
            let mut kill = Command::new("kill");
            kill.args([signal, &process.to_string()]);
            kill.stderr(Stdio::null()).status().expect("kill").success()
        };
        // Others of them may have ended meanwhile.
        let sent: Vec<_> = found.iter().map(reaches).collect();
        assert_eq!(sent.first(), Some(&true), "{found:?}");
    }

    /// Whether the program has ended by itself.
    #[cfg(target_os = "linux")]
    pub(crate) fn has_ended(&self) -> bool {
        // Its shell waits for something else, and has not been told.
        let is_zombie = |id: u32| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('Z'))
        };
        children(self.watch.id()).into_iter().any(is_zombie)
    }

    /// As far as is known.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn has_ended(&self) -> bool {
        false
    }

    /// Kills it with SIGKILL and waits for its end.
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

/// The processes that this one has started and that have not ended.
#[cfg(target_os = "linux")]
fn children(process: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("the processes");
    let ids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |id: &u32| {
        // It may have ended meanwhile. The name, in parentheses, may contain anything.
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        rest.split(' ').nth(1) == Some(&*process.to_string())
    };
    ids.filter(is_child).collect()
}

/// A shell that removes what is left of this process's folders once this process and all processes that inherited this
/// pipe have ended, in whatever way.
fn sweeper() -> Stdio {
    static SWEEPER: OnceLock<ChildStdin> = OnceLock::new();
    let start = || {
        // More than once, because child processes of a killed server may still write.
        const SWEEP: &str = "trap '' INT TERM HUP; read -r _; \
             for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf \"$1\"* && break; sleep 1; done";
        let sweeper = Command::new("sh")
            .args(["-c", SWEEP, "sweep"])
            .arg(env::temp_dir().join(folders()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        sweeper.expect("sh").stdin.expect("a pipe")
    };
    let alive = SWEEPER.get_or_init(start).as_fd().try_clone_to_owned();
    alive.expect("a second handle").into()
}

/// Repeats a probe until it succeeds, and returns its result.
///
/// # Panics
///
/// If it does not succeed within half a minute.
pub(crate) fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "waited half a minute for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
