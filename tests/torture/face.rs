//! The HTTP face of the transfer example on each database, as its documentation has it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    app::App,
    nodes::{Node, Setting, demo},
    servers::{Folder, until},
    stores::StoreKind,
};

/// A response: its status, whether it is a replay, and its body.
type Reply = (String, bool, String);

struct Demo(u16);

impl Demo {
    fn exchange(&self, head: &str, body: &str) -> Option<Reply> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.0)).ok()?;
        let length = body.len();
        let request = format!(
            "{head}host: demo\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        let (head, body) = response.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.to_owned();
        let replayed = head.contains("idempotent-replay: true");
        Some((status, replayed, body.to_owned()))
    }

    fn get(&self, path: &str) -> String {
        let reply = self.exchange(&format!("GET {path} HTTP/1.1\r\n"), "");
        reply.expect("an answer").2
    }

    /// Sends a transfer of this amount from `a` to `b`, with this further header.
    fn transfer(&self, key: &str, amount: u64, header: &str) -> Reply {
        let head = format!("POST /api/transfers HTTP/1.1\r\nidempotency-key: {key}\r\n{header}");
        let body = format!("{{\"from\":\"a\",\"to\":\"b\",\"amount\":{amount}}}");
        self.exchange(&head, &body).expect("an answer")
    }
}

fn assert_face(store: &StoreKind) {
    let Some(backend) = store.start() else { return };
    let folder = Folder::new("face");
    let setting = Setting {
        demo: demo(App::Transfers),
        folder: folder.path(),
        ledger: folder.path().join("ledger"),
        store: backend.url(),
        weak: false,
    };
    let mut node = Node::new(0);
    node.start(&setting);
    let demo = Demo(node.port());
    until("the example", || {
        demo.exchange("GET /health HTTP/1.1\r\n", "")
    });
    let begun = "{\"a\":1000,\"b\":1000,\"c\":1000,\"d\":1000,\"e\":1000,\"f\":1000,\"g\":1000,\"h\":1000,\"i\":1000,\"j\":1000}";
    assert_eq!(demo.get("/api/accounts"), begun);

    // A transfer, its replay, and how long it takes with a delay.
    let made = "{\"id\":1,\"from\":\"a\",\"to\":\"b\",\"amount\":5}".to_owned();
    let started = Instant::now();
    let first = demo.transfer("made", 5, "x-delay-ms: 300\r\n");
    assert!(started.elapsed() >= Duration::from_millis(300), "{store:?}");
    assert_eq!(first, ("201".into(), false, made.clone()), "{store:?}");
    assert_eq!(
        demo.transfer("made", 5, ""),
        ("201".into(), true, made),
        "{store:?}"
    );

    // What moves nothing is an outcome too.
    for replayed in [false, true] {
        let (status, again, body) = demo.transfer("too-much", 1_000_000, "");
        assert_eq!((&*status, again), ("409", replayed), "{store:?}");
        assert_eq!(body, "{\"error\":\"insufficient_funds\"}", "{store:?}");
        let (status, again, body) = demo.transfer("panics", 7, "x-panic: 1\r\n");
        assert_eq!((&*status, again), ("500", replayed), "{store:?}");
        assert!(body.contains("\"handler_panicked\""), "{store:?}: {body}");
    }
    assert_eq!(
        demo.get("/api/transfers/count"),
        "{\"rows\":1}",
        "{store:?}"
    );
    let moved = begun
        .replacen("1000", "995", 1)
        .replace("\"b\":1000", "\"b\":1005");
    assert_eq!(demo.get("/api/accounts"), moved, "{store:?}");

    // All of it is in the database: the next process says the same.
    node.start(&setting);
    until("the example", || {
        demo.exchange("GET /health HTTP/1.1\r\n", "")
    });
    assert_eq!(demo.get("/api/accounts"), moved, "{store:?}");
    let (status, again, _) = demo.transfer("too-much", 1_000_000, "");
    assert_eq!((&*status, again), ("409", true), "{store:?}");
}

#[test]
fn the_transfer_example_is_as_documented_on_postgres() {
    assert_face(&StoreKind::Postgres);
}

#[test]
fn the_transfer_example_is_as_documented_on_mariadb() {
    assert_face(&StoreKind::MariaDb);
}

#[test]
fn the_transfer_example_is_as_documented_on_sqlite() {
    assert_face(&StoreKind::Sqlite);
}
