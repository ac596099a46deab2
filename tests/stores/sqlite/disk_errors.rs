//! Disks that are full, and disks that become read-only while the file is open.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use idempotent_runtime::{
    Idempotency, Policy,
    store::{self, RecordState, Store, StoreErrorKind, Write, conformance::key},
};
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::{
    servers::{Folder, not_tested, until},
    service::{Answer, Executions, Gate, Service, paid},
    toolbox::{FIRST, large, new_claim},
};

/// A file system of its own, unmounted with this value.
struct Disk {
    folder: Folder,
    /// Where it is mounted.
    on: PathBuf,
}

/// Whether the program succeeded.
fn run(program: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments);
    command.output().is_ok_and(|output| output.status.success())
}

impl Disk {
    /// A megabyte in memory.
    fn small() -> Option<Self> {
        let disk = Self::folder();
        let options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"];
        let options = options.each_ref().map(|option| option as &dyn AsRef<_>);
        let mounted = run("mount", &[&options[..], &[&disk.on]].concat());
        disk.if_there(mounted)
    }

    /// An ext4 of eight megabytes in a file. The kernel makes it read-only after an error.
    fn ext4() -> Option<Self> {
        let disk = Self::folder();
        let image = disk.image();
        let made = std::fs::File::create(&image).is_ok_and(|image| image.set_len(8 << 20).is_ok())
            && run("mkfs.ext4", &[&"-q", &"-F", &image])
            && disk.mount_image();
        disk.if_there(made)
    }

    fn folder() -> Self {
        let folder = Folder::new("disk");
        let on = folder.path().join("mounted");
        std::fs::create_dir(&on).expect("a folder to mount on");
        Self { folder, on }
    }

    /// Nothing if it could not be mounted; that is printed.
    fn if_there(self, mounted: bool) -> Option<Self> {
        if mounted {
            return Some(self);
        }
        not_tested("mounting needs root and its programs");
        None
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount_image(&self) -> bool {
        run(
            "mount",
            &[&"-o", &"loop,errors=remount-ro", &self.image(), &self.on],
        )
    }

    fn path(&self) -> &Path {
        &self.on
    }

    fn url(&self) -> String {
        format!("sqlite://{}/records.db", self.on.display())
    }

    /// Makes the kernel find an error in it.
    fn fail(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the mounts");
        let mut mounts = mounts.lines().map(|line| line.split(' '));
        let device = mounts.find_map(|mut line| {
            let (device, on) = (line.next()?, line.next()?);
            (Path::new(on) == self.on).then(|| device.trim_start_matches("/dev/").to_owned())
        });
        let device = device.expect("it is mounted");
        assert!(device.starts_with("loop"), "{device} is not ours");
        let switch = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        std::fs::write(switch, "a test").expect("an error");
        let refused = std::fs::write(self.on.join("probe"), b"").expect_err("it is read-only");
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }

    /// Checks it and mounts it again, as after a restart of the machine.
    fn repair(&self) {
        until("the file to be closed", || {
            run("umount", &[&self.on]).then_some(())
        });
        // Its exit status is an error if it repaired something.
        let _status = run("e2fsck", &[&"-f", &"-y", &self.image()]);
        assert!(self.mount_image());
    }

    /// Whether the file and its log may be written, even by those who have opened them.
    fn writable(&self, yes: bool) {
        let may = if yes { "-i" } else { "+i" };
        let [file, log] = ["records.db", "records.db-wal"].map(|file| self.on.join(file));
        assert!(run("chattr", &[&may, &file, &log]));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &[&"-l", &self.on]);
    }
}

/// When the disk is full, nothing that was acknowledged is lost and no operation hangs; with room again, operations
/// succeed again.
#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let Some(disk) = Disk::small() else {
        return;
    };
    let store = store::connect(&disk.url()).await.unwrap();
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![0; 600 << 10]).unwrap();
    let outcome = large(8 << 10);
    let mut stored = Vec::new();
    let (full, unfinished) = loop {
        let mine = new_claim(key(u8::try_from(stored.len() + 1).unwrap()));
        match store.acquire(&mine).await {
            Ok(acquisition) => assert_eq!(acquisition, FIRST),
            Err(error) => break (error, None),
        }
        match store.complete(&mine.held(), &outcome).await {
            Ok(write) => assert_eq!(write, Write::Applied),
            Err(error) => break (error, Some(mine)),
        }
        stored.push(mine.key);
    };
    // SQLite reports "disk full" or, where its log meets the limit, "I/O error".
    assert!(
        matches!(
            full.kind(),
            StoreErrorKind::Full | StoreErrorKind::Unavailable
        ),
        "{full:?}"
    );
    assert!(!stored.is_empty());
    for key in &stored {
        let record = store.get(key).await.unwrap();
        let record = record.expect("what was acknowledged is there");
        assert_eq!(record.state, RecordState::Completed(outcome.clone()));
    }
    std::fs::remove_file(&filler).unwrap();
    if let Some(mine) = unfinished {
        let completed = store.complete(&mine.held(), &outcome).await;
        assert_eq!(completed.unwrap(), Write::Applied);
    }
    assert_eq!(store.acquire(&new_claim(key(250))).await.unwrap(), FIRST);
}

