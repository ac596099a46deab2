//! What the servers of a test leave behind when its process ends, however it ends: nothing.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::servers::{Folder, mariadb::MariaDb, postgres::Postgres, redis::Redis};

/// The process that starts servers; see the tests that start it. By itself it does nothing.
#[test]
fn starts_servers_and_waits_for_its_end() {
    let Ok(end) = env::var("END_BY") else { return };
    let _owned = (Postgres::start(), Redis::start());
    let _shared = (Postgres::shared(), MariaDb::shared());
    let _folder = Folder::new("empty");
    println!("started\n{}", segments().join("\n"));
    assert_ne!(end, "panic", "as it was told to");
    loop {
        thread::park();
    }
}

/// The System V segments of this process's servers.
fn segments() -> Vec<String> {
    let folders = of(std::process::id());
    let files = folders
        .iter()
        .map(|folder| folder.join("data/postmaster.pid"));
    let files = files.filter_map(|file| fs::read_to_string(file).ok());
    let places = files.map(|file| {
        let line = file.lines().nth(6).expect("its segment").to_owned();
        let id = line.split_whitespace().nth(1).expect("its id");
        format!("segment {id}")
    });
    places.collect()
}

/// The folders of this process.
fn of(process: u32) -> Vec<std::path::PathBuf> {
    let begins = format!("idempotent-{process}-");
    let all = fs::read_dir(env::temp_dir()).expect("a folder");
    let all = all.map(|entry| entry.expect("an entry").path());
    let is_of = |path: &std::path::PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name.starts_with(&begins)
    };
    all.filter(is_of).collect()
}

/// Programs that were started with a path in one of the folders of this process.
fn programs_of(process: u32) -> Vec<String> {
    let begins = env::temp_dir().join(format!("idempotent-{process}-"));
    let begins = begins.to_str().expect("a path").to_owned();
    let all = fs::read_dir("/proc").expect("Linux");
    let lines = all.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&begins)).collect()
}

/// Ends such a process, and waits until folders, programs and shared memory are gone. What PostgreSQL shares besides its
/// segment is in its folder; the others share nothing.
fn leaves_nothing(end: &str, finish: impl FnOnce(&Child)) {
    if Postgres::shared().is_none() || MariaDb::shared().is_none() || Redis::shared().is_none() {
        return;
    }
    let test = module_path!().split_once("::").expect("a crate").1;
    let test = format!("{test}::starts_servers_and_waits_for_its_end");
    // Who runs the tests in the background of a script ignores Ctrl-C, and so would this process.
    let mut child = Command::new("env")
        .arg("--default-signal=INT")
        .arg(env::current_exe().expect("this test"))
        .args([&test, "--exact", "--nocapture"])
        .env("END_BY", end)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // As a shell would have it: signals of a terminal go to all of it.
        .process_group(0)
        .spawn()
        .expect("a process");
    let mut said = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut next = || said.next().expect("it goes on").expect("a line");
    while !next().ends_with("started") {}
    let segments = [next(), next()].map(|line| line.replace("segment ", ""));
    if end != "panic" {
        let folders = of(child.id()).len();
        assert_eq!(folders, 5, "four servers and a folder");
        assert!(programs_of(child.id()).len() >= 4);
        assert!(segments.iter().all(|id| is_there(id)), "{segments:?}");
    }
    finish(&child);
    let status = ended(&mut child);
    assert!(!status.success(), "{status:?} {:?}", status.signal());
    let left = || {
        let segments = segments.iter().filter(|id| is_there(id)).count();
        (of(child.id()), programs_of(child.id()), segments)
    };
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let (folders, programs, segments) = left();
        if folders.is_empty() && programs.is_empty() && segments == 0 {
            break;
        }
        assert!(
            Instant::now() < patience,
            "after half a minute there are {folders:?}, {programs:?} and {segments} segments"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for the end of a process, but not for ever.
fn ended(child: &mut Child) -> ExitStatus {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = child.try_wait().expect("its state") {
            return status;
        }
        if Instant::now() >= patience {
            child.kill().expect("an end");
            panic!("half a minute later the process goes on");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether there is a System V segment of this number.
fn is_there(id: &str) -> bool {
    let all = fs::read_to_string("/proc/sysvipc/shm").expect("Linux");
    all.lines()
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

/// Ctrl-C, which goes to everybody in the terminal's foreground.
#[test]
fn a_test_that_is_interrupted_leaves_nothing() {
    leaves_nothing("interrupt", |child| {
        signal("-INT", &format!("-{}", child.id()));
    });
}
