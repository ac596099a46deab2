//! The databases that are servers: settings, sessions and operations over pooled connections.

use std::{fmt, sync::Arc, time::Duration};

use sqlx::{Connection, Database, Pool, SqlStr};

use super::{
    ConnectError, SqlStore, SqlStoreBuilder, TableName,
    admin::{Act, Told},
    dialect::{Backend, Dialect},
    error::check_time_out,
    operations::{Access, Change, Records},
    outbox::{OutboxAct, OutboxAnswer},
    pool::Connections,
    purge, setup,
    statement::{Statement, Values},
    statements::Statements,
    transaction::server as transaction,
    watch::{Observed, Watch},
};
use crate::{
    scope::StoreKey,
    store::{
        error::StoreError,
        inspect::{Cursor, Page, Query, Stats},
        record::{Acquisition, Claim, Outcome, Record, Write},
        steps::StepsRead,
        token::Token,
        transaction::Transactions,
        wake::Wake,
        weakness::Accepted,
    },
};

/// A database that is a server.
pub(super) trait ServerDialect:
    Dialect<
        Backend = Server<Self>,
        Settings = Settings<<Self as ServerDialect>::OwnSettings>,
        Options = <<Self as Database>::Connection as Connection>::Options,
    > + transaction::ServerTransactions
{
    /// The builder's settings that only this database has.
    type OwnSettings: Clone + fmt::Debug + Default + Send + Sync;
    /// What only the store on this database has.
    type Own: Send + Sync + 'static;

    fn own(
        settings: &Self::Settings,
        connections: &Connections<Self>,
        table: &TableName,
    ) -> Self::Own;

    /// The largest message that the server takes, in bytes, where it has a limit.
    fn largest_message(own: &Self::Own) -> transaction::Largest {
        let _ = own;
        None
    }

    /// Prepares the session of a new connection of the store's own, on which the server cancels statements after this time.
    fn set_up(
        connection: &mut Self::Connection,
        time_out: Duration,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Whether the session is of no use after this error of the server, as on a primary that became a replica. After any
    /// other it is as before: a time-out of a lock must not cost a connection.
    fn is_ended_by(error: &sqlx::Error) -> bool;

    /// What is asked of each new connection, in one message: the second statement also of servers that refuse the first.
    const QUESTIONS: (Option<&'static str>, &'static str);

    /// Asks a server how it keeps commits and which one it is.
    fn observe(
        connection: &mut Self::Connection,
        questions: SqlStr,
    ) -> impl Future<Output = Result<Observed, sqlx::Error>> + Send;

    /// Checks of the server and the session what an operator cannot accept.
    fn check(
        server: &Server<Self>,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<(), ConnectError>> + Send;

    /// Creates the table or brings it up to date: the [steps](setup::migrate_locked), once however many processes do so.
    fn migrate(
        server: &Server<Self>,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<Option<i64>, sqlx::Error>> + Send;

    /// Checks that the server accepts the outcome.
    fn accepts(
        server: &Server<Self>,
        outcome: &Outcome,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        let _ = (server, outcome);
        async { Ok(()) }
    }

    /// The record under this key was completed, released or abandoned.
    fn changed(server: &Server<Self>, key: &StoreKey) {
        let _ = (server, key);
    }

    fn attach(server: &Server<Self>, wake: Wake) {
        let _ = (server, wake);
    }
}

/// The settings of a builder.
#[derive(Clone, Debug)]
pub(super) struct Settings<O> {
    pub(super) connections: usize,
    /// The largest number of transactions of handlers at the same time.
    pub(super) transactions: usize,
    pub(super) time_out: Duration,
    /// What the operator accepts of the server.
    pub(super) accepted: Accepted,
    /// Those that only this database has.
    pub(super) own: O,
}

/// The records on a server. No connection is held between two statements.
pub(super) struct Server<D: ServerDialect> {
    pub(super) connections: Connections<D>,
    pub(super) statements: Statements,
    pub(super) table: TableName,
    pub(super) settings: D::Settings,
    pub(super) own: D::Own,
    transactions: transaction::Pool<D>,
    cursor: purge::Cursor,
}

impl<O: Default> Default for Settings<O> {
    fn default() -> Self {
        Self {
            connections: 10,
            transactions: 10,
            time_out: Duration::from_secs(2),
            accepted: Accepted::default(),
            own: O::default(),
        }
    }
}

#[expect(private_bounds, reason = "the databases are those of this crate")]
impl<D: ServerDialect> SqlStore<D> {
    /// Creates the table or brings it up to date. Many processes may do so at once.
    ///
    /// # Errors
    ///
    /// If the server refuses, because the schema or database does not exist or the user lacks the permission.
    pub async fn migrate(&self) -> Result<(), ConnectError> {
        setup::migrate(&self.0).await
    }

    /// Checks that the server keeps acknowledged writes, and that the table exists and has this crate's version.
    ///
    /// # Errors
    ///
    /// If one of these is not so.
    pub async fn check(&self) -> Result<(), ConnectError> {
        setup::check(&self.0).await
    }

    /// Closes the store's own connections, including one that listens. Later operations fail. An application's pool stays
    /// open and goes on serving operations.
    pub async fn close(&self) {
        self.0.connections.close().await;
        self.0.transactions.close().await;
    }
}

#[expect(private_bounds, reason = "the databases are those of this crate")]
impl<D: ServerDialect> SqlStoreBuilder<D> {
    /// The largest number of connections. 10 unless set. Making one may take 5 seconds at most; if its statement has
    /// given up by then, it serves the next one.
    pub fn connections(mut self, max: usize) -> Self {
        self.settings.connections = max;
        self
    }

    /// The largest number of [transactions of handlers](crate::Transaction) at the same time, each on a connection of its
    /// own beside those of the records, also with an application's pool. 10 unless set. A request that finds none in the
    /// engine's store time-out is refused with `store_unavailable`, and its key stays free.
    pub fn transactions(mut self, max: usize) -> Self {
        self.settings.transactions = max;
        self
    }

    /// The time after which the server cancels a statement. 2 seconds unless set, like the engine's store time-out. After
    /// twice the time, and at least a second, the store gives up on the server; that is the only limit for statements of an
    /// application's own pool. [`connect`](Self::connect) refuses less than a millisecond.
    ///
    /// | server | what it limits |
    /// |---|---|
    /// | PostgreSQL | statements, and waits for a lock to half of it; at most 24 days |
    /// | MariaDB | statements, in whole seconds, at least one and at most a year |
    /// | MySQL, MariaDB | waits for a lock to half of it, in whole seconds, at least one |
    pub fn time_out(mut self, time_out: Duration) -> Self {
        self.settings.time_out = time_out;
        self
    }

    /// Uses the application's own pool, with the sessions as its hooks set them up; the connections of
    /// [transactions](Self::transactions) and of notifications are made with its options, and without its hooks, which it
    /// does not reveal. Sends nothing to the server: call [`migrate`](SqlStore::migrate) and
    /// [`check`](SqlStore::check) yourself. If the pool has to make a connection for the store, that may take 5 seconds at
    /// most.
    #[must_use]
    pub fn from_pool(self, pool: Pool<D>) -> SqlStore<D> {
        let watch = Arc::new(Watch::new::<D>(&self.table, self.settings.accepted));
        let connections = Connections::of_application(pool, self.settings.time_out, watch);
        let server = Server::new(connections, &self.table, &self.settings);
        SqlStore(Arc::new(server))
    }
}

impl<D: ServerDialect> Server<D> {
    fn new(connections: Connections<D>, table: &TableName, settings: &D::Settings) -> Self {
        let own = D::own(settings, &connections, table);
        Self {
            transactions: transaction::Pool::new(
                &connections,
                table,
                D::largest_message(&own),
                (settings.transactions, settings.time_out),
            ),
            own,
            statements: Statements::new::<D>(table),
            connections,
            table: table.clone(),
            settings: settings.clone(),
            cursor: purge::Cursor::default(),
        }
    }

    /// Connects, migrates if that is asked for, and checks server and table.
    pub(super) async fn open(
        options: D::Options,
        table: &TableName,
        migrate: bool,
        settings: &D::Settings,
    ) -> Result<Self, ConnectError> {
        check_time_out(settings.time_out)?;
        let watch = Arc::new(Watch::new::<D>(table, settings.accepted));
        let connections = Connections::own(options, settings.connections, settings.time_out, watch);
        let server = Self::new(connections, table, settings);
        if migrate {
            setup::migrate(&server).await?;
        }
        setup::check(&server).await?;
        Ok(server)
    }

    fn records(&self) -> Records<'_, D, &Connections<D>> {
        Records::new(&self.connections, &self.statements, 0)
    }
}

impl<D: ServerDialect> Backend for Server<D> {
    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.records().acquire(claim).await
    }

    async fn write(&self, change: Change<'_>) -> Result<Write, StoreError> {
        if let Change::Complete(_, outcome) = change {
            D::accepts(self, outcome).await?;
        }
        let write = self.records().write(&change).await?;
        if write == Write::Applied && !matches!(change, Change::Renew(_)) {
            D::changed(self, change.key());
        }
        Ok(write)
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.records().get(key).await
    }

    async fn purge(&self, limit: usize) -> Result<usize, StoreError> {
        self.records().purge(&self.cursor, limit).await
    }

    async fn read_steps(&self, key: &StoreKey, token: &Token) -> Result<StepsRead, StoreError> {
        self.records().read_steps(key, token).await
    }

    async fn append_step(
        &self,
        key: &StoreKey,
        token: &Token,
        at: usize,
        bytes: &[u8],
    ) -> Result<Write, StoreError> {
        self.records().append_step(key, token, at, bytes).await
    }

    async fn administer(&self, act: Act) -> Result<Told, StoreError> {
        let told = self.records().administer(&act).await?;
        if let (Act::Forget(seen), Told::Forgotten(Write::Applied)) = (&act, &told) {
            D::changed(self, &seen.key);
        }
        Ok(told)
    }

    async fn outbox(&self, act: OutboxAct) -> Result<OutboxAnswer, StoreError> {
        self.records().outbox(&act).await
    }

    async fn list(&self, query: &Query) -> Result<Page, StoreError> {
        self.records().list(query).await
    }

    async fn stats(&self, cursor: Option<&Cursor>, max_scan: usize) -> Result<Stats, StoreError> {
        self.records().stats(cursor, max_scan).await
    }

    fn attach(&self, wake: Wake) {
        D::attach(self, wake);
    }

    fn transactions(&self) -> &dyn Transactions {
        &self.transactions
    }
}

impl<D: ServerDialect> Access<D> for &Connections<D> {
    async fn fetch(
        &mut self,
        statement: &Statement,
        values: &Values<'_>,
    ) -> Result<Vec<D::Row>, sqlx::Error> {
        let fetched = async {
            let mut connection = Connections::acquire(self).await?;
            let rows = D::fetch(&mut connection, statement, values).await;
            connection.release(rows)
        };
        self.bounded(fetched).await
    }

    async fn execute(
        &mut self,
        statement: &Statement,
        values: &Values<'_>,
    ) -> Result<u64, sqlx::Error> {
        let executed = async {
            let mut connection = Connections::acquire(self).await?;
            let done = D::execute(&mut connection, statement, values).await;
            connection.release(done)
        };
        self.bounded(executed).await
    }

    fn connections(&self) -> usize {
        self.max()
    }
}

impl<D: ServerDialect> fmt::Debug for Server<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore")
            .field("name", &D::STORE)
            .field("table", &self.table)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}
