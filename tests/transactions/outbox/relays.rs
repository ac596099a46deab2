//! Many relays, and relays that end, stand still or lose their server.

use std::{
    env, fs,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use idempotent_runtime::{
    Idempotency, MemoryStore,
    outbox::{Delivery, NotStarted, Relay},
    store::sql::TableName,
};
use sqlx::{MySql, Postgres, Sqlite};

use super::shop::{Receiver, Shop, quick};
use crate::{
    database::{TestDatabase, World, on_each_database},
    servers::{Folder, Process, mariadb::MariaDb, postgres},
};

on_each_database! {
    ten_relays_deliver_each_message_once,
    a_stop_waits_for_what_is_being_delivered,
    a_stop_gives_back_what_takes_longer,
    no_message_dies_of_stops,
    times_without_end_are_long,
    a_relay_that_is_killed_before_its_mark_delivers_again_with_the_same_id,
    a_relay_that_stood_still_marks_nothing_of_anothers,
}

async fn ten_relays_deliver_each_message_once<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    let receiver = Receiver::default();
    let relays: Vec<_> = (0..10).map(|_| shop.relay(&receiver)).collect();
    let mut ids = Vec::new();
    for n in 0..30 {
        let order = n % 3;
        let topics = format!("mail mail mail@{order}");
        ids.extend(shop.ordered(&format!("k{n}"), &topics).await);
    }
    receiver.until_taken(90).await;
    shop.until_messages(1, 90).await;
    let mut relayed = 0;
    for relay in relays {
        relayed += relay.stop(Duration::from_secs(5)).await.delivered;
    }
    let mut taken = receiver.taken();
    for first in ids.chunks(3) {
        let place = |id: &String| taken.iter().position(|taken| taken == id);
        assert!(place(&first[0]) < place(&first[1]), "in order");
    }
    for order in 0..3 {
        let of_order: Vec<_> = ids
            .iter()
            .skip(2)
            .step_by(3)
            .skip(order)
            .step_by(3)
            .collect();
        let places = of_order
            .iter()
            .map(|id| taken.iter().position(|taken| taken == *id));
        assert!(places.is_sorted(), "in order");
    }
    taken.sort();
    ids.sort();
    assert_eq!(taken, ids);
    assert_eq!(relayed, 90);
}

async fn a_stop_waits_for_what_is_being_delivered<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    let receiver = Receiver::default();
    let relay = shop.relay(&receiver);
    shop.ordered("a", "gate mail").await;
    receiver.until("a delivery", |got| !got.is_empty()).await;
    let mut stopped = pin!(relay.stop(Duration::from_secs(30)));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut stopped).await;
    early.expect_err("it waits");
    receiver.open(1);
    assert_eq!(stopped.await.delivered, 1);
    assert_eq!((shop.messages(1).await, shop.messages(0).await), (1, 1));
    assert_eq!(receiver.got().len(), 1, "nothing more was claimed");
}

async fn a_stop_gives_back_what_takes_longer<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    let receiver = Receiver::default();
    let relay = shop.relay(&receiver);
    shop.ordered("a", "gate").await;
    receiver.until("a delivery", |got| !got.is_empty()).await;
    let relayed = relay.stop(Duration::ZERO).await;
    assert_eq!((relayed.delivered, relayed.failed), (0, 1));
    // Another relay has it at once, long before the claim would have ended.
    let next = shop.relay(&receiver);
    receiver.open(1);
    shop.until_messages(1, 1).await;
    // What was cut off does not count.
    assert_eq!(receiver.got()[1].attempt, 1);
    // Dropped, a relay gives back too.
    shop.ordered("b", "gate").await;
    receiver.until("a delivery", |got| got.len() == 3).await;
    drop(next);
    let last = shop.relay(&receiver);
    receiver
        .until("a second delivery", |got| got.len() == 4)
        .await;
    drop(last);
}

