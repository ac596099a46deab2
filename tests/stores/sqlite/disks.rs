//! Disks that are full, and disks that become read-only while the file is open.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use idempotent_runtime::{
    Idempotency, IdempotencyLayer, Policy,
    store::{
        Acquisition, Outcome, RecordState, Store, StoreErrorKind, Write,
        conformance::{claim, key, response},
        sql::sqlite::SqliteStore,
    },
};
use tokio::{runtime::Runtime, sync::watch, task::JoinHandle};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::Sqlite;
use crate::servers::{Folder, not_tested, until};

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
        let owner = claim::<Sqlite>(key(u8::try_from(stored.len() + 1).unwrap()));
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
    let next = claim::<Sqlite>(key(250));
    assert_eq!(
        store.acquire(&next).await.unwrap(),
        Acquisition::Acquired { attempt: 1 }
    );
}

/// A process of a service whose records are on the disk.
struct Service {
    runtime: Runtime,
    layer: IdempotencyLayer,
    executions: Arc<AtomicU32>,
    /// Closed, executions do not come to their end.
    open: watch::Sender<bool>,
}

/// Status, body and whether it is a replay.
type Paid = (u16, String, bool);

impl Service {
    fn start(disk: &Disk) -> Self {
        let runtime = Runtime::new().unwrap();
        let store = runtime.block_on(SqliteStore::connect(&disk.url())).unwrap();
        let policy = Policy::new().lease(Duration::from_secs(1)).wait(false);
        let engine = Idempotency::builder().store(store).policy(policy);
        // A completion is insisted on for three times this time, and tried again later.
        let engine = engine.store_timeout(Duration::from_secs(1));
        let engine = runtime.block_on(async { engine.build().unwrap() });
        Self {
            runtime,
            layer: IdempotencyLayer::new(engine),
            executions: Arc::default(),
            open: watch::Sender::new(true),
        }
    }

    fn asking(&self, key: &str) -> JoinHandle<Paid> {
        let (executions, open) = (Arc::clone(&self.executions), self.open.clone());
        let handler = service_fn(move |_| {
            let number = executions.fetch_add(1, Ordering::SeqCst) + 1;
            let mut open = open.subscribe();
            async move {
                open.wait_for(|open| *open).await.expect("it opens");
                let paid = Bytes::from(format!("paid {number}"));
                Ok::<_, Infallible>(Response::new(Full::new(paid)))
            }
        });
        let request = Request::post("/pay").header("idempotency-key", key);
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let answering = self.layer.layer(handler).oneshot(request);
        self.runtime.spawn(async move {
            let response = answering.await.unwrap_or_else(|never| match never {});
            let replayed = response.headers().contains_key("idempotent-replay");
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (
                status,
                String::from_utf8_lossy(&body).into_owned(),
                replayed,
            )
        })
    }

    fn pay(&self, key: &str) -> Paid {
        self.runtime.block_on(self.asking(key)).unwrap()
    }

    /// Begins an execution that does not come to its end.
    fn begin(&self, key: &str) -> JoinHandle<Paid> {
        self.open.send_replace(false);
        let before = self.executed();
        let running = self.asking(key);
        until("the execution", || (self.executed() > before).then_some(()));
        running
    }

    /// Lets what was begun come to its end.
    fn end(&self, running: JoinHandle<Paid>) -> Paid {
        self.open.send_replace(true);
        self.runtime.block_on(running).unwrap()
    }

    fn executed(&self) -> u32 {
        self.executions.load(Ordering::SeqCst)
    }

    fn refuses(&self, key: &str, status: u16, code: &str) {
        let before = self.executed();
        let (answered, body, _) = self.pay(key);
        assert!(
            answered == status && body.contains(code),
            "{key}: {answered} {body}"
        );
        assert_eq!(self.executed(), before, "{key} was executed");
    }
}

fn paid(number: u32, replayed: bool) -> Paid {
    (200, format!("paid {number}"), replayed)
}

/// The kernel made the file system read-only, as it does after an error of the disk: nothing begins, nothing that was
/// acknowledged is lost, and what ran meanwhile is unknown until somebody finds out.
#[test]
fn a_disk_that_fails_refuses_claims_and_loses_nothing_that_was_acknowledged() {
    let Some(disk) = Disk::ext4() else { return };
    let service = Service::start(&disk);
    assert_eq!(service.pay("done"), paid(1, false));
    let running = service.begin("running");
    disk.fail();
    service.refuses("new", 503, "store_unavailable");
    assert_eq!(service.pay("done"), paid(1, true), "reading goes on");
    let (status, body, _) = service.end(running);
    assert!(
        status == 409 && body.contains("outcome_unknown"),
        "{status} {body}"
    );
    // The process ends without another word to the disk.
    service.runtime.shutdown_background();
    drop(service.layer);

    disk.repair();
    let service = Service::start(&disk);
    assert_eq!(service.pay("done"), paid(1, true));
    until("the lease to lapse", || {
        let (status, body, _) = service.pay("running");
        assert_eq!(status, 409, "{body}");
        body.contains("outcome_unknown").then_some(())
    });
    assert_eq!(service.executed(), 0);
    assert_eq!(service.pay("new"), paid(1, false));
}

/// For as long as the file may not be written to, nothing begins. A completion is tried until it may be, by the
/// execution as long as its client has patience, and after that by itself.
#[test]
fn a_file_that_may_not_be_written_to_for_a_while_is_written_to_afterwards() {
    let Some(disk) = Disk::ext4() else { return };
    let service = Service::start(&disk);
    assert_eq!(service.pay("done"), paid(1, false));

    // In time for the client.
    let running = service.begin("in-time");
    disk.writable(false);
    service.refuses("new", 503, "store_unavailable");
    assert_eq!(service.pay("done"), paid(1, true));
    service.open.send_replace(true);
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
    let (status, body, _) = service.end(running);
    assert!(
        status == 409 && body.contains("outcome_unknown"),
        "{status} {body}"
    );
    disk.writable(true);
    let began = Instant::now();
    until("the completion", || {
        let (status, body, replayed) = service.pay("too-late");
        assert!(status == 409 || replayed, "{status} {body}");
        replayed.then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(service.pay("too-late"), paid(3, true));
    assert_eq!(service.pay("new"), paid(4, false));
}
