//! What stores keep their records in, which outlives the engines and which tests can read and write directly.

use std::{fmt::Write as _, path::Path, process::Command, sync::Mutex, time::Duration};

use idempotent_runtime::{
    Fingerprint, StoreKey, StoredResponse,
    store::{
        Claim, Outcome, RecordState, Store, Token, Write,
        redis::RedisStore,
        sql::{mysql::MySqlStore, postgres::PostgresStore, sqlite::SqliteStore},
    },
};
use sqlx::{
    AssertSqlSafe, Connection, Executor as _, MySqlConnection, PgConnection, SqliteConnection,
};

use super::FaultyStore;
use crate::servers::{Folder, mariadb::MariaDb, postgres::Postgres, redis::Redis};

/// What a store keeps its records in: a server, a file or memory.
pub(crate) trait Backend {
    type Store: Store;

    /// Opens the store, as a process that was just started does.
    async fn open(&self) -> Self::Store;
    /// Writes a completed record behind the store's back, in the format of the first release.
    async fn plant(&self, record: &PlantedRecord);
    /// Swaps the responses of the only two records behind the store's back.
    async fn swap_responses(&self);
    /// Whether these bytes are anywhere in the stored data.
    fn contains(&self, text: &str) -> bool;
}

/// A record to be planted. Without a response it is a tombstone.
#[derive(Debug)]
pub(crate) struct PlantedRecord {
    pub(crate) key: StoreKey,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) response: Option<Vec<u8>>,
}

impl PlantedRecord {
    /// The statement that inserts the record's row, in the table of the first release.
    fn insert(&self, quote: fn(&str) -> String, in_a_day: &str) -> String {
        let [key, fingerprint, token] = [
            &self.key.as_bytes()[..],
            &self.fingerprint.as_bytes()[..],
            &[7; 16],
        ]
        .map(|bytes| quote(&hex(bytes)));
        let (state, response) = match &self.response {
            Some(bytes) => (1, quote(&hex(bytes))),
            None => (2, "null".to_owned()),
        };
        format!(
            "insert into idempotency_records (store_key, fingerprint, token, attempt, state, lease_until, \
             expires_at, trace_id, response) values ({key}, {fingerprint}, {token}, 1, {state}, {in_a_day}, \
             {in_a_day}, null, {response})"
        )
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A memory store that outlives its engines. What is written to it is recorded.
pub(crate) struct MemoryBackend(Mutex<FaultyStore>);

impl MemoryBackend {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(FaultyStore::new()))
    }

    fn store(&self) -> FaultyStore {
        self.0.lock().unwrap().clone()
    }
}

impl Backend for MemoryBackend {
    type Store = FaultyStore;

    async fn open(&self) -> FaultyStore {
        self.store()
    }

    async fn plant(&self, record: &PlantedRecord) {
        let outcome = match &record.response {
            Some(bytes) => {
                Outcome::Response(StoredResponse::from_bytes(bytes.clone().into()).unwrap())
            }
            None => Outcome::Tombstone,
        };
        complete(&self.store(), record.key, record.fingerprint, outcome).await;
    }

    async fn swap_responses(&self) {
        let (old, new) = (self.store(), FaultyStore::new());
        let [a, b] = old.keys()[..] else {
            panic!("expected two records")
        };
        for (key, other) in [(a, b), (b, a)] {
            let fingerprint = old.get(&key).await.unwrap().unwrap().fingerprint;
            let outcome = outcome(&old, &other).await;
            complete(&new, key, fingerprint, outcome).await;
        }
        *self.0.lock().unwrap() = new;
    }

    fn contains(&self, text: &str) -> bool {
        self.store().written().contains(text)
    }
}

async fn complete(store: &impl Store, key: StoreKey, fingerprint: Fingerprint, outcome: Outcome) {
    let day = Duration::from_secs(86_400);
    let claim = Claim::new(key, fingerprint, Token::random(), day, day);
    store.acquire(&claim).await.unwrap();
    let written = store.complete(&claim.held(), &outcome).await;
    assert_eq!(written.unwrap(), Write::Applied);
}

pub(crate) async fn outcome(store: &impl Store, key: &StoreKey) -> Outcome {
    match store.get(key).await.unwrap().unwrap().state {
        RecordState::Completed(outcome) => outcome,
        RecordState::InFlight { .. } => panic!("the record is in flight"),
    }
}

/// A SQLite file, with its log and whatever else is in the folder.
pub(crate) struct FileBackend(Folder);

impl FileBackend {
    pub(crate) fn new() -> Self {
        Self(Folder::new("backend"))
    }

    fn url(&self) -> String {
        format!("sqlite://{}", self.0.path().join("records.db").display())
    }
}

impl Backend for FileBackend {
    type Store = SqliteStore;

    async fn open(&self) -> SqliteStore {
        SqliteStore::connect(&self.url()).await.unwrap()
    }