/// A process of a service whose records are on the disk.
struct OnDisk {
    runtime: Runtime,
    service: Service,
}

/// An execution that ends when its gate is open.
struct Running {
    gate: Gate,
    answer: JoinHandle<Answer>,
}

impl OnDisk {
    fn start(disk: &Disk) -> Self {
        let runtime = Runtime::new().unwrap();
        let service = runtime.block_on(async {
            let store = store::connect(&disk.url()).await.unwrap();
            let policy = Policy::new().lease(Duration::from_secs(1)).wait(false);
            // An execution repeats its completion for three times this time; after that the engine does so.
            let engine = Idempotency::builder().store_timeout(Duration::from_secs(1));
            Service::with(engine.policy(policy), store, &Executions::default())
        });
        Self { runtime, service }
    }

    fn pay(&self, key: &str) -> Answer {
        self.runtime.block_on(self.service.pay(key))
    }

    /// Begins an execution.
    fn begin(&self, key: &str) -> Running {
        let before = self.executed();
        let (service, key, gate) = (self.service.clone(), key.to_owned(), Gate::closed());
        let closed = gate.clone();
        let answer = async move { service.pay_behind(&key, &closed).await };
        let answer = self.runtime.spawn(answer);
        until("the execution", || (self.executed() > before).then_some(()));
        Running { gate, answer }
    }

    /// Lets an execution end.
    fn end(&self, running: Running) -> Answer {
        running.gate.open();
        self.runtime.block_on(running.answer).unwrap()
    }

    fn executed(&self) -> u32 {
        self.service.executions().count()
    }

    fn refuses(&self, key: &str, status: u16, code: &str) {
        let before = self.executed();
        is_problem(&self.pay(key), status, code);
        assert_eq!(self.executed(), before, "{key} was executed");
    }
}

fn is_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.contains(code), "{answer:?}");
}

/// The kernel made the file system read-only after an error of the disk: no execution starts, nothing that was acknowledged
/// is lost, and the outcome of what was running is unknown.
#[test]
fn a_disk_that_fails_refuses_claims_and_loses_nothing_that_was_acknowledged() {
    let Some(disk) = Disk::ext4() else { return };
    let service = OnDisk::start(&disk);
    assert_eq!(service.pay("done"), paid(1, false));
    let running = service.begin("running");
    disk.fail();
    service.refuses("new", 503, "store_unavailable");
    assert_eq!(service.pay("done"), paid(1, true), "replays go on");
    is_problem(&service.end(running), 409, "outcome_unknown");
    // The process ends without another write.
    service.runtime.shutdown_background();
    drop(service.service);

    disk.repair();
    let service = OnDisk::start(&disk);
    assert_eq!(service.pay("done"), paid(1, true));
    until("the lease to lapse", || {
        let answer = service.pay("running");
        assert_eq!(answer.status, 409, "{answer:?}");
        answer.body.contains("outcome_unknown").then_some(())
    });
    assert_eq!(service.executed(), 0);
    assert_eq!(service.pay("new"), paid(1, false));
}

/// No execution starts while the file may not be written. A completion is repeated until it may: by the execution while
/// its client waits, and in the background after that.
#[test]
fn completions_are_written_once_the_file_may_be_written_again() {
    let Some(disk) = Disk::ext4() else { return };
    let service = OnDisk::start(&disk);
    assert_eq!(service.pay("done"), paid(1, false));

    // While the client waits.
    let running = service.begin("in-time");
    disk.writable(false);
    service.refuses("new", 503, "store_unavailable");
    assert_eq!(service.pay("done"), paid(1, true));
    running.gate.open();
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| service.end(running));
        service.refuses("new", 503, "store_unavailable");
        disk.writable(true);
        assert_eq!(ended.join().unwrap(), paid(2, false));
    });
    assert_eq!(service.pay("in-time"), paid(2, true));

    // After the client has its answer.
    let running = service.begin("too-late");
    disk.writable(false);
    is_problem(&service.end(running), 409, "outcome_unknown");
    disk.writable(true);
    let began = Instant::now();
    until("the completion", || {
        let answer = service.pay("too-late");
        assert!(answer.status == 409 || answer.replayed, "{answer:?}");
        answer.replayed.then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(service.pay("too-late"), paid(3, true));
    assert_eq!(service.pay("new"), paid(4, false));
}
