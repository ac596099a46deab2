//! Request bodies: limits, lies about length, clients that leave before the end (contract, section 3, step 3).

use idempotent_runtime::{Idempotency, Policy};

use crate::support::{Ask, Conn, Conn2, Face, Server, Till, moment, real};

const LIMIT: usize = 64;

async fn shop(till: &Till) -> Server {
    let engine = Idempotency::builder().policy(Policy::new().max_body(LIMIT));
    Server::start(Face::Attribute.shop(&engine.build().unwrap(), till)).await
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
fn a_body_over_the_limit_claims_nothing_however_its_length_is_told() {
    real(async {
        let till = Till::new();
        let server = shop(&till).await;
        let body = vec![b'x'; LIMIT + 1];
        let told = Ask::pay("told").body(body.clone());
        let untold = Ask::pay("untold");
        let mut chunks = untold.head("transfer-encoding: chunked");
        chunks.extend(chunked(&[&body[..LIMIT], &body[LIMIT..]]));
        // A length that is far over the limit, of a body that never comes.
        let promised = Ask::pay("promised").head("content-length: 4000000000");
        for (key, wire) in [
            ("told", told.wire()),
            ("untold", chunks),
            ("promised", promised),
        ] {
            // When too much arrives, or is announced.
            let mut conn = Conn::open(server.address).await;
            conn.send(&wire).await;
            let answer = conn.answer().await;

            // Then it is refused, and the key is as good as new.
            answer.is_problem(413, "request_too_large");
            assert!(answer.text().contains(&LIMIT.to_string()), "{answer:?}");
            let before = till.starts();
            let smaller = Ask::pay(key).body(body[..LIMIT].to_vec());
            server.ask(&smaller).await.is_charge(before + 1);
        }
    });
}

#[test]
fn a_chunked_retry_of_a_sized_request_is_a_retry() {
    real(async {
        let till = Till::new();
        let server = shop(&till).await;
        server.ask(&Ask::pay("k").body("abcdef")).await.is_charge(1);
        let mut wire = Ask::pay("k").head("transfer-encoding: chunked");
        wire.extend(chunked(&[b"ab", b"c", b"def"]));
        wire.extend_from_slice(b"0\r\n\r\n");
        let mut conn = Conn::open(server.address).await;
        conn.send(&wire).await;
        conn.answer().await.is_replay_of_charge(1);
    });
}

#[test]
fn a_client_gone_before_its_body_was_whole_claims_nothing() {
    real(async {
        let till = Till::new();
        let server = shop(&till).await;
        let whole = Ask::pay("k").body("0123456789");
        let wire = whole.wire();
        for round in 0..60 {
            // When a client sends a part of its request and leaves, one way or another.
            let part = wire.len() - 1 - round % 12;
            let mut conn = Conn::open(server.address).await;
            conn.send(&wire[..part]).await;
            moment(500).await;
            match round % 3 {
                0 => conn.close(),
                1 => conn.reset(),
                _ => {
                    conn.half_close().await;
                    conn.ended().await;
                }
            }
        }

        // Then nothing was executed, and the first whole request executes.
        assert_eq!(till.starts(), 0);
        server.ask(&whole).await.is_charge(1);
        server.ask(&whole).await.is_replay_of_charge(1);
    });
}

#[test]
fn an_h2_client_that_resets_its_stream_before_its_body_was_whole_claims_nothing() {
    real(async {
        let till = Till::new();
        let server = shop(&till).await;
        let whole = Ask::pay("k").body("0123456789");
        for round in 0..30 {
            let mut conn = Conn2::open(server.address).await;
            let mut stream = conn.begin(&whole).await;
            if round % 2 == 0 {
                stream.piece(b"0123456789");
            }
            moment(500).await;
            stream.reset();
        }
        let mut conn = Conn2::open(server.address).await;
        let answer = conn.send(&whole).await.answer().await;
        answer.is_charge(1);
        assert_eq!(till.starts(), 1);
        server.ask(&whole).await.is_replay_of_charge(1);
    });
}

#[test]
fn bytes_after_the_announced_length_do_not_belong_to_the_body() {
    real(async {
        // Given a client that announces less than it sends.
        let till = Till::new();
        let server = shop(&till).await;
        let mut wire = Ask::pay("k").head("content-length: 3");
        wire.extend_from_slice(b"abcdefgh");
        let mut conn = Conn::open(server.address).await;
        conn.send(&wire).await;

        // Then the body is what was announced: the honest retry replays.
        conn.answer().await.is_charge(1);
        server
            .ask(&Ask::pay("k").body("abc"))
            .await
            .is_replay_of_charge(1);
        let longer = Ask::pay("k").body("abcdefgh");
        server.ask(&longer).await.is_problem(409, "mismatch");
    });
}

#[test]
fn a_client_that_expects_to_continue_is_told_to() {
    real(async {
        let till = Till::new();
        let server = shop(&till).await;
        let request = Ask::pay("k").header("expect", "100-continue");
        let mut conn = Conn::open(server.address).await;
        conn.send(&request.head("content-length: 5")).await;
        let (status, _) = conn.try_head().await.unwrap();
        assert_eq!(status, 100);
        conn.send(b"hello").await;
        conn.answer().await.is_charge(1);
    });
}
