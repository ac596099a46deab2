//! An SQLite file that another writer has locked: operations are late, and their callers give them up.

use std::time::Duration;

use idempotent_runtime::store::sql::sqlite::SqliteStore;
use sqlx::{Connection as _, Executor as _, SqliteConnection};

use super::place::{Service, no_wait, refusing_at_first};
use crate::{
    servers::Folder,
    support::{
        CountingHandler, DISCONNECTS, TestRequest, detached, in_real_time, send_and_disconnect,
        wait_until,
    },
};

/// A file, a process of the service on it, and another writer.
struct File {
    service: Service,
    writer: SqliteConnection,
    // After what has it open.
    _folder: Folder,
}

impl File {
    async fn open(handler: &CountingHandler) -> Self {
        let folder = Folder::new("locked");
        let url = format!("sqlite://{}", folder.path().join("records.db").display());
        let store = SqliteStore::connect(&url).await.expect("the file opens");
        // Shorter than SQLite waits for a lock, as by default: 2 of its 5 seconds.
        let limit = Some(Duration::from_secs(1));
        Self {
            service: Service::start(store, &no_wait(), limit, handler).await,
            writer: SqliteConnection::connect(&url).await.expect("a connection"),
            _folder: folder,
        }
    }

    /// From now on no other writer writes, or it does again.
    async fn lock(&mut self, yes: bool) {
        let statement = if yes { "begin immediate" } else { "rollback" };
        self.writer
            .execute(statement)
            .await
            .expect("the statement runs");
    }
}

#[test]
fn an_acquire_that_was_given_up_leaves_no_claim_behind() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let mut file = File::open(&handler).await;
        let request = TestRequest::payment("k");
        file.lock(true).await;
        let answer = file.service.send(&request).await;
        answer.assert_problem(503, "store_unavailable");
        file.lock(false).await;
        file.service.retry(&request).await.assert_charge(1);
    });
}

#[test]
fn an_acquire_whose_client_left_leaves_no_claim_behind() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let mut file = File::open(&handler).await;
        for (n, disconnect) in DISCONNECTS.into_iter().enumerate() {
            let request = TestRequest::payment(&format!("{disconnect:?}"));
            file.lock(true).await;
            // The body has arrived and the acquire waits when the room for executions is asked for: the client is gone
            // by then.
            let server = &file.service.server;
            send_and_disconnect(server, &request, disconnect, async {}).await;
            file.lock(false).await;
            let answer = file.service.retry(&request).await;
            assert_eq!(
                (answer.status.as_u16(), answer.text()),
                (201, &*format!("charge {}", n + 1))
            );
            assert_eq!(handler.starts(), n + 1, "{disconnect:?}");
        }
    });
}

#[test]
fn a_release_that_was_given_up_goes_on_in_the_background() {
    in_real_time(async {
        let handler = refusing_at_first();
        let mut file = File::open(&handler).await;
        let request = TestRequest::payment("k");
        handler.close_gate();
        let mut conn = crate::support::Conn::open(file.service.server.address).await;
        conn.send(&request.wire()).await;
        handler.started(1).await;
        file.lock(true).await;
        handler.open_gate();
        assert_eq!(conn.answer().await.status, 429);
        file.lock(false).await;
        file.service.retry(&request).await.assert_charge(2);
    });
}

#[test]
fn a_completion_that_was_given_up_is_stored_later() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let mut file = File::open(&handler).await;
        let request = TestRequest::payment("k");
        handler.close_gate();
        let mut conn = crate::support::Conn::open(file.service.server.address).await;
        conn.send(&request.wire()).await;
        handler.started(1).await;
        file.lock(true).await;
        handler.open_gate();
        conn.answer().await.assert_problem(409, "outcome_unknown");
        file.lock(false).await;
        wait_until(|| detached(&file.service.engine) == 0).await;
        file.service.send(&request).await.assert_replay_of_charge(1);
        assert_eq!(handler.starts(), 1);
    });
}
