//! Responses at rest: stores hold them compressed or encrypted, replays are byte-identical, and a record that
//! cannot be decrypted is an error, never a second execution (DESIGN.md, section 4).

use axum::response::IntoResponse;
use http::StatusCode;
use idempotent_runtime::{
    Builder, Idempotency, Keyring, MemoryStore, Policy, StoredResponse,
    store::{Claim, Outcome, Store, Token},
};

use crate::{
    servers::{mariadb::MariaDb, postgres::Postgres, redis::Redis},
    support::{
        Adapter, Backend, CountingHandler, FaultyStore, FileBackend, MemoryBackend, TestRequest,
        TestResponse, in_real_time, send,
    },
};

/// Stands in the body and in a header of every response.
const SECRET: &str = "iban-de89-3704-0044-0532-0130-00";
const OLD: (u32, [u8; 32]) = (1, [0x11; 32]);
const NEW: (u32, [u8; 32]) = (2, [0x22; 32]);

fn rotated() -> Keyring {
    Keyring::new(NEW.0, NEW.1).and_old(OLD.0, OLD.1)
}

/// A secret before and after text that compresses well.
fn body() -> Vec<u8> {
    [SECRET, &"paid in full; ".repeat(500), SECRET]
        .concat()
        .into_bytes()
}

fn handler() -> CountingHandler {
    CountingHandler::responding(|n| {
        let headers = [("x-receipt", format!("{SECRET}/{n}"))];
        (StatusCode::CREATED, headers, body()).into_response()
    })
}

/// Sends a payment to a process that was just started, whose engine has this set-up.
async fn send_after_restart<S: Backend>(
    backend: &S,
    handler: &CountingHandler,
    set_up: impl FnOnce(Builder) -> Builder,
    key: &str,
) -> TestResponse {
    let builder = Idempotency::builder().store(backend.open().await);
    let engine = set_up(builder).build().unwrap();
    send(
        &Adapter::Attribute.app(&engine, handler),
        &TestRequest::payment(key),
    )
    .await
}

#[track_caller]
fn assert_replay(again: &TestResponse, first: &TestResponse) {
    assert!(again.replayed() && !first.replayed(), "{again:?}");
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.lines("x-receipt"), first.lines("x-receipt"));
}

async fn encrypted_responses_decrypt_only_with_their_key_and_for_their_record(
    backend: &impl Backend,
) {
    // Given two payments, stored encrypted by a process that has ended.
    let handler = handler();
    let encrypting = |builder: Builder| {
        builder
            .compress_from(512)
            .encrypt(Keyring::new(OLD.0, OLD.1))
    };
    let first = send_after_restart(backend, &handler, encrypting, "k1").await;
    let second = send_after_restart(backend, &handler, encrypting, "k2").await;
    assert_eq!(first.body, body());
    assert_eq!(handler.starts(), 2);

    // Then no stored byte shows the response.
    assert!(!backend.contains(SECRET));

    // When the keys were rotated, then the replay is byte-identical.
    let rotating = |builder: Builder| builder.encrypt(rotated());
    assert_replay(
        &send_after_restart(backend, &handler, rotating, "k1").await,
        &first,
    );
    assert_replay(
        &send_after_restart(backend, &handler, rotating, "k2").await,
        &second,
    );

    // When the old key was removed too early, or all keys, or another key has its id, then it is an error.
    let too_early = |builder: Builder| builder.encrypt(Keyring::new(NEW.0, NEW.1));
    let another = |builder: Builder| builder.encrypt(Keyring::new(OLD.0, NEW.1));
    let unreadable = |answer: TestResponse| answer.assert_problem(500, "record_unreadable");
    unreadable(send_after_restart(backend, &handler, too_early, "k1").await);
    unreadable(send_after_restart(backend, &handler, another, "k1").await);
    unreadable(send_after_restart(backend, &handler, |builder| builder, "k1").await);

    // When the two responses are swapped in the store, then neither decrypts in the other's record.
    backend.swap_responses().await;
    unreadable(send_after_restart(backend, &handler, rotating, "k1").await);
    unreadable(send_after_restart(backend, &handler, rotating, "k2").await);

    // And swapped back, both replay as before; none of this executed anything.
    backend.swap_responses().await;
    assert_replay(
        &send_after_restart(backend, &handler, rotating, "k1").await,
        &first,
    );
    assert_replay(
        &send_after_restart(backend, &handler, rotating, "k2").await,
        &second,
    );
    assert_eq!(handler.starts(), 2);
}

async fn compressed_responses_replay_in_full_and_unencrypted_ones_are_not_trusted(
    backend: &impl Backend,
) {
    // Given a payment that is stored compressed, and one that is stored as it is.
    let handler = handler();
    let compressing = |builder: Builder| builder.compress_from(512);
    let compressed = send_after_restart(backend, &handler, compressing, "k3").await;
    let plain = send_after_restart(backend, &handler, |builder| builder, "k4").await;

    // Then the search finds the secret: it would have found it in the encrypted case too.
    assert!(backend.contains(SECRET));

    // When a process with the other setting replays, then the response is complete.
    assert_replay(
        &send_after_restart(backend, &handler, |builder| builder, "k3").await,
        &compressed,
    );
    assert_replay(
        &send_after_restart(backend, &handler, compressing, "k4").await,
        &plain,
    );

    // When encryption is switched on, then unencrypted records are accepted only with `accept_plain`.
    let strict = |builder: Builder| builder.encrypt(rotated());
    let migrating = |builder: Builder| builder.encrypt(rotated().accept_plain());
    for (key, first) in [("k3", &compressed), ("k4", &plain)] {
        let refused = send_after_restart(backend, &handler, strict, key).await;
        refused.assert_problem(500, "record_unreadable");
        assert_replay(
            &send_after_restart(backend, &handler, migrating, key).await,
            first,
        );
    }
    assert_eq!(handler.starts(), 2);
}

