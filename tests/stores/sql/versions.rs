//! A table that processes of version 1 and of version 2 share: during a rolling deploy, and after it was rolled back. The
//! statements of version 1 are those that it was made with, in `version_1/`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use idempotent_runtime::{
    StoreKey,
    store::{
        Acquisition, AnyStore, Claim, ClaimMode, EndpointLabel, Outcome, StepsRead, Store, Token,
        Write,
        conformance::key,
        sql::{ConnectError, TableName, sqlite::SqliteStore},
    },
};

use super::{new_table, server::ServerKind};
use crate::{
    sqlite::DatabaseFile,
    toolbox::{FIRST, assert_in_flight, done, new_claim, replays},
};

mod each {
    use super::Database;

    macro_rules! on_each_database {
        ($($case:ident,)*) => {
            $(
                mod $case {
                    #[tokio::test]
                    async fn postgres() {
                        super::run(super::Database::postgres(), |old| Box::pin(super::super::$case(old))).await;
                    }
                    #[tokio::test]
                    async fn mysql() {
                        super::run(super::Database::mysql(), |old| Box::pin(super::super::$case(old))).await;
                    }
                    #[tokio::test]
                    async fn sqlite() {
                        super::run(super::Database::sqlite(), |old| Box::pin(super::super::$case(old))).await;
                    }
                }
            )*
        };
    }

    async fn run(
        database: Option<Database>,
        case: fn(Database) -> futures_util::future::BoxFuture<'static, ()>,
    ) {
        if let Some(database) = database {
            case(database).await;
        }
    }

    on_each_database! {
        processes_of_version_1_go_on_beside_a_migrated_table,
        an_upgrade_keeps_all_records_and_may_be_repeated,
        a_table_that_was_not_migrated_is_refused_with_what_to_do,
        a_plain_take_over_of_version_1_leaves_no_transactional_mode,
        a_take_over_of_version_1_leaves_no_steps,
        a_first_table_of_version_2_gets_the_column_of_the_steps,
        a_completed_record_stores_no_steps,
    }
}

macro_rules! frozen {
    ($database:literal: $($name:literal)*) => {
        &[$(($name, include_str!(concat!("version_1/", $database, "/", $name, ".sql"))),)*]
    };
}

const POSTGRES: &[(&str, &str)] = frozen!("postgres":
    "schema" "versions" "version" "claim" "read" "renew" "complete" "release" "abandon" "purge");
const MYSQL: &[(&str, &str)] = frozen!("mysql":
    "schema" "versions" "version" "claim" "read" "lease" "renew" "complete" "release" "abandon" "purge");
const SQLITE: &[(&str, &str)] = frozen!("sqlite":
    "schema" "versions" "version" "claim" "read" "renew" "complete" "release" "abandon" "purge");

const LEASE: Duration = Duration::from_secs(10);
const TTL: Duration = Duration::from_secs(100);

enum Kind {
    Server(ServerKind, String),
    File(DatabaseFile),
}

/// A database, and what a process of version 1 sends to it.
struct Database {
    kind: Kind,
    table: TableName,
    files: &'static [(&'static str, &'static str)],
}

impl Database {
    fn postgres() -> Option<Self> {
        let url = ServerKind::Postgres.shared()?;
        Some(Self::new(Kind::Server(ServerKind::Postgres, url), POSTGRES))
    }

