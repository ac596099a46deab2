//! Responses at rest: what a store holds is compressed or sealed, replays are the same to the byte, and what
//! does not open is an error and never an execution.

use std::{path::Path, process::Command, sync::Mutex, time::Duration};

use axum::response::IntoResponse;
use http::StatusCode;
use idempotent_runtime::{
    Builder, Idempotency, Keyring, StoreKey,
    store::{
        Claim, Outcome, RecordState, Store, Token,
        sql::{mysql::MySqlStore, postgres::PostgresStore, sqlite::SqliteStore},
    },
};
use sqlx::{Connection, Executor as _, MySqlConnection, PgConnection, SqliteConnection};

use crate::{
    servers::{Folder, mariadb::MariaDb, postgres::Postgres},
    support::{Answer, Ask, Face, Faulty, Till, ask, real},
};

/// In the body and in a header of every answer.
const SECRET: &str = "iban-de89-3704-0044-0532-0130-00";
const OLD: (u32, [u8; 32]) = (1, [0x11; 32]);
const NEW: (u32, [u8; 32]) = (2, [0x22; 32]);

/// A place for records that outlives the process that wrote them.
trait Shelf {
    type Store: Store;

    /// The store of a process that was just started.
    async fn open(&self) -> Self::Store;
    /// Exchanges what the only two records hold, behind the store's back.
    async fn swap(&self);
    /// Whether these bytes are anywhere in what is kept.
    fn holds(&self, text: &str) -> bool;
}

fn rotated() -> Keyring {
    Keyring::new(NEW.0, NEW.1).and_old(OLD.0, OLD.1)
}

/// A secret before and after much that repeats itself.
fn body() -> Vec<u8> {
    [SECRET, &"paid in full; ".repeat(500), SECRET]
        .concat()
        .into_bytes()
}

fn till() -> Till {
    Till::answering(|n| {
        let headers = [("x-receipt", format!("{SECRET}/{n}"))];
        (StatusCode::CREATED, headers, body()).into_response()
    })
}

/// Asks a process that was just started, with an engine set up like this.
async fn after_restart<S: Shelf>(
    shelf: &S,
    till: &Till,
    set_up: impl FnOnce(Builder) -> Builder,
    key: &str,
) -> Answer {
    let builder = Idempotency::builder().store(shelf.open().await);
    let engine = set_up(builder).build().unwrap();
    ask(&Face::Attribute.shop(&engine, till), &Ask::pay(key)).await
}

#[track_caller]
fn is_replay(again: &Answer, first: &Answer) {
    assert!(again.replayed() && !first.replayed(), "{again:?}");
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.lines("x-receipt"), first.lines("x-receipt"));
}

async fn sealed_responses_open_for_their_record_and_with_their_key_only(shelf: &impl Shelf) {
    // Given two payments, sealed by a process that has ended.
    let till = till();
    let sealing = |builder: Builder| {
        builder
            .compress_from(512)
            .encrypt(Keyring::new(OLD.0, OLD.1))
    };
    let first = after_restart(shelf, &till, sealing, "k1").await;
    let second = after_restart(shelf, &till, sealing, "k2").await;
    assert_eq!(first.body, body());
    assert_eq!(till.starts(), 2);

    // Then nothing that is kept shows what was answered.
    assert!(!shelf.holds(SECRET));

    // When the keys have been rotated, then the replay is the same to the byte.
    let rotating = |builder: Builder| builder.encrypt(rotated());
    is_replay(&after_restart(shelf, &till, rotating, "k1").await, &first);
    is_replay(&after_restart(shelf, &till, rotating, "k2").await, &second);

    // When the old key is gone too early, or all keys, or another key has its id, then it is an error.
    let too_early = |builder: Builder| builder.encrypt(Keyring::new(NEW.0, NEW.1));
    let another = |builder: Builder| builder.encrypt(Keyring::new(OLD.0, NEW.1));
    let unreadable = |answer: Answer| answer.is_problem(500, "record_unreadable");
    unreadable(after_restart(shelf, &till, too_early, "k1").await);
    unreadable(after_restart(shelf, &till, another, "k1").await);
    unreadable(after_restart(shelf, &till, |builder| builder, "k1").await);

    // When somebody exchanges the two, then neither opens for the other's key.
    shelf.swap().await;
    unreadable(after_restart(shelf, &till, rotating, "k1").await);
    unreadable(after_restart(shelf, &till, rotating, "k2").await);

    // And once it is undone, both are what they were. Nothing was executed by any of it.
    shelf.swap().await;
    is_replay(&after_restart(shelf, &till, rotating, "k1").await, &first);
    is_replay(&after_restart(shelf, &till, rotating, "k2").await, &second);
    assert_eq!(till.starts(), 2);
}

async fn compressed_responses_replay_whole_and_unsealed_ones_are_not_trusted(shelf: &impl Shelf) {
    // Given a payment that is stored compressed, and one that is stored as it is.
    let till = till();
    let compressing = |builder: Builder| builder.compress_from(512);
    let compressed = after_restart(shelf, &till, compressing, "k3").await;
    let plain = after_restart(shelf, &till, |builder| builder, "k4").await;

    // Then who looks for it finds it, which it takes to say that it was not to be found above.
    assert!(shelf.holds(SECRET));

    // When a process without the setting replays, then nothing is missing.
    is_replay(
        &after_restart(shelf, &till, |builder| builder, "k3").await,
        &compressed,
    );
    is_replay(
        &after_restart(shelf, &till, compressing, "k4").await,
        &plain,
    );

    // When encryption has been switched on, then what is not sealed is accepted only if that is said.
    let strict = |builder: Builder| builder.encrypt(rotated());
    let migrating = |builder: Builder| builder.encrypt(rotated().accept_plain());
    for (key, first) in [("k3", &compressed), ("k4", &plain)] {
        let refused = after_restart(shelf, &till, strict, key).await;
        refused.is_problem(500, "record_unreadable");
        is_replay(&after_restart(shelf, &till, migrating, key).await, first);
    }
    assert_eq!(till.starts(), 2);
}

