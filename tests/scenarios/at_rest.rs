//! Responses at rest: what a store holds is compressed or sealed, replays are the same to the byte, and what
//! does not open is an error and never an execution.

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

/// In the body and in a header of every answer.
const SECRET: &str = "iban-de89-3704-0044-0532-0130-00";
const OLD: (u32, [u8; 32]) = (1, [0x11; 32]);
const NEW: (u32, [u8; 32]) = (2, [0x22; 32]);

fn rotated() -> Keyring {
    Keyring::new(NEW.0, NEW.1).and_old(OLD.0, OLD.1)
}

/// A secret before and after much that repeats itself.
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

/// Asks a process that was just started, with an engine set up like this.
async fn after_restart<S: Backend>(
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
fn is_replay(again: &TestResponse, first: &TestResponse) {
    assert!(again.replayed() && !first.replayed(), "{again:?}");
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.lines("x-receipt"), first.lines("x-receipt"));
}

async fn sealed_responses_open_for_their_record_and_with_their_key_only(backend: &impl Backend) {
    // Given two payments, sealed by a process that has ended.
    let handler = handler();
    let sealing = |builder: Builder| {
        builder
            .compress_from(512)
            .encrypt(Keyring::new(OLD.0, OLD.1))
    };
    let first = after_restart(backend, &handler, sealing, "k1").await;
    let second = after_restart(backend, &handler, sealing, "k2").await;
    assert_eq!(first.body, body());
    assert_eq!(handler.starts(), 2);

    // Then nothing that is kept shows what was answered.
    assert!(!backend.contains(SECRET));

    // When the keys have been rotated, then the replay is the same to the byte.
    let rotating = |builder: Builder| builder.encrypt(rotated());
    is_replay(
        &after_restart(backend, &handler, rotating, "k1").await,
        &first,
    );
    is_replay(
        &after_restart(backend, &handler, rotating, "k2").await,
        &second,
    );

    // When the old key is gone too early, or all keys, or another key has its id, then it is an error.
    let too_early = |builder: Builder| builder.encrypt(Keyring::new(NEW.0, NEW.1));
    let another = |builder: Builder| builder.encrypt(Keyring::new(OLD.0, NEW.1));
    let unreadable = |answer: TestResponse| answer.assert_problem(500, "record_unreadable");
    unreadable(after_restart(backend, &handler, too_early, "k1").await);
    unreadable(after_restart(backend, &handler, another, "k1").await);
    unreadable(after_restart(backend, &handler, |builder| builder, "k1").await);

    // When somebody exchanges the two, then neither opens for the other's key.
    backend.swap_responses().await;
    unreadable(after_restart(backend, &handler, rotating, "k1").await);
    unreadable(after_restart(backend, &handler, rotating, "k2").await);

    // And once it is undone, both are what they were. Nothing was executed by any of it.
    backend.swap_responses().await;
    is_replay(
        &after_restart(backend, &handler, rotating, "k1").await,
        &first,
    );
    is_replay(
        &after_restart(backend, &handler, rotating, "k2").await,
        &second,
    );
    assert_eq!(handler.starts(), 2);
}

async fn compressed_responses_replay_whole_and_unsealed_ones_are_not_trusted(
    backend: &impl Backend,
) {
    // Given a payment that is stored compressed, and one that is stored as it is.
    let handler = handler();
    let compressing = |builder: Builder| builder.compress_from(512);
    let compressed = after_restart(backend, &handler, compressing, "k3").await;
    let plain = after_restart(backend, &handler, |builder| builder, "k4").await;

    // Then who looks for it finds it, which it takes to say that it was not to be found above.
    assert!(backend.contains(SECRET));

    // When a process without the setting replays, then nothing is missing.
    is_replay(
        &after_restart(backend, &handler, |builder| builder, "k3").await,
        &compressed,
    );
    is_replay(
        &after_restart(backend, &handler, compressing, "k4").await,
        &plain,
    );

    // When encryption has been switched on, then what is not sealed is accepted only if that is said.
    let strict = |builder: Builder| builder.encrypt(rotated());
    let migrating = |builder: Builder| builder.encrypt(rotated().accept_plain());
    for (key, first) in [("k3", &compressed), ("k4", &plain)] {
        let refused = after_restart(backend, &handler, strict, key).await;
        refused.assert_problem(500, "record_unreadable");
        is_replay(
            &after_restart(backend, &handler, migrating, key).await,
            first,
        );
    }
    assert_eq!(handler.starts(), 2);
}

/// Both, the sealed one first: it says that nothing is to be found.
async fn at_rest(backend: &impl Backend) {
    sealed_responses_open_for_their_record_and_with_their_key_only(backend).await;
    compressed_responses_replay_whole_and_unsealed_ones_are_not_trusted(backend).await;
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
    if let Some(server) = Redis::start() {
        in_real_time(at_rest(&server));
    }
}

/// The largest response that is compressed, and the largest that a compressed one may become.
const LARGEST: usize = 64 << 20;

/// Whatever was stored can be read, on either side of the limit.
#[test]
fn responses_too_large_to_be_compressed_are_kept_and_replayed_as_they_are() {
    in_real_time(async {
        for (bytes, compressed) in [(LARGEST - 1024, true), (LARGEST + 1, false)] {
            // Given an engine that compresses, and a route that keeps responses as large as that.
            let handler = CountingHandler::responding(move |_| vec![0_u8; bytes].into_response());
            let store = MemoryStore::new();
            let policy = Policy::new().max_response(2 * LARGEST);
            let engine = Idempotency::builder().store(store.clone()).policy(policy);
            let engine = engine.compress_from(512).build().unwrap();
            let app = Adapter::Attribute.app(&engine, &handler);

            // When it is asked twice, then the second answer is the first, to the last byte.
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

/// A compressed response of zeros, as LZ4 has it: its head and a zero, that zero again and again, and five more.
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

/// Few bytes that somebody planted do not become many: they are an error before anything is made of them.
#[test]
fn a_planted_response_that_would_become_too_large_is_refused() {
    in_real_time(async {
        for (form, opens) in [(LARGEST, true), (LARGEST + 1, false)] {
            // Given a payment, in whose place somebody planted a response.
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

            // When it is retried, then it is opened if it is as large as what is stored, and else refused.
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