    fn mysql() -> Option<Self> {
        let url = ServerKind::MariaDb.shared()?;
        Some(Self::new(Kind::Server(ServerKind::MariaDb, url), MYSQL))
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "as the servers, which may be missing"
    )]
    fn sqlite() -> Option<Self> {
        let file = DatabaseFile::new();
        std::fs::File::create(file.path()).expect("an empty database");
        Some(Self::new(Kind::File(file), SQLITE))
    }

    fn new(kind: Kind, files: &'static [(&'static str, &'static str)]) -> Self {
        Self {
            kind,
            table: new_table(),
            files,
        }
    }

    async fn run(&self, sql: &str) {
        match &self.kind {
            Kind::Server(kind, url) => kind.run(url, sql).await,
            Kind::File(file) => file.run(sql).await,
        }
    }

    async fn count(&self, sql: &str) -> i64 {
        match &self.kind {
            Kind::Server(kind, url) => kind.count(url, sql).await,
            Kind::File(file) => {
                let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()));
                query
                    .fetch_one(&mut file.connect().await)
                    .await
                    .expect("a number")
            }
        }
    }

    async fn open(&self, migrate: bool) -> Result<AnyStore, ConnectError> {
        match &self.kind {
            Kind::Server(ServerKind::Postgres, url) => {
                let builder = idempotent_runtime::PostgresStore::builder();
                let builder = builder.table(self.table.clone()).migrate(migrate);
                builder.connect(url).await.map(AnyStore::new)
            }
            Kind::Server(ServerKind::MariaDb, url) => {
                let builder = idempotent_runtime::MySqlStore::builder();
                let builder = builder.table(self.table.clone()).migrate(migrate);
                builder.connect(url).await.map(AnyStore::new)
            }
            Kind::File(file) => {
                let builder = SqliteStore::builder();
                let builder = builder.table(self.table.clone()).migrate(migrate);
                builder.connect(&file.url()).await.map(AnyStore::new)
            }
        }
    }

    /// Makes the table as version 1 did.
    async fn make_version_1(&self) {
        self.run(&self.statement("versions", &[])).await;
        self.run(&self.statement("schema", &[])).await;
        let row = match &self.kind {
            Kind::Server(ServerKind::MariaDb, _) => {
                "(version, applied_at) values (1, utc_timestamp(6))"
            }
            _ => "(version) values (1)",
        };
        self.run(&format!("insert into {}_versions {row}", self.table))
            .await;
    }

    fn hex(&self, bytes: &[u8]) -> String {
        let digits = bytes
            .iter()
            .fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"));
        match &self.kind {
            Kind::Server(ServerKind::Postgres, _) => format!(r"'\x{digits}'::bytea"),
            _ => format!("x'{digits}'"),
        }
    }

    /// A statement of version 1 with these values in the order of its parameters.
    fn statement(&self, name: &str, values: &[String]) -> String {
        let (_, text) = self
            .files
            .iter()
            .find(|(file, _)| *file == name)
            .expect("a file");
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"));
        let mut sql = lines.collect::<Vec<_>>().join("\n");
        for (word, name) in [
            ("{table}", self.table.to_string()),
            ("{versions}", format!("{}_versions", self.table)),
            ("{index}", format!("{}_expiry", self.table)),
        ] {
            sql = sql.replace(word, &name);
        }
        for (place, value) in values.iter().enumerate().rev() {
            sql = match &self.kind {
                Kind::Server(ServerKind::Postgres, _) => {
                    sql.replace(&format!("${}", place + 1), value)
                }
                Kind::File(_) => sql.replace(&format!("?{}", place + 1), value),
                Kind::Server(ServerKind::MariaDb, _) => sql,
            };
        }
        if let Kind::Server(ServerKind::MariaDb, _) = &self.kind {
            for value in values {
                sql = sql.replacen('?', value, 1);
            }
        }
        sql
    }

    async fn old_claim(&self, claim: &Claim, take_over: Option<&Token>) {
        let [key, fingerprint, token] = [
            &claim.key.as_bytes()[..],
            claim.fingerprint.as_bytes(),
            claim.token.as_bytes(),
        ]
        .map(|bytes| self.hex(bytes));
        let (lease, ttl, null) = (micros(LEASE), micros(TTL), "null".to_owned());
        let named = take_over.map_or(null.clone(), |token| self.hex(token.as_bytes()));
        let sql = match &self.kind {
            Kind::Server(ServerKind::Postgres, _) => {
                let values = [
                    key,
                    fingerprint,
                    token,
                    lease.to_string(),
                    ttl.to_string(),
                    named,
                    null,
                ];
                self.statement("claim", &values)
            }
            Kind::Server(ServerKind::MariaDb, _) if take_over.is_some() => {
                let end = (lease + ttl).to_string();
                let values = [
                    fingerprint.clone(),
                    token,
                    lease.to_string(),
                    end,
                    null,
                    key,
                    named.clone(),
                    named,
                    fingerprint,
                ];
                self.statement("lease", &values)
            }
            Kind::Server(ServerKind::MariaDb, _) => self
                .statement("claim", &[])
                .replace("{key}", &key)
                .replace("{fingerprint}", &fingerprint)
                .replace("{token}", &token)
                .replace("{lease}", &lease.to_string())
                .replace("{expiry}", &(lease + ttl).to_string())
                .replace("{trace_id}", &null),
            Kind::File(_) => {
                let now = now();
                let (until, end) = (now + lease, now + lease + ttl);
                let values = [
                    key,
                    fingerprint,
                    token,
                    until.to_string(),
                    end.to_string(),
                    null,
                    now.to_string(),
                    named,
                ];
                self.statement("claim", &values)
            }
        };
        self.run(&sql).await;
    }

    async fn old_write(&self, name: &str, claim: &Claim) {
        let response = match done() {
            Outcome::Response(response) => self.hex(response.as_bytes()),
            Outcome::Tombstone => "null".into(),
        };
        let (key, token) = (
            self.hex(claim.key.as_bytes()),
            self.hex(claim.token.as_bytes()),
        );
        let (lease, ttl, now) = (micros(LEASE), micros(TTL), now());
        let numbers = |numbers: &[i64]| numbers.iter().map(i64::to_string).collect::<Vec<_>>();
        let mut values = match (&self.kind, name) {
            (Kind::File(_), "renew") => numbers(&[now + lease, now + lease + ttl]),
            (Kind::File(_), "complete") => vec!["1".into(), response, (now + ttl).to_string()],
            (Kind::File(_), "abandon") => numbers(&[now]),
            (Kind::Server(ServerKind::MariaDb, _), "renew") => numbers(&[lease, lease + ttl]),
            (Kind::Server(..), "renew") => numbers(&[lease, ttl]),
            (Kind::Server(..), "complete") => vec!["1".into(), response, ttl.to_string()],
            _ => Vec::new(),
        };
        if let Kind::Server(ServerKind::MariaDb, _) = self.kind {
            values.extend([key, token]);
        } else {
            values.splice(0..0, [key, token]);
        }
        self.run(&self.statement(name, &values)).await;
    }

    async fn old_purge(&self) {
        let values = match &self.kind {
            Kind::Server(ServerKind::Postgres, _) => ["100".to_owned(), "0".to_owned()],
            Kind::Server(ServerKind::MariaDb, _) => ["0".to_owned(), "100".to_owned()],
            Kind::File(_) => [now().to_string(), "100".to_owned()],
        };
        self.run(&self.statement("purge", &values)).await;
    }

    /// Lets this record expire an hour ago.
    async fn expire(&self, key: &StoreKey) {
        let past = match &self.kind {
            Kind::Server(ServerKind::Postgres, _) => "now() - interval '1 hour'".to_owned(),
            Kind::Server(ServerKind::MariaDb, _) => "utc_timestamp(6) - interval 1 hour".to_owned(),
            Kind::File(_) => (now() - 3_600_000_000).to_string(),
        };
        let key = self.hex(key.as_bytes());
        let table = &self.table;
        let sql = format!(
            "update {table} set lease_until = {past}, expires_at = {past} where store_key = {key}"
        );
        self.run(&sql).await;
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).expect("short")
}