    async fn plant(&self, record: &PlantedRecord) {
        self.open().await;
        let mut behind = SqliteConnection::connect(&self.url()).await.unwrap();
        let insert = record.insert(|hex| format!("x'{hex}'"), "(unixepoch() + 86400) * 1000000");
        behind.execute(AssertSqlSafe(insert)).await.unwrap();
    }

    async fn swap_responses(&self) {
        let mut behind = SqliteConnection::connect(&self.url()).await.unwrap();
        let swapped = behind.execute(
            "update idempotency_records as a set response = b.response from idempotency_records as b \
             where a.store_key <> b.store_key",
        );
        assert_eq!(swapped.await.unwrap().rows_affected(), 2);
    }

    fn contains(&self, text: &str) -> bool {
        contains_bytes(self.0.path(), text)
    }
}

/// The files of the server, including its write-ahead log.
impl Backend for Postgres {
    type Store = PostgresStore;

    async fn open(&self) -> PostgresStore {
        let builder = PostgresStore::builder().migrate(true).connections(2);
        builder.connect(&self.url()).await.unwrap()
    }

    async fn plant(&self, record: &PlantedRecord) {
        self.open().await;
        let mut behind = PgConnection::connect(&self.url()).await.unwrap();
        let insert = record.insert(
            |hex| format!(r"'\x{hex}'"),
            "clock_timestamp() + interval '1 day'",
        );
        behind.execute(AssertSqlSafe(insert)).await.unwrap();
    }

    async fn swap_responses(&self) {
        let mut behind = PgConnection::connect(&self.url()).await.unwrap();
        let swapped = behind.execute(
            "update idempotency_records as a set response = b.response from idempotency_records as b \
             where a.store_key <> b.store_key",
        );
        assert_eq!(swapped.await.unwrap().rows_affected(), 2);
    }

    fn contains(&self, text: &str) -> bool {
        contains_bytes(self.folder(), text)
    }
}

/// The files of the server, including its redo log.
impl Backend for MariaDb {
    type Store = MySqlStore;

    async fn open(&self) -> MySqlStore {
        let builder = MySqlStore::builder().migrate(true).connections(2);
        builder.connect(&self.url()).await.unwrap()
    }

    async fn plant(&self, record: &PlantedRecord) {
        self.open().await;
        let mut behind = MySqlConnection::connect(&self.url()).await.unwrap();
        let insert = record.insert(
            |hex| format!("x'{hex}'"),
            "utc_timestamp(6) + interval 1 day",
        );
        behind.execute(AssertSqlSafe(insert)).await.unwrap();
    }

    async fn swap_responses(&self) {
        let mut behind = MySqlConnection::connect(&self.url()).await.unwrap();
        let before = "create temporary table before_swap as select store_key, response from idempotency_records";
        behind.execute(before).await.unwrap();
        let swapped = behind.execute(
            "update idempotency_records a join before_swap b on a.store_key <> b.store_key \
             set a.response = b.response",
        );
        assert_eq!(swapped.await.unwrap().rows_affected(), 2);
    }

    fn contains(&self, text: &str) -> bool {
        contains_bytes(self.folder(), text)
    }
}

/// The append-only file.
impl Backend for Redis {
    type Store = RedisStore;

    async fn open(&self) -> RedisStore {
        RedisStore::connect(self.url()).await.unwrap()
    }

    async fn plant(&self, record: &PlantedRecord) {
        let name = format!("idempotent:{}", hex(record.key.as_bytes()));
        let (state, response) = match &record.response {
            Some(bytes) => (b"D", &bytes[..]),
            None => (b"T", &b""[..]),
        };
        let fields: [&[u8]; 12] = [
            b"s",
            state,
            b"f",
            record.fingerprint.as_bytes(),
            b"t",
            &[7; 16],
            b"a",
            b"1",
            b"i",
            b"",
            b"r",
            response,
        ];
        let set = [&[b"HSET", name.as_bytes()], &fields[..]].concat();
        assert_eq!(self.ask_bytes(&set), b":6\r\n");
        assert_eq!(self.ask(&["PEXPIRE", &name, "86400000"]), ":1\r\n");
    }

    async fn swap_responses(&self) {
        let swap = r"
            local names = redis.call('KEYS', '*')
            local a, b = redis.call('HGET', names[1], 'r'), redis.call('HGET', names[2], 'r')
            redis.call('HSET', names[1], 'r', b)
            redis.call('HSET', names[2], 'r', a)
            return #names";
        assert_eq!(self.ask(&["EVAL", swap, "0"]), ":2\r\n");
    }

    fn contains(&self, text: &str) -> bool {
        contains_bytes(self.folder(), text)
    }
}

/// Whether any file in this folder contains these bytes.
fn contains_bytes(folder: &Path, text: &str) -> bool {
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
