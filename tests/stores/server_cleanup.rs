//! The servers of a test leave nothing behind when its process ends, in whatever way.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use crate::servers::{Folder, mariadb::MariaDb, postgres::Postgres, redis::Redis, until};

/// The process that starts servers; see the tests that start it. By itself it does nothing.
#[test]
fn starts_servers_and_waits_for_its_end() {
    let Ok(end) = env::var("END_BY") else { return };
    let _owned = (Postgres::start(), Redis::start());
    let _shared = (Postgres::shared(), MariaDb::shared());
    let _folder = Folder::new("empty");
    println!("started\n{}", segments().join("\n"));
    assert_ne!(end, "panic", "as the test demands");
    loop {
        thread::park();
    }
}

/// The System V segments of this process's servers.
fn segments() -> Vec<String> {
    let folders = folders_of(std::process::id());
    let files = folders
        .iter()
        .map(|folder| folder.join("data/postmaster.pid"));
    let files = files.filter_map(|file| fs::read_to_string(file).ok());
    let segments = files.map(|file| {
        let line = file.lines().nth(6).expect("the segment's line").to_owned();
        let id = line.split_whitespace().nth(1).expect("its id");
        format!("segment {id}")
    });
    segments.collect()
}

/// The folders of this process.
fn folders_of(process: u32) -> Vec<PathBuf> {
    let prefix = format!("idempotent-{process}-");
    let entries = fs::read_dir(env::temp_dir()).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_of = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name.starts_with(&prefix)
    };
    paths.filter(is_of).collect()
}

/// The command lines of programs that were started with a path in one of this process's folders.
fn programs_of(process: u32) -> Vec<String> {
    let prefix = env::temp_dir().join(format!("idempotent-{process}-"));
    let prefix = prefix.to_str().expect("a path").to_owned();
    let processes = fs::read_dir("/proc").expect("Linux");
    let lines = processes.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&prefix)).collect()
}

/// Starts such a process, has it ended, and waits until its folders, programs and shared memory are gone. PostgreSQL keeps
/// all its shared memory but one segment in its folder; the other servers have none.
fn leaves_nothing(end: &str, finish: impl FnOnce(&Child)) {
    if Postgres::shared().is_none() || MariaDb::shared().is_none() || Redis::shared().is_none() {
        return;
    }
    let test = module_path!().split_once("::").expect("a crate").1;
    let test = format!("{test}::starts_servers_and_waits_for_its_end");
    // Tests that a script runs in the background ignore SIGINT, and their child processes would too.
    let child = Command::new("env")
        .arg("--default-signal=INT")
        .arg(env::current_exe().expect("this test"))
        .args([&test, "--exact", "--nocapture"])
        .env("END_BY", end)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // As from a shell: a terminal sends its signals to the whole group.
        .process_group(0)
        .spawn()
        .expect("a process");
    let mut child = KilledAtLast(child);
    let child = &mut child.0;
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut next = || lines.next().expect("it is alive").expect("a line");
    while !next().ends_with("started") {}
    let segments = [next(), next()].map(|line| line.replace("segment ", ""));
    if end != "panic" {
        let folders = folders_of(child.id()).len();
        assert_eq!(folders, 5, "four servers and a folder");
        assert!(programs_of(child.id()).len() >= 4);
        assert!(segments.iter().all(|id| exists(id)), "{segments:?}");
    }
    finish(child);
    let status = until("the end of the process", || {
        child.try_wait().expect("its status")
    });
    assert!(!status.success(), "{status:?} {:?}", status.signal());
    until("folders, programs and segments to be gone", || {
        let left = segments.iter().any(|id| exists(id));
        let left = left || !folders_of(child.id()).is_empty();
        (!left && programs_of(child.id()).is_empty()).then_some(())
    });
}

/// A process that is killed with this value, if it is still alive: a test that fails must not leave it behind.
struct KilledAtLast(Child);

impl Drop for KilledAtLast {
    fn drop(&mut self) {
        let _ended = self.0.kill();
    }
}

/// Whether there is a System V segment with this id.
fn exists(id: &str) -> bool {
    let segments = fs::read_to_string("/proc/sysvipc/shm").expect("Linux");
    segments
        .lines()
        .any(|line| line.split_whitespace().nth(1) == Some(id))
}

fn signal(name: &str, process: &str) {
    let sent = Command::new("kill").args([name, "--", process]).status();
    assert!(sent.expect("kill").success());
}

#[test]
fn a_test_that_panics_leaves_nothing() {
    leaves_nothing("panic", |_| {});
}

#[test]
fn a_test_that_is_killed_leaves_nothing() {
    leaves_nothing("kill", |child| signal("-KILL", &child.id().to_string()));
}

/// Ctrl-C in a terminal sends SIGINT to the whole foreground group.
#[test]
fn a_test_that_is_interrupted_leaves_nothing() {
    leaves_nothing("interrupt", |child| {
        signal("-INT", &format!("-{}", child.id()));
    });
}