fn now() -> i64 {
    micros(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970"),
    )
}

async fn processes_of_version_1_go_on_beside_a_migrated_table(old: Database) {
    old.make_version_1().await;
    let new = old.open(true).await.expect("migrated");
    let claims: Vec<_> = (1..=6).map(|n| new_claim(key(n))).collect();
    for claim in &claims {
        old.old_claim(claim, None).await;
        assert_in_flight(&new.acquire(&new_claim(claim.key)).await.unwrap());
    }
    let [completed, released, abandoned, renewed, theirs, expired] = &claims[..] else {
        unreachable!("six claims")
    };
    old.old_write("complete", completed).await;
    replays(&new, completed.key, &done()).await;
    old.old_write("release", released).await;
    assert_eq!(new.acquire(&new_claim(released.key)).await.unwrap(), FIRST);
    old.old_write("abandon", abandoned).await;
    let answer = new.acquire(&new_claim(abandoned.key)).await.unwrap();
    let (lease, mode) = (abandoned.token, ClaimMode::Plain);
    assert_eq!(answer, Acquisition::Unknown { lease, mode });
    // A late renewal by version 1, then its record is completed by version 2, and seen by a take-over of version 1.
    old.old_write("abandon", renewed).await;
    old.old_write("renew", renewed).await;
    assert_in_flight(&new.acquire(&new_claim(renewed.key)).await.unwrap());
    assert_eq!(
        new.complete(&theirs.held(), &done()).await.unwrap(),
        Write::Applied
    );
    old.old_claim(&new_claim(theirs.key), Some(&theirs.token))
        .await;
    replays(&new, theirs.key, &done()).await;
    // Each purges what the other has made.
    old.expire(&expired.key).await;
    assert_eq!(new.purge_expired(100).await.unwrap(), 1);
    let fresh = new_claim(key(7));
    assert_eq!(new.acquire(&fresh).await.unwrap(), FIRST);
    old.expire(&fresh.key).await;
    old.old_purge().await;
    let late = new.complete(&fresh.held(), &done()).await.unwrap();
    assert_eq!(late, Write::Missing, "version 1 has purged it");
    replays(&new, completed.key, &done()).await;
    // A process of version 1 that starts now finds its own version: no row is higher.
    assert_eq!(old.count(&old.statement("version", &[])).await, 1);
}

