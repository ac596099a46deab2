//! The accounts in each of the three databases. The statements differ in how they name parameters, lock rows and return
//! the id of a new one.

use std::{error::Error, fmt, time::Duration};

use idempotent_runtime::TransactionDatabase;
use sqlx::{Connection, MySql, Pool, Postgres, Sqlite, pool::PoolOptions};

/// The accounts at the beginning.
const NAMES: &[&str] = &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
const BALANCE: i64 = 1_000;

/// How often the tables are created: two processes that start at once may disturb each other.
const ATTEMPTS: usize = 10;

/// Why no money moved.
#[derive(Debug)]
pub(crate) enum TransferError {
    InsufficientFunds,
    UnknownAccount,
    /// An amount below one, or an account to itself.
    Invalid,
    Database(sqlx::Error),
}

impl From<sqlx::Error> for TransferError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// A database with accounts.
pub(crate) trait Bank: TransactionDatabase {
    /// Creates the tables, and the accounts that are missing.
    fn create(pool: &Pool<Self>) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Writes the rows of a transfer, in whatever transaction the connection is. Returns its number.
    fn transfer(
        connection: &mut Self::Connection,
        from: &str,
        to: &str,
        amount: i64,
    ) -> impl Future<Output = Result<i64, TransferError>> + Send;

    /// The balances.
    fn accounts(
        pool: &Pool<Self>,
    ) -> impl Future<Output = Result<Vec<(String, i64)>, sqlx::Error>> + Send;

    /// How many transfers there are.
    fn count(pool: &Pool<Self>) -> impl Future<Output = Result<i64, sqlx::Error>> + Send;
}

/// Opens the database, and creates what is missing.
pub(crate) async fn open<Db: Bank>(url: &str) -> Result<Pool<Db>, Box<dyn Error>> {
    let options: <Db::Connection as Connection>::Options = url.parse()?;
    let pool = PoolOptions::new()
        .max_connections(5)
        .connect_with(options)
        .await?;
    for attempt in 1.. {
        match Db::create(&pool).await {
            Ok(()) => break,
            Err(error) if attempt == ATTEMPTS => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    Ok(pool)
}

macro_rules! bank {
    (
        $db:ty,
        accounts: $accounts:literal, transfers: $transfers:literal, account: $account:literal,
        balances: $balances:literal, debit: $debit:literal, credit: $credit:literal,
        insert: $insert:literal, id: $id:expr $(,)?
    ) => {
        impl Bank for $db {
            async fn create(pool: &Pool<Self>) -> Result<(), sqlx::Error> {
                sqlx::query($accounts).execute(pool).await?;
                sqlx::query($transfers).execute(pool).await?;
                for name in NAMES {
                    sqlx::query($account)
                        .bind(*name)
                        .bind(BALANCE)
                        .execute(pool)
                        .await?;
                }
                Ok(())
            }

            async fn transfer(
                connection: &mut Self::Connection,
                from: &str,
                to: &str,
                amount: i64,
            ) -> Result<i64, TransferError> {
                if amount < 1 || from == to {
                    return Err(TransferError::Invalid);
                }
                // Both rows are locked in the order of their names, so that two transfers cannot wait for each other.
                let balances: Vec<(String, i64)> = sqlx::query_as($balances)
                    .bind(from)
                    .bind(to)
                    .fetch_all(&mut *connection)
                    .await?;
                let balance = |account: &str| {
                    let found = balances.iter().find(|(name, _)| name == account);
                    found
                        .map(|(_, balance)| *balance)
                        .ok_or(TransferError::UnknownAccount)
                };
                balance(to)?;
                if balance(from)? < amount {
                    return Err(TransferError::InsufficientFunds);
                }
                for (statement, account) in [($debit, from), ($credit, to)] {
                    sqlx::query(statement)
                        .bind(amount)
                        .bind(account)
                        .execute(&mut *connection)
                        .await?;
                }
                let insert = sqlx::query($insert).bind(from).bind(to).bind(amount);
                Ok($id(insert, connection).await?)
            }

            async fn accounts(pool: &Pool<Self>) -> Result<Vec<(String, i64)>, sqlx::Error> {
                sqlx::query_as("select name, balance from accounts order by name")
                    .fetch_all(pool)
                    .await
            }

            async fn count(pool: &Pool<Self>) -> Result<i64, sqlx::Error> {
                sqlx::query_scalar("select count(*) from transfers")
                    .fetch_one(pool)
                    .await
            }
        }
    };
}

bank! {
    Sqlite,
    accounts: "create table if not exists accounts (name text primary key, balance integer not null)",
    transfers: "create table if not exists transfers (id integer primary key, source text not null, target text not null, amount integer not null)",
    account: "insert into accounts (name, balance) values (?, ?) on conflict do nothing",
    // The transaction has the whole file locked.
    balances: "select name, balance from accounts where name in (?, ?) order by name",
    debit: "update accounts set balance = balance - ? where name = ?",
    credit: "update accounts set balance = balance + ? where name = ?",
    insert: "insert into transfers (source, target, amount) values (?, ?, ?)",
    id: async |insert: sqlx::query::Query<'_, Sqlite, sqlx::sqlite::SqliteArguments>, connection| {
        Ok::<_, sqlx::Error>(insert.execute(connection).await?.last_insert_rowid())
    },
}

bank! {
    Postgres,
    accounts: "create table if not exists accounts (name text primary key, balance bigint not null)",
    transfers: "create table if not exists transfers (id bigint generated always as identity primary key, source text not null, target text not null, amount bigint not null)",
    account: "insert into accounts (name, balance) values ($1, $2) on conflict do nothing",
    balances: "select name, balance from accounts where name in ($1, $2) order by name for update",
    debit: "update accounts set balance = balance - $1 where name = $2",
    credit: "update accounts set balance = balance + $1 where name = $2",
    insert: "insert into transfers (source, target, amount) values ($1, $2, $3) returning id",
    id: async |insert: sqlx::query::Query<'_, Postgres, sqlx::postgres::PgArguments>, connection| {
        let row = insert.fetch_one(connection).await?;
        sqlx::Row::try_get::<i64, _>(&row, 0)
    },
}

bank! {
    MySql,
    accounts: "create table if not exists accounts (name varchar(64) primary key, balance bigint not null) engine = innodb",
    transfers: "create table if not exists transfers (id bigint auto_increment primary key, source varchar(64) not null, target varchar(64) not null, amount bigint not null) engine = innodb",
    account: "insert ignore into accounts (name, balance) values (?, ?)",
    balances: "select name, balance from accounts where name in (?, ?) order by name for update",
    debit: "update accounts set balance = balance - ? where name = ?",
    credit: "update accounts set balance = balance + ? where name = ?",
    insert: "insert into transfers (source, target, amount) values (?, ?, ?)",
    id: async |insert: sqlx::query::Query<'_, MySql, sqlx::mysql::MySqlArguments>, connection| {
        let done = insert.execute(connection).await?;
        // An id counts up from one.
        Ok::<_, sqlx::Error>(i64::try_from(done.last_insert_id()).unwrap_or(i64::MAX))
    },
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InsufficientFunds => f.write_str("the account has not that much"),
            Self::UnknownAccount => f.write_str("there is no such account"),
            Self::Invalid => f.write_str("the transfer moves nothing"),
            Self::Database(error) => error.fmt(f),
        }
    }
}

impl Error for TransferError {}
