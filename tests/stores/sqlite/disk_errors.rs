//! Disks that are full, and disks that become read-only while the file is open.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use idempotent_runtime::{
    Idempotency, Policy,
    store::{
        Acquisition, Outcome, RecordState, Store, StoreErrorKind, Write,
        conformance::{key, response},
        sql::sqlite::SqliteStore,
    },
};
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::{
    servers::{Folder, not_tested, until},
    service::{Answer, Executions, Gate, Service, paid},
    toolbox::new_claim,
};

/// A file system of its own, unmounted with this value.
struct Disk {
    folder: Folder,
    /// What it is mounted as.
    on: PathBuf,
}

/// Whether the program did what it was told.
fn run(program: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments);
    command.output().is_ok_and(|output| output.status.success())
}

impl Disk {
    /// One megabyte of memory.
    fn small() -> Option<Self> {
        let disk = Self::folder();
        let options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"];
        let options = options.each_ref().map(|option| option as &dyn AsRef<_>);
        let mounted = run("mount", &[&options[..], &[&disk.on]].concat());
        disk.if_there(mounted)
    }

    /// An ext4 of eight megabytes in a file, which becomes read-only when something is wrong with it.
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

    /// Nothing, and word of it, where it could not be made.
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

    /// The kernel finds something wrong with it.
    fn fail(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("what is mounted");
        let mut mounts = mounts.lines().map(|line| line.split(' '));
        let device = mounts.find_map(|mut line| {
            let (device, on) = (line.next()?, line.next()?);
            (Path::new(on) == self.on).then(|| device.trim_start_matches("/dev/").to_owned())
        });
        let device = device.expect("it is mounted");
        assert!(device.starts_with("loop"), "{device} is not ours");
        let switch = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        std::fs::write(switch, "as the test demands").expect("an error");
        let refused = std::fs::write(self.on.join("probe"), b"").expect_err("it is read-only");
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }

    /// Checks and mounts it again, as after a restart of the machine.
    fn repair(&self) {
        until("the file to be closed", || {
            run("umount", &[&self.on]).then_some(())
        });
        // Its exit status says whether there was something to repair.
        let _status = run("e2fsck", &[&"-f", &"-y", &self.image()]);
        assert!(self.mount_image());
    }

    /// Whether the file and its log may be written to, however they were opened.
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

fn answer(bytes: usize) -> Outcome {
    Outcome::Response(response(200, &[], &vec![7; bytes]))
}

/// When the disk is full, nothing that was acknowledged is lost, nobody hangs, and there is room again when
/// there is room again.
#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let Some(disk) = Disk::small() else {
        return;
    };
    let folder = disk.path();
    let store = SqliteStore::connect(&format!("sqlite://{}/records.db", folder.display()))
        .await
        .unwrap();
    std::fs::write(folder.join("filler"), vec![0; 600 << 10]).unwrap();
    let mut stored = Vec::new();
    let (full, unfinished) = loop {
        let owner = new_claim(key(u8::try_from(stored.len() + 1).unwrap()));
        match store.acquire(&owner).await {
            Ok(acquisition) => assert_eq!(acquisition, Acquisition::Acquired { attempt: 1 }),
            Err(error) => break (error, None),
        }
        match store.complete(&owner.held(), &answer(8 << 10)).await {
            Ok(write) => assert_eq!(write, Write::Applied),
            Err(error) => break (error, Some(owner)),
        }
        stored.push(owner);
    };
    // SQLite says "disk full" or, where it meets the limit in its log, "I/O error".
    assert!(
        matches!(
            full.kind(),
            StoreErrorKind::Full | StoreErrorKind::Unavailable
        ),
        "{full:?}"
    );
    assert!(!stored.is_empty());
    for owner in &stored {
        let record = store
            .get(&owner.key)
            .await
            .unwrap()
            .expect("what was acknowledged is there");
        assert_eq!(record.state, RecordState::Completed(answer(8 << 10)));
    }
    std::fs::remove_file(folder.join("filler")).unwrap();
    if let Some(owner) = unfinished {
        assert_eq!(
            store
                .complete(&owner.held(), &answer(8 << 10))
                .await
                .unwrap(),
            Write::Applied
        );
    }
    let next = new_claim(key(250));
    assert_eq!(
        store.acquire(&next).await.unwrap(),
        Acquisition::Acquired { attempt: 1 }
    );
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
            let store = SqliteStore::connect(&disk.url()).await.unwrap();
            let policy = Policy::new().lease(Duration::from_secs(1)).wait(false);
            // A completion is insisted on for three times this time, and tried again later.
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
        let behind = gate.clone();
        let answer = async move { service.pay_behind(&key, &behind).await };
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

/// The kernel made the file system read-only, as it does after an error of the disk: nothing begins, nothing that was
/// acknowledged is lost, and what ran meanwhile is unknown until somebody finds out.
#[test]
fn a_disk_that_fails_refuses_claims_and_loses_nothing_that_was_acknowledged() {
    let Some(disk) = Disk::ext4() else { return };
    let service = OnDisk::start(&disk);
    assert_eq!(service.pay("done"), paid(1, false));
    let running = service.begin("running");
    disk.fail();
    service.refuses("new", 503, "store_unavailable");
    assert_eq!(service.pay("done"), paid(1, true), "reading goes on");
    is_problem(&service.end(running), 409, "outcome_unknown");
    // The process ends without another word to the disk.
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

/// For as long as the file may not be written to, nothing begins. A completion is tried until it may be, by the
/// execution as long as its client has patience, and after that by itself.
#[test]
fn a_file_that_may_not_be_written_to_for_a_while_is_written_to_afterwards() {
    let Some(disk) = Disk::ext4() else { return };
    let service = OnDisk::start(&disk);
    assert_eq!(service.pay("done"), paid(1, false));

    // In time for the client.
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

    // Too late for the client, and not too late.
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