async fn an_upgrade_keeps_all_records_and_may_be_repeated(old: Database) {
    old.make_version_1().await;
    let (completed, held) = (new_claim(key(1)), new_claim(key(2)));
    old.old_claim(&completed, None).await;
    old.old_write("complete", &completed).await;
    old.old_claim(&held, None).await;
    for _ in 0..2 {
        let new = old.open(true).await.expect("migrated");
        replays(&new, completed.key, &done()).await;
        assert_in_flight(&new.acquire(&new_claim(held.key)).await.unwrap());
        // What is not due yet is moved on.
        assert_eq!(new.purge_expired(1).await.unwrap(), 0);
    }
    let new = old.open(false).await.expect("migrated");
    assert_eq!(
        new.complete(&held.held(), &done()).await.unwrap(),
        Write::Applied
    );
    let record = new.get(&completed.key).await.unwrap().expect("a record");
    assert_eq!((record.created_at, record.endpoint), (None, None));
    old.expire(&completed.key).await;
    old.run(&format!("update {0} set purge_at = expires_at", old.table))
        .await;
    assert_eq!(new.purge_expired(100).await.unwrap(), 1);
}

async fn a_table_that_was_not_migrated_is_refused_with_what_to_do(old: Database) {
    old.make_version_1().await;
    let error = old.open(false).await.expect_err("version 1");
    assert!(
        matches!(
            error,
            ConnectError::OtherVersion {
                found: 1,
                known: 2,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("call `migrate()`"), "{error}");
}

/// Otherwise a transactional claim would take over a lease under which something may have happened.
async fn a_plain_take_over_of_version_1_leaves_no_transactional_mode(old: Database) {
    old.make_version_1().await;
    let new = old.open(true).await.expect("migrated");
    let claim = new_claim(key(1))
        .mode(ClaimMode::Transactional)
        .endpoint(EndpointLabel::new("POST /orders/{id}"));
    assert_eq!(new.acquire(&claim).await.unwrap(), FIRST);
    assert_eq!(
        new.abandon(&claim.key, &claim.token).await.unwrap(),
        Write::Applied
    );
    let answer = new.acquire(&new_claim(claim.key)).await.unwrap();
    let (lease, mode) = (claim.token, ClaimMode::Transactional);
    assert_eq!(answer, Acquisition::Unknown { lease, mode });
    let plain = new_claim(claim.key);
    old.old_claim(&plain, Some(&claim.token)).await;
    old.old_write("abandon", &plain).await;
    let answer = new.acquire(&new_claim(claim.key)).await.unwrap();
    let (lease, mode) = (plain.token, ClaimMode::Plain);
    assert_eq!(answer, Acquisition::Unknown { lease, mode });
}

/// Version 1 leaves the column as it is, also when it leases an expired record anew, for which the steps are not.
async fn a_take_over_of_version_1_leaves_no_steps(old: Database) {
    old.make_version_1().await;
    let new = old.open(true).await.expect("migrated");
    let log = new.step_log().expect("a log");
    let claim = new_claim(key(1));
    assert_eq!(new.acquire(&claim).await.unwrap(), FIRST);
    let append = log.append_step(&claim.key, &claim.token, 0, b"one");
    assert_eq!(append.await.unwrap(), Write::Applied);
    new.abandon(&claim.key, &claim.token).await.unwrap();
    let theirs = new_claim(claim.key);
    old.old_claim(&theirs, Some(&claim.token)).await;
    old.old_write("abandon", &theirs).await;
    let next = new_claim(claim.key).take_over(theirs.token);
    let acquired = new.acquire(&next).await.unwrap();
    assert_eq!(acquired, Acquisition::Acquired { attempt: 3 });
    let read = log.read_steps(&next.key, &next.token).await.unwrap();
    assert_eq!(read, StepsRead::Log(Vec::new().into()));
    let append = log.append_step(&next.key, &next.token, 0, b"two");
    assert_eq!(append.await.unwrap(), Write::Applied);
    let read = log.read_steps(&next.key, &next.token).await.unwrap();
    assert_eq!(read, StepsRead::Log(b"two".to_vec().into()));
}

async fn a_first_table_of_version_2_gets_the_column_of_the_steps(old: Database) {
    let new = old.open(true).await.expect("migrated");
    let claim = new_claim(key(1));
    assert_eq!(new.acquire(&claim).await.unwrap(), FIRST);
    old.run(&format!("alter table {} drop column steps", old.table))
        .await;
    let error = old.open(false).await.expect_err("no column");
    assert!(error.to_string().contains("call `migrate()`"), "{error}");
    for _ in 0..2 {
        let new = old.open(true).await.expect("migrated");
        let log = new.step_log().expect("a log");
        let append = log.append_step(&claim.key, &claim.token, 0, b"one");
        assert_eq!(append.await.unwrap(), Write::Applied);
    }
    old.open(false).await.expect("migrated");
}

/// Not only is nothing read of them: what other services answered is not at rest for the ttl.
async fn a_completed_record_stores_no_steps(database: Database) {
    let store = database.open(true).await.expect("migrated");
    let log = store.step_log().expect("a log");
    let claim = new_claim(key(1));
    assert_eq!(store.acquire(&claim).await.unwrap(), FIRST);
    let append = log.append_step(&claim.key, &claim.token, 0, b"one");
    assert_eq!(append.await.unwrap(), Write::Applied);
    let kept = format!(
        "select count(*) from {} where steps is not null",
        database.table
    );
    assert_eq!(database.count(&kept).await, 1);
    let completed = store.complete(&claim.held(), &done()).await.unwrap();
    assert_eq!(
        (completed, database.count(&kept).await),
        (Write::Applied, 0)
    );
}
