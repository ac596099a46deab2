//! Stock, reservations and orders.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{
    SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};

use crate::Failure;

const TABLES: &str = "
    create table if not exists stock (item text primary key, pieces integer not null check (pieces >= 0));
    create table if not exists reservations (id text primary key, item text not null);
    create table if not exists orders (id integer primary key, reservation text not null, charge text not null);
    insert into stock (item, pieces) values ('book', 10), ('lamp', 1) on conflict do nothing;
";

/// The shop's database.
#[derive(Clone, Debug)]
pub(crate) struct Shop(SqlitePool);

/// There is no piece left.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct SoldOut;

#[derive(Debug, Serialize)]
pub(crate) struct Books {
    stock: i64,
    reservations: i64,
    orders: i64,
}

impl Shop {
    pub(crate) async fn open(url: &str) -> Result<Self, sqlx::Error> {
        let options: SqliteConnectOptions = url.parse()?;
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(5));
        let pool = SqlitePoolOptions::new()
            .max_connections(5)
            .connect_with(options)
            .await?;
        sqlx::raw_sql(TABLES).execute(&pool).await?;
        Ok(Self(pool))
    }

    /// Reserves a piece under this key, once however often it is called.
    pub(crate) async fn reserve(
        &self,
        key: &str,
        item: &str,
    ) -> Result<Result<String, SoldOut>, Failure> {
        let mut tx = self.0.begin_with("begin immediate").await?;
        let reserved = sqlx::query(
            "insert into reservations (id, item) select ?, item from stock where item = ? and pieces > 0 \
             on conflict do nothing",
        )
        .bind(key)
        .bind(item)
        .execute(&mut *tx)
        .await?;
        if reserved.rows_affected() > 0 {
            sqlx::query("update stock set pieces = pieces - 1 where item = ?")
                .bind(item)
                .execute(&mut *tx)
                .await?;
        }
        let there: i64 = sqlx::query_scalar("select count(*) from reservations where id = ?")
            .bind(key)
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(if there > 0 {
            Ok(key.to_owned())
        } else {
            Err(SoldOut)
        })
    }

    /// Gives the piece back, once however often it is called.
    pub(crate) async fn give_back(&self, reservation: &str) -> Result<(), Failure> {
        let mut tx = self.0.begin_with("begin immediate").await?;
        sqlx::query(
            "update stock set pieces = pieces + 1 where item = (select item from reservations where id = ?)",
        )
        .bind(reservation)
        .execute(&mut *tx)
        .await?;
        sqlx::query("delete from reservations where id = ?")
            .bind(reservation)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    pub(crate) async fn books(&self) -> Result<Books, sqlx::Error> {
        let (stock, reservations, orders) = sqlx::query_as(
            "select (select sum(pieces) from stock), (select count(*) from reservations), (select count(*) from orders)",
        )
        .fetch_one(&self.0)
        .await?;
        Ok(Books {
            stock,
            reservations,
            orders,
        })
    }
}

/// Writes the order in the transaction of its handler. Returns its number.
pub(crate) async fn insert_order(
    tx: &mut SqliteConnection,
    reservation: &str,
    charge: &str,
) -> Result<i64, sqlx::Error> {
    let inserted = sqlx::query("insert into orders (reservation, charge) values (?, ?)")
        .bind(reservation)
        .bind(charge)
        .execute(tx)
        .await?;
    Ok(inserted.last_insert_rowid())
}
