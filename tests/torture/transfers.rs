//! The transfers: one for each key, and what the database holds of them at the end.

use std::{collections::HashMap, fmt};

use sqlx::{Connection as _, MySqlConnection, PgConnection, SqliteConnection};

/// The accounts of the example, and what they hold together.
const ACCOUNTS: &[u8] = b"abcdefghij";
pub(crate) const TOTAL: i64 = 10_000;

/// More than all accounts hold.
const TOO_MUCH: u64 = 1_000_000;

/// A transfer. No two keys have the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Transfer {
    from: String,
    to: String,
    amount: i64,
}

/// What the database holds.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// The numbers of the rows, by key.
    pub(crate) rows: HashMap<u64, Vec<String>>,
    /// Rows of no key.
    pub(crate) strange: Vec<String>,
    /// What the accounts hold together.
    pub(crate) total: i64,
    /// Records with an outcome, and others.
    pub(crate) completed: i64,
    pub(crate) in_flight: i64,
}

/// The transfer of a key. Each round takes one amount over all pairs of accounts, so that all of them end with what they
/// began with; every 16th transfer is of more than there is.
pub(crate) fn of(key: u64) -> Transfer {
    let accounts = ACCOUNTS.len() as u64;
    let pairs = accounts * (accounts - 1);
    let (round, pair) = (key / pairs, key % pairs);
    let (from, step) = (pair / (accounts - 1), pair % (accounts - 1) + 1);
    let name = |index: u64| {
        let index = usize::try_from(index % accounts).unwrap_or_default();
        char::from(ACCOUNTS[index]).to_string()
    };
    let amount = if key % 16 == 15 {
        TOO_MUCH + round
    } else {
        1 + round
    };
    Transfer {
        from: name(from),
        to: name(from + step),
        amount: i64::try_from(amount).unwrap_or(i64::MAX),
    }
}

impl Books {
    /// Reads the database of this URL, in which these keys were sent.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub(crate) fn read(url: &str, keys: impl Iterator<Item = u64>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let tables = runtime.block_on(tables(url));
        let (rows, total, completed, in_flight) = tables.expect("the books can be read");
        let keys: HashMap<Transfer, u64> = keys.map(|key| (of(key), key)).collect();
        let mut books = Self {
            total,
            completed,
            in_flight,
            ..Self::default()
        };
        for (id, from, to, amount) in rows {
            let transfer = Transfer { from, to, amount };
            match keys.get(&transfer) {
                Some(&key) => books.rows.entry(key).or_default().push(id.to_string()),
                None => books.strange.push(format!("row {id}: {transfer}")),
            }
        }
        books
    }
}

/// A row of a transfer.
type Row = (i64, String, String, i64);

/// The rows, what the accounts hold, the records with an outcome, and those without.
async fn tables(url: &str) -> Result<(Vec<Row>, i64, i64, i64), sqlx::Error> {
    macro_rules! read {
        ($connection:ty) => {{
            let mut database = <$connection>::connect(url).await?;
            let rows: Vec<Row> =
                sqlx::query_as("select id, source, target, amount from transfers order by id")
                    .fetch_all(&mut database)
                    .await?;
            let balances: Vec<i64> = sqlx::query_scalar("select balance from accounts")
                .fetch_all(&mut database)
                .await?;
            let completed = "select count(*) from idempotency_records where state <> 0";
            let completed = sqlx::query_scalar(completed).fetch_one(&mut database);
            let completed = completed.await?;
            let in_flight = "select count(*) from idempotency_records where state = 0";
            let in_flight = sqlx::query_scalar(in_flight).fetch_one(&mut database);
            let in_flight = in_flight.await?;
            database.close().await?;
            Ok((rows, balances.iter().sum(), completed, in_flight))
        }};
    }
    match url.split(':').next() {
        Some("postgres") => read!(PgConnection),
        Some("mysql") => read!(MySqlConnection),
        _ => read!(SqliteConnection),
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, amount } = self;
        write!(
            f,
            "{{\"from\":\"{from}\",\"to\":\"{to}\",\"amount\":{amount}}}"
        )
    }
}
