//! Transactions on a server: sessions of their own, apart from those of the records.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, Database, SqlSafeStr as _};
use sqlx_core::transaction::TransactionManager as _;
use tokio::sync::OnceCell;

use super::{Marker, Open, Owner, Refusal, Sessions, Statements, store_error};
use crate::store::{
    erased::Operation,
    error::StoreError,
    record::{Held, Outcome, Write},
    sql::{
        TableName,
        dialect::Driver,
        error::Repeat,
        operations::{Change, Records},
        pool::{Connections, Pooled, SessionId},
        server::ServerDialect,
        statements,
    },
    transaction::{GiveUp, OpenTransaction, Resolved, Transactions},
};

/// How a server's transactions are begun, marked and ended.
pub(in crate::store::sql) trait ServerTransactions:
    Driver<Connection: Sync>
{
    /// The condition of the completion that the marker is still there, where that is no statement of its own.
    const MARKED: &'static str;

    /// The statements that begin a transaction with this marker, in one message. The session ends when it is idle for longer
    /// than the lease. What an earlier handler has left in it, is set back: `home` is where it looks for tables whose name has
    /// no schema, if that has to be said.
    fn begin(marker: &str, lease: Duration, home: Option<&str>) -> String;

    /// Removes the marker, where that is a statement; `false` if it is gone.
    fn unmark(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// Whether the transaction with this marker still is open, as far as that can be told.
    fn is_whole(
        connection: &mut Self::Connection,
        marker: &str,
    ) -> impl Future<Output = Result<bool, sqlx::Error>> + Send;

    /// What an error of the completion or of COMMIT means.
    fn refusal(error: &sqlx::Error) -> Refusal;

    /// The schema in which a session finds a table whose name has none: a handler may change where its session looks. Notes
    /// how large an outcome may be, too. Asked once for each store.
    fn look_around(
        connection: &mut Self::Connection,
        table: &TableName,
        largest: &Largest,
    ) -> impl Future<Output = Result<Option<String>, sqlx::Error>> + Send;

    /// What the server calls this session, if it has to be asked for it.
    fn identify(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<SessionId, sqlx::Error>> + Send;

    /// Ends the session of a transaction that is in doubt, on another connection. An error if it may not be ended.
    fn end(
        connection: &mut Self::Connection,
        lost: &Lost,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// How large the message of a completion may be, in bytes, as far as it is known.
pub(in crate::store::sql) type Largest = Option<Arc<AtomicU64>>;

/// What a completion has beside its outcome, in bytes: key, token, numbers and header.
pub(in crate::store::sql) const REST_OF_PACKET: u64 = 1 << 10;

/// Why the statements are there.
const MADE: &str = "they are made before the first transaction begins";

/// Begins transactions.
pub(in crate::store::sql) struct Pool<D: ServerDialect>(Arc<Inner<D>>);

struct Inner<D: ServerDialect> {
    /// Those of the transactions.
    connections: Connections<D>,
    /// Those of the records.
    records: Connections<D>,
    table: TableName,
    /// Made with the first transaction.
    prepared: OnceCell<Prepared>,
    of_records: statements::Statements,
    largest: Largest,
    time_out: Duration,
}

/// What all transactions need, and only a session says.
struct Prepared {
    /// They name the table with its schema.
    statements: Statements,
    /// The schema where sessions begin.
    home: Option<String>,
}

struct Session<D: ServerDialect> {
    pooled: Pooled<D>,
    marker: Marker,
    id: SessionId,
}

/// The session of a transaction in doubt.
#[derive(Debug)]
pub(in crate::store::sql) struct Lost {
    /// The marker in hexadecimal digits.
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "MySQL knows it by its id")
    )]
    pub(in crate::store::sql) marker: String,
    #[cfg_attr(
        not(feature = "mysql"),
        expect(dead_code, reason = "PostgreSQL knows it by its marker")
    )]
    pub(in crate::store::sql) id: SessionId,
}

impl<D: ServerDialect> Pool<D> {
    pub(in crate::store::sql) fn new(
        records: &Connections<D>,
        table: &TableName,
        largest: Largest,
        (max, time_out): (usize, Duration),
    ) -> Self {
        Self(Arc::new(Inner {
            connections: Connections::own(
                records.options(),
                max,
                time_out,
                Arc::clone(records.watch()),
            ),
            records: records.clone(),
            table: table.clone(),
            prepared: OnceCell::new(),
            of_records: statements::Statements::new::<D>(table),
            largest,
            time_out,
        }))
    }

    /// Closes the connections. Those in use are closed when they are released.
    pub(in crate::store::sql) async fn close(&self) {
        self.0.connections.close().await;
    }
}

impl<D: ServerDialect> Inner<D> {
    /// Begins on another connection where one broke since it was used last, as after a restart of the server.
    async fn begin(self: Arc<Self>, lease: Duration) -> Result<Open<Self>, sqlx::Error> {
        let mut broken = 0;
        loop {
            let mut pooled = self.connections.acquire().await?;
            match self.begin_on(&mut pooled, lease).await {
                Ok((marker, id)) => {
                    return Ok(Open {
                        session: Session { pooled, marker, id },
                        sessions: self,
                    });
                }
                Err(error) if is_lost::<D>(&error) || D::is_ended_by(&error) => {
                    // All older ones may be broken too.
                    pooled.invalidate();
                    broken += 1;
                    if broken > self.connections.max() {
                        return Err(error);
                    }
                }
                Err(error) => {
                    // It may have begun.
                    pooled.close();
                    return Err(error);
                }
            }
        }
    }