/// Both, the sealed one first: it says that nothing is to be found.
async fn at_rest(shelf: &impl Shelf) {
    sealed_responses_open_for_their_record_and_with_their_key_only(shelf).await;
    compressed_responses_replay_whole_and_unsealed_ones_are_not_trusted(shelf).await;
}

#[test]
fn responses_at_rest_in_memory() {
    real(at_rest(&InMemory(Mutex::new(Faulty::new()))));
}

#[test]
fn responses_at_rest_in_a_file() {
    real(at_rest(&InFile(Folder::new("at-rest"))));
}

#[test]
fn responses_at_rest_in_postgres() {
    if let Some(server) = Postgres::start() {
        real(at_rest(&server));
    }
}

#[test]
fn responses_at_rest_in_mariadb() {
    if let Some(server) = MariaDb::start() {
        real(at_rest(&server));
    }
}

/// The store outlives its engines; its bytes are seen where they are written.
struct InMemory(Mutex<Faulty>);

impl InMemory {
    fn store(&self) -> Faulty {
        self.0.lock().unwrap().clone()
    }
}

impl Shelf for InMemory {
    type Store = Faulty;

    async fn open(&self) -> Faulty {
        self.store()
    }

    async fn swap(&self) {
        let (old, new) = (self.store(), Faulty::new());
        let [a, b] = old.keys()[..] else {
            panic!("two records")
        };
        for (key, other) in [(a, b), (b, a)] {
            let record = old.get(&key).await.unwrap().unwrap();
            let day = Duration::from_secs(86_400);
            let claim = Claim::new(key, record.fingerprint, Token::random(), day, day);
            new.acquire(&claim).await.unwrap();
            let outcome = outcome(&old, &other).await;
            new.complete(&claim.held(), &outcome).await.unwrap();
        }
        *self.0.lock().unwrap() = new;
    }

    fn holds(&self, text: &str) -> bool {
        self.store().written().contains(text)
    }
}

async fn outcome(store: &impl Store, key: &StoreKey) -> Outcome {
    match store.get(key).await.unwrap().unwrap().state {
        RecordState::Completed(outcome) => outcome,
        RecordState::InFlight { .. } => panic!("it is completed"),
    }
}

/// A file, its log and whatever else there is in the folder.
struct InFile(Folder);

impl InFile {
    fn url(&self) -> String {
        format!("sqlite://{}", self.0.path().join("records.db").display())
    }
}

impl Shelf for InFile {
    type Store = SqliteStore;

    async fn open(&self) -> SqliteStore {
        SqliteStore::connect(&self.url()).await.unwrap()
    }

    async fn swap(&self) {
        let mut behind = SqliteConnection::connect(&self.url()).await.unwrap();
        let swapped = behind.execute(
            "update idempotency_records as a set response = b.response from idempotency_records as b \
             where a.store_key <> b.store_key",
        );
        assert_eq!(swapped.await.unwrap().rows_affected(), 2);
    }

    fn holds(&self, text: &str) -> bool {
        found(self.0.path(), text)
    }
}

/// The files of the server, its write-ahead log among them.
impl Shelf for Postgres {
    type Store = PostgresStore;

    async fn open(&self) -> PostgresStore {
        let builder = PostgresStore::builder().migrate(true).connections(2);
        builder.connect(&self.url()).await.unwrap()
    }

    async fn swap(&self) {
        let mut behind = PgConnection::connect(&self.url()).await.unwrap();
        let swapped = behind.execute(
            "update idempotency_records as a set response = b.response from idempotency_records as b \
             where a.store_key <> b.store_key",
        );
        assert_eq!(swapped.await.unwrap().rows_affected(), 2);
    }

    fn holds(&self, text: &str) -> bool {
        found(self.folder(), text)
    }
}

/// The files of the server, its redo log among them.
impl Shelf for MariaDb {
    type Store = MySqlStore;

    async fn open(&self) -> MySqlStore {
        let builder = MySqlStore::builder().migrate(true).connections(2);
        builder.connect(&self.url()).await.unwrap()
    }

    async fn swap(&self) {
        let mut behind = MySqlConnection::connect(&self.url()).await.unwrap();
        let before = "create temporary table before_swap as select store_key, response from idempotency_records";
        behind.execute(before).await.unwrap();
        let swapped = behind.execute(
            "update idempotency_records a join before_swap b on a.store_key <> b.store_key \
             set a.response = b.response",
        );
        assert_eq!(swapped.await.unwrap().rows_affected(), 2);
    }

    fn holds(&self, text: &str) -> bool {
        found(self.folder(), text)
    }
}

/// Whether any file under this folder has these bytes.
fn found(folder: &Path, text: &str) -> bool {
    let search = Command::new("grep")
        .args(["--recursive", "--text", "--fixed-strings", "--quiet", text])
        .arg(folder)
        .status();
    match search.expect("grep").code() {
        Some(0) => true,
        Some(1) => false,
        other => panic!("grep ended with {other:?}"),
    }
}