/// A deploy says nothing of a message.
async fn no_message_dies_of_stops<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    let receiver = Receiver::default();
    shop.ordered("a", "gate").await;
    for deliveries in 1..=3 {
        let relay = shop.relay_with(quick().max_attempts(1), &receiver);
        receiver
            .until("a delivery", |got| got.len() == deliveries)
            .await;
        let relayed = relay.stop(Duration::ZERO).await;
        assert_eq!((relayed.failed, relayed.dead), (1, 0));
    }
    let _last = shop.relay_with(quick().max_attempts(1), &receiver);
    receiver.open(1);
    shop.until_messages(1, 1).await;
    assert_eq!(shop.messages(2).await, 0);
}

/// `Duration::MAX` is how people write "never".
async fn times_without_end_are_long<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    let receiver = Receiver::default();
    receiver.fail("down", usize::MAX);
    let never = Duration::MAX;
    let builder = Relay::builder().poll(never).time_out(never);
    let builder = builder.claim_for(never).backoff(never, never);
    shop.ordered("a", "mail").await;
    shop.ordered("b", "down").await;
    let relay = shop.relay_with(builder.keep_delivered(never), &receiver);
    receiver
        .until("both deliveries", |got| got.len() == 2)
        .await;
    let relayed = relay.stop(never).await;
    assert_eq!((relayed.delivered, relayed.failed), (1, 1));
}

/// How long the claims of other processes last.
const CLAIM: Duration = Duration::from_secs(2);

/// A relay in a process of its own, which writes each message that it gets into a file, and then stands still until the
/// file `go` is there.
struct Other {
    process: Process,
    folder: Folder,
}

impl Other {
    fn start<Db: TestDatabase>(world: &World<Db>) -> Self {
        let folder = Folder::new("relay");
        let arguments = [
            "OUTBOX_RELAY=1".to_owned(),
            format!("URL={}", world.url()),
            format!("TABLE={}", world.records),
            format!("FOLDER={}", folder.path().display()),
            this_test().display().to_string(),
            "outbox::relays::another_process".into(),
            "--exact".into(),
            "--nocapture".into(),
        ];
        let process = Process::start(Path::new("/usr/bin/env"), arguments, folder.path());
        Self { process, folder }
    }