    async fn begin_on(
        &self,
        pooled: &mut Pooled<D>,
        lease: Duration,
    ) -> Result<(Marker, SessionId), sqlx::Error> {
        let marker: Marker = rand::random();
        let id = if let Some(id) = pooled.id() {
            id
        } else {
            let id = D::identify(pooled).await?;
            pooled.set_id(id);
            id
        };
        let prepared = self.prepared.get_or_try_init(|| async {
            let home = D::look_around(pooled, &self.table, &self.largest).await?;
            let table = self.table.clone().found_in(home.clone());
            let statements = Statements::new::<D>(&table, D::MARKED);
            Ok::<_, sqlx::Error>(Prepared { statements, home })
        });
        let home = prepared.await?.home.as_deref();
        // Digits, numbers and a quoted name are all that is inserted.
        let statement = AssertSqlSafe(D::begin(&hex(&marker), lease, home)).into_sql_str();
        <D as Database>::TransactionManager::begin(pooled, Some(statement)).await?;
        Ok((marker, id))
    }
}

/// Whether the connection broke without an answer.
fn is_lost<D: ServerDialect>(error: &sqlx::Error) -> bool {
    D::classify(error).repeat == Repeat::Lost
}

fn hex(marker: &Marker) -> String {
    crate::hex::Hex(marker).to_string()
}

impl<D: ServerDialect> Transactions for Pool<D> {
    fn begin(&self, lease: Duration) -> Operation<'_, Box<dyn OpenTransaction>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let begun = inner.begin(lease).await.map_err(store_error::<D>)?;
            let open: Box<dyn OpenTransaction> = Box::new(begun);
            Ok(open)
        })
    }

    fn database(&self) -> &'static str {
        D::STORE
    }

    fn allows_renewals(&self) -> bool {
        true
    }
}

impl<D: ServerDialect> Sessions for Inner<D> {
    type Database = D;
    type Session = Session<D>;
    type Lost = Lost;

    fn statements(&self) -> &Statements {
        &self.prepared.get().expect(MADE).statements
    }

    fn time_out(&self) -> Duration {
        self.time_out
    }

    async fn unmark(&self, session: &mut Session<D>) -> Result<bool, sqlx::Error> {
        D::unmark(&mut session.pooled).await
    }

    async fn is_whole(&self, session: &mut Session<D>) -> Result<bool, sqlx::Error> {
        D::is_whole(&mut session.pooled, &hex(&session.marker)).await
    }

    fn marker(&self, session: &Session<D>) -> Marker {
        session.marker
    }

    fn clock(&self) -> i64 {
        0
    }

    fn release(&self, session: Session<D>) {
        // There is no error to return.
        let _released = session.pooled.release(Ok(()));
    }

    fn close(&self, session: Session<D>) {
        session.pooled.close();
    }

    fn fits(&self, outcome: &Outcome) -> bool {
        let (Some(largest), Outcome::Response(response)) = (&self.largest, outcome) else {
            return true;
        };
        response.as_bytes().len() as u64 + REST_OF_PACKET <= largest.load(Ordering::Relaxed)
    }

    /// A server commits where its clients look.
    fn check(&self) -> Result<(), sqlx::Error> {
        Ok(())
    }

    fn refusal(&self, error: &sqlx::Error) -> Refusal {
        D::refusal(error)
    }

    fn lost(&self, session: &Session<D>) -> Lost {
        Lost {
            marker: hex(&session.marker),
            id: session.id,
        }
    }

    /// 1. Ends the session: with it the transaction, unless it is committed by then. Otherwise the next step would wait for
    ///    its locks for as long as it lives.
    /// 2. Gives the record up if it is in flight under the token. The row is locked from the completion to the end of its
    ///    transaction: this waits for what is under way, and where it finds the record in flight, there is no COMMIT to come.
    /// 3. If there is nothing to give up, reads who has the record.
    async fn resolve(&self, lost: &Lost, held: &Held, by: GiveUp) -> Result<Resolved, StoreError> {
        let ended = async {
            let mut connection = self.records.acquire().await?;
            let ended = D::end(&mut connection, lost).await;
            connection.release(ended)
        };
        let ended = self.records.bounded(ended).await;
        ended.map_err(store_error::<D>)?;
        let mut records = Records::<D, _>::new(&self.records, &self.of_records, 0);
        let change = match by {
            GiveUp::Release => Change::Release(&held.key, &held.token),
            GiveUp::Abandon => Change::Abandon(&held.key, &held.token),
        };
        match records.write(&change).await? {
            Write::Applied => return Ok(Resolved::RolledBack),
            Write::Missing => return Ok(Resolved::Missing),
            Write::Fenced => {}
        }
        let owner = async {
            let mut connection = self.records.acquire().await?;
            let owner = self.statements().owner::<D>(&mut connection, held).await;
            connection.release(owner)
        };
        let owner = self.records.bounded(owner).await;
        Ok(Owner::resolved(owner.map_err(store_error::<D>)?, held))
    }
}

impl<D: ServerDialect> AsRef<D::Connection> for Session<D> {
    fn as_ref(&self) -> &D::Connection {
        &self.pooled
    }
}

impl<D: ServerDialect> AsMut<D::Connection> for Session<D> {
    fn as_mut(&mut self) -> &mut D::Connection {
        &mut self.pooled
    }
}

impl<D: ServerDialect> fmt::Debug for Pool<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.connections.fmt(f)
    }
}
