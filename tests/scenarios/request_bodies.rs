//! Request bodies: limits, wrong lengths, clients that disconnect before the end (DESIGN.md, section 3, step 3).

use idempotent_runtime::{Idempotency, Policy};

use crate::support::{
    Adapter, Conn, CountingHandler, H2Conn, Server, TestRequest, in_real_time, random_pause,
};

const LIMIT: usize = 64;

async fn app(handler: &CountingHandler) -> Server {
    let engine = Idempotency::builder().policy(Policy::new().max_body(LIMIT));
    Server::start(Adapter::Attribute.app(&engine.build().unwrap(), handler)).await
}

/// A chunked body of these pieces.
fn chunked(pieces: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    for piece in pieces {
        wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        wire.extend_from_slice(piece);
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

#[test]
fn a_body_over_the_limit_claims_nothing_however_its_length_is_announced() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let server = app(&handler).await;
        let body = vec![b'x'; LIMIT + 1];
        let announced = TestRequest::payment("announced").body(body.clone());
        let unannounced = TestRequest::payment("unannounced");
        let mut chunks = unannounced.head("transfer-encoding: chunked");
        chunks.extend(chunked(&[&body[..LIMIT], &body[LIMIT..]]));
        // A length far over the limit, of a body that never arrives.
        let promised = TestRequest::payment("promised").head("content-length: 4000000000");
        for (key, wire) in [
            ("announced", announced.wire()),
            ("unannounced", chunks),
            ("promised", promised),
        ] {
            // When too much arrives, or is announced.
            let mut conn = Conn::open(server.address).await;
            conn.send(&wire).await;
            let answer = conn.answer().await;

            // Then it is refused, and the key was not claimed.
            answer.assert_problem(413, "request_too_large");
            assert!(answer.text().contains(&LIMIT.to_string()), "{answer:?}");
            let before = handler.starts();
            let smaller = TestRequest::payment(key).body(body[..LIMIT].to_vec());
            server.send(&smaller).await.assert_charge(before + 1);
        }
    });
}

#[test]
fn a_chunked_retry_of_a_request_with_a_length_replays() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let server = app(&handler).await;
        server
            .send(&TestRequest::payment("k").body("abcdef"))
            .await
            .assert_charge(1);
        let mut wire = TestRequest::payment("k").head("transfer-encoding: chunked");
        wire.extend(chunked(&[b"ab", b"c", b"def"]));
        wire.extend_from_slice(b"0\r\n\r\n");
        let mut conn = Conn::open(server.address).await;
        conn.send(&wire).await;
        conn.answer().await.assert_replay_of_charge(1);
    });
}

#[test]
fn a_client_that_disconnects_before_the_end_of_its_body_claims_nothing() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let server = app(&handler).await;
        let complete = TestRequest::payment("k").body("0123456789");
        let wire = complete.wire();
        for round in 0..60 {
            // When a client sends a part of its request and disconnects, one way or another.
            let part = wire.len() - 1 - round % 12;
            let mut conn = Conn::open(server.address).await;
            conn.send(&wire[..part]).await;
            random_pause(500).await;
            match round % 3 {
                0 => conn.close(),
                1 => conn.reset(),
                _ => {
                    conn.half_close().await;
                    conn.closed().await;
                }
            }
        }

        // Then nothing was executed, and the first complete request executes.
        assert_eq!(handler.starts(), 0);
        server.send(&complete).await.assert_charge(1);
        server.send(&complete).await.assert_replay_of_charge(1);
    });
}

#[test]
fn an_h2_client_that_resets_its_stream_before_the_end_of_its_body_claims_nothing() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let server = app(&handler).await;
        let complete = TestRequest::payment("k").body("0123456789");
        for round in 0..30 {
            let mut conn = H2Conn::open(server.address).await;
            let mut stream = conn.begin(&complete).await;
            if round % 2 == 0 {
                stream.piece(b"0123456789");
            }
            random_pause(500).await;
            stream.reset();
        }
        let mut conn = H2Conn::open(server.address).await;
        let answer = conn.send(&complete).await.answer().await;
        answer.assert_charge(1);
        assert_eq!(handler.starts(), 1);
        server.send(&complete).await.assert_replay_of_charge(1);
    });
}

#[test]
fn bytes_after_the_announced_length_do_not_belong_to_the_body() {
    in_real_time(async {
        // Given a client that announces less than it sends.
        let handler = CountingHandler::new();
        let server = app(&handler).await;
        let mut wire = TestRequest::payment("k").head("content-length: 3");
        wire.extend_from_slice(b"abcdefgh");
        let mut conn = Conn::open(server.address).await;
        conn.send(&wire).await;

        // Then the body has the announced length: a retry with that body replays.
        conn.answer().await.assert_charge(1);
        server
            .send(&TestRequest::payment("k").body("abc"))
            .await
            .assert_replay_of_charge(1);
        let longer = TestRequest::payment("k").body("abcdefgh");
        server.send(&longer).await.assert_problem(409, "mismatch");
    });
}

#[test]
fn a_client_that_expects_100_continue_gets_it() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let server = app(&handler).await;
        let request = TestRequest::payment("k").header("expect", "100-continue");
        let mut conn = Conn::open(server.address).await;
        conn.send(&request.head("content-length: 5")).await;
        let (status, _) = conn.try_head().await.unwrap();
        assert_eq!(status, 100);
        conn.send(b"hello").await;
        conn.answer().await.assert_charge(1);
    });
}