    fn got(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("got")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until it has got this many messages.
    async fn until_got(&self, messages: usize) {
        for _ in 0..3_000 {
            if self.got().len() >= messages {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let log = fs::read_to_string(self.folder.path().join("log"));
        panic!("{:?}, {log:?}", self.got());
    }

    async fn until_there(&self, file: &str) -> String {
        let file = self.folder.path().join(file);
        for _ in 0..3_000 {
            match fs::read_to_string(&file) {
                Ok(text) if !text.is_empty() => return text,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("{} is missing", file.display());
    }

    fn go(&self) {
        fs::write(self.folder.path().join("go"), "go").expect("a file");
    }
}

fn this_test() -> PathBuf {
    env::current_exe().expect("this test")
}

/// What [`Other`] starts. In the run of the tests it has nothing to do.
#[tokio::test]
async fn another_process() {
    if env::var_os("OUTBOX_RELAY").is_none() {
        return;
    }
    let url = env::var("URL").expect("a URL");
    match url.split(':').next() {
        Some("postgres") => Box::pin(relay_of_another_process::<Postgres>(&url)).await,
        Some("mysql") => Box::pin(relay_of_another_process::<MySql>(&url)).await,
        _ => Box::pin(relay_of_another_process::<Sqlite>(&url)).await,
    }
}

async fn relay_of_another_process<Db: TestDatabase>(url: &str) {
    use std::io::Write as _;

    let table: TableName = env::var("TABLE").expect("a table").parse().expect("valid");
    let folder = PathBuf::from(env::var_os("FOLDER").expect("a folder"));
    let store = Db::open(url, &table, 1).await;
    let engine = Idempotency::builder().store(store).build();
    let engine = engine.expect("an engine");
    let place = folder.clone();
    let deliver = move |delivery: Delivery| {
        let folder = place.clone();
        async move {
            let mut got = fs::File::options();
            let mut got = got.create(true).append(true).open(folder.join("got"))?;
            writeln!(got, "{}", delivery.id())?;
            while !folder.join("go").exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        }
    };
    let relay = quick().claim_for(CLAIM).time_out(CLAIM * 10);
    let relay = relay.start(&engine, deliver).expect("a relay");
    loop {
        let relayed = relay.relayed();
        if relayed.late > 0 || relayed.delivered > 0 || relayed.failed > 0 {
            fs::write(folder.join("relayed"), format!("{relayed:?}")).expect("a file");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn a_relay_that_is_killed_before_its_mark_delivers_again_with_the_same_id<
    Db: TestDatabase,
>(
    world: World<Db>,
) {
    let shop = Shop::new(world);
    let ids = shop.ordered("a", "mail last").await;
    let mut other = Other::start(&shop.world);
    other.until_got(1).await;
    other.process.kill();
    assert_eq!(other.got(), ids[..1]);
    assert_eq!(shop.messages(0).await, 2);
    let receiver = Receiver::default();
    let relay = shop.relay(&receiver);
    receiver.until_taken(2).await;
    assert_eq!(receiver.taken(), ids);
    assert_eq!(receiver.got()[0].attempt, 2);
    relay.stop(Duration::from_secs(5)).await;
}

/// SIGSTOP and SIGCONT, as of a machine that was suspended.
async fn a_relay_that_stood_still_marks_nothing_of_anothers<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    shop.ordered("a", "gate last").await;
    let mut other = Other::start(&shop.world);
    other.until_got(1).await;
    other.process.signal("-STOP");
    let receiver = Receiver::default();
    let relay = shop.relay(&receiver);
    receiver.until("a take-over", |got| got.len() == 1).await;
    // It comes back, and its delivery succeeds, while the message is another's.
    other.go();
    other.process.signal("-CONT");
    let relayed = other.until_there("relayed").await;
    assert!(relayed.contains("late: 1"), "{relayed}");
    // It would go on with the later message.
    other.process.kill();
    assert_eq!((shop.messages(0).await, shop.messages(1).await), (2, 0));
    assert_eq!(receiver.got().len(), 1, "the later one waits");
    receiver.open(1);
    receiver.until_taken(2).await;
    shop.until_messages(1, 2).await;
    relay.stop(Duration::from_secs(5)).await;
}

macro_rules! survives_its_server {
    ($name:ident, $db:ty, $server:ty) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let Some(mut server) = <$server>::start() else {
                return;
            };
            let world = World::<$db>::on(&server.url()).await;
            let shop = Shop::new(world);
            let receiver = Receiver::default();
            let relay = shop.relay_with(quick().claim_for(CLAIM), &receiver);
            let mut ids = shop.ordered("a", "gate last").await;
            receiver.until("a delivery", |got| got.len() == 1).await;
            server.kill();
            // Delivered, and the mark is not acknowledged.
            receiver.open(1);
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.restart();
            receiver.open(10);
            shop.until_messages(1, 2).await;
            ids.extend(shop.ordered("b", "mail").await);
            shop.until_messages(1, 3).await;
            let mut taken = receiver.taken();
            taken.dedup();
            assert_eq!(taken, ids);
            relay.stop(Duration::from_secs(5)).await;
        }
    };
}

survives_its_server!(
    a_relay_goes_on_when_postgres_is_back,
    Postgres,
    postgres::Postgres
);
survives_its_server!(a_relay_goes_on_when_mariadb_is_back, MySql, MariaDb);

#[tokio::test]
async fn a_store_without_an_outbox_is_refused_at_the_start() {
    let engine = Idempotency::builder().store(MemoryStore::new()).build();
    let engine = engine.expect("an engine");
    let started = Relay::builder().start(&engine, async |_: Delivery| Ok(()));
    let refused = started.expect_err("no outbox");
    assert_eq!(refused, NotStarted::NoOutbox { store: "memory" });
    assert_eq!(
        refused.to_string(),
        "the memory store has no outbox: use PostgreSQL, MySQL, MariaDB or SQLite"
    );
    let listed = engine.outbox().dead_letters(0, 1).await;
    listed.expect_err("no outbox");
}