/// The encrypted case first: it asserts that the backend does not contain the secret, which the other case writes.
async fn at_rest(backend: &impl Backend) {
    encrypted_responses_decrypt_only_with_their_key_and_for_their_record(backend).await;
    compressed_responses_replay_in_full_and_unencrypted_ones_are_not_trusted(backend).await;
}

#[test]
fn responses_at_rest_in_memory() {
    in_real_time(at_rest(&MemoryBackend::new()));
}

#[test]
fn responses_at_rest_in_a_file() {
    in_real_time(at_rest(&FileBackend::new()));
}

#[test]
fn responses_at_rest_in_postgres() {
    if let Some(server) = Postgres::start() {
        in_real_time(at_rest(&server));
    }
}

#[test]
fn responses_at_rest_in_mariadb() {
    if let Some(server) = MariaDb::start() {
        in_real_time(at_rest(&server));
    }
}

#[test]
fn responses_at_rest_in_redis() {
    // Its file is searched, so it has to hold every acknowledged write.
    if let Some(server) = Redis::flushing() {
        in_real_time(at_rest(&server));
    }
}

/// The largest response that is compressed, and the largest that a compressed one may become.
const LARGEST: usize = 64 << 20;

/// Responses on either side of the limit can be read back.
#[test]
fn responses_too_large_to_compress_are_stored_and_replayed_uncompressed() {
    in_real_time(async {
        for (bytes, compressed) in [(LARGEST - 1024, true), (LARGEST + 1, false)] {
            // Given an engine that compresses, and a route that stores responses of this size.
            let handler = CountingHandler::responding(move |_| vec![0_u8; bytes].into_response());
            let store = MemoryStore::new();
            let policy = Policy::new().max_response(2 * LARGEST);
            let engine = Idempotency::builder().store(store.clone()).policy(policy);
            let engine = engine.compress_from(512).build().unwrap();
            let app = Adapter::Attribute.app(&engine, &handler);

            // When the request is sent twice, then the second response equals the first.
            for replayed in [false, true] {
                let answer = send(&app, &TestRequest::payment("large")).await;
                assert_eq!(
                    (answer.status, answer.replayed()),
                    (StatusCode::OK, replayed)
                );
                assert!(answer.body == vec![0; bytes], "{} bytes", answer.body.len());
            }
            assert_eq!(handler.starts(), 1);
            assert_eq!(store.usage().bytes < 1 << 20, compressed);
        }
    });
}

/// A compressed response of zeros in LZ4's format: its head and a zero, that zero repeated, and five more.
fn bomb(form: usize) -> StoredResponse {
    let body = form - 13;
    let head = [&[1, 0, 200, 0, 0], &(body as u64).to_be_bytes()[..], &[0]].concat();
    let repeated = form - head.len() - 5 - (15 + 4);
    let mut stored = [
        &[2, 0, 200],
        &u32::try_from(form).unwrap().to_be_bytes()[..],
    ]
    .concat();
    stored.push(0xef);
    stored.extend(head);
    stored.extend([1, 0]);
    stored.extend(vec![255; repeated / 255]);
    stored.push(u8::try_from(repeated % 255).unwrap());
    stored.extend([0x50, 0, 0, 0, 0, 0]);
    StoredResponse::from_bytes(stored.into()).unwrap()
}

/// A small planted record that would decompress to a huge response is an error before anything is decompressed.
#[test]
fn a_planted_response_that_would_decompress_beyond_the_limit_is_refused() {
    in_real_time(async {
        for (form, opens) in [(LARGEST, true), (LARGEST + 1, false)] {
            // Given a payment whose stored response was replaced behind the engine's back.
            let (handler, store) = (CountingHandler::new(), FaultyStore::new());
            let engine = Idempotency::builder().store(store.clone()).build().unwrap();
            send(
                &Adapter::Attribute.app(&engine, &handler),
                &TestRequest::payment("k"),
            )
            .await
            .assert_charge(1);
            let key = store.keys()[0];
            let fingerprint = store.get(&key).await.unwrap().unwrap().fingerprint;
            let day = std::time::Duration::from_secs(86_400);
            let claim = Claim::new(key, fingerprint, Token::random(), day, day);
            let store = MemoryStore::new();
            store.acquire(&claim).await.unwrap();
            let planted = Outcome::Response(bomb(form));
            store.complete(&claim.held(), &planted).await.unwrap();

            // When it is retried, then the response is decompressed up to the limit and refused beyond it.
            let engine = Idempotency::builder().store(store).build().unwrap();
            let answer = send(
                &Adapter::Attribute.app(&engine, &handler),
                &TestRequest::payment("k"),
            )
            .await;
            if opens {
                assert_eq!(
                    (answer.status, answer.body.len()),
                    (StatusCode::OK, form - 13)
                );
            } else {
                answer.assert_problem(500, "record_unreadable");
            }
            assert_eq!(handler.starts(), 1);
        }
    });
}
