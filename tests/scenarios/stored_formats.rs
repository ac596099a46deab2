//! The bytes of records that the first release stored: later versions replay them, and store the same bytes where
//! they use the same format.
//!
//! After an update, a record that is not found or whose fingerprint differs is a payment made twice, and a record
//! that cannot be read is a payment with an unknown outcome. So from the first release on, `vectors/stored_1.json` never changes; a
//! new format gets a file of its own.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode};
use idempotent_runtime::{
    Builder, Fingerprint, Idempotency, Keyring, Policy, StoreKey,
    store::{Outcome, Store},
};
use serde_json::Value;

use crate::{
    servers::{mariadb::MariaDb, postgres::Postgres, redis::Redis},
    support::{
        Adapter, Backend, CountingHandler, FaultyStore, FileBackend, MemoryBackend, PlantedRecord,
        TestRequest, in_real_time, outcome, send, stream,
    },
};

/// The key with which the encrypted vectors are encrypted.
const KEY: (u32, [u8; 32]) = (7, [0x5e; 32]);

/// The first byte of a response that is neither encrypted nor compressed.
const PLAIN: u8 = 1;

/// One record of the file, and the response that it replays.
#[derive(Debug)]
struct StoredVector {
    name: String,
    record: PlantedRecord,
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

fn all() -> Vec<StoredVector> {
    let file: Vec<Value> = serde_json::from_str(include_str!("../vectors/stored_1.json")).unwrap();
    file.iter().map(StoredVector::read).collect()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap().as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.chunks(2).map(byte).collect()
}

impl StoredVector {
    fn read(value: &Value) -> Self {
        let array = |name: &str| bytes(&value[name]).try_into().expect("32 bytes");
        let header = |line: &Value| (line[0].as_str().unwrap().to_owned(), bytes(&line[1]));
        Self {
            name: value["name"].as_str().unwrap().to_owned(),
            record: PlantedRecord {
                key: StoreKey::from_bytes(array("store_key")),
                fingerprint: Fingerprint::from_bytes(array("fingerprint")),
                response: value.get("stored").map(bytes),
            },
            status: u16::try_from(value["status"].as_u64().unwrap()).unwrap(),
            headers: value["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(header)
                .collect(),
            body: bytes(&value["body"]),
        }
    }

    /// Applies the engine's settings that the vector's name stands for.
    fn set_up(&self, builder: Builder) -> Builder {
        let encrypting = |builder: Builder| builder.encrypt(Keyring::new(KEY.0, KEY.1));
        match &*self.name {
            "tombstone" => builder.policy(Policy::new().max_response(8)),
            "compressed" => builder.compress_from(64),
            "sealed" => encrypting(builder),
            "sealed-compressed" => encrypting(builder).compress_from(64),
            _ => builder,
        }
    }

    /// The handler's response.
    fn response(&self) -> Response {
        let mut response = StatusCode::from_u16(self.status).unwrap().into_response();
        for (name, value) in &self.headers {
            let value = HeaderValue::from_bytes(value).unwrap();
            response
                .headers_mut()
                .append(name.parse::<HeaderName>().unwrap(), value);
        }
        *response.body_mut() = match &*self.name {
            "stream" => stream(["data: 1\n\n", "data: 2\n\n"]),
            _ => self.body.clone().into(),
        };
        response
    }
}

async fn assert_all_replay(backend: &impl Backend) {
    for vector in all() {
        // Given a record of the first release.
        backend.plant(&vector.record).await;

        // When its request is sent again, to an engine with the same settings.
        let handler = CountingHandler::new();
        let builder = Idempotency::builder().store(backend.open().await);
        let engine = vector.set_up(builder).build().unwrap();
        let answer = send(
            &Adapter::Layer.app(&engine, &handler),
            &TestRequest::payment(&vector.name),
        )
        .await;

        // Then it is replayed and not executed.
        assert_eq!(handler.starts(), 0, "{}", vector.name);
        if vector.record.response.is_none() {
            answer.assert_problem(409, "response_not_stored");
            continue;
        }
        assert!(answer.replayed(), "{answer:?}");
        assert_eq!(answer.status.as_u16(), vector.status, "{}", vector.name);
        assert_eq!(answer.body, vector.body, "{}", vector.name);
        for (name, _) in &vector.headers {
            let named = |(other, value): &(String, Vec<u8>)| (other == name).then(|| value.clone());
            let expected: Vec<_> = vector.headers.iter().filter_map(named).collect();
            let lines: Vec<_> = answer
                .headers
                .get_all(name)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            assert_eq!(lines, expected, "{}: {name}", vector.name);
        }
    }
}

#[test]
fn records_of_the_first_release_replay_from_memory() {
    in_real_time(assert_all_replay(&MemoryBackend::new()));
}

#[test]
fn records_of_the_first_release_replay_from_a_file() {
    in_real_time(assert_all_replay(&FileBackend::new()));
}

#[test]
fn records_of_the_first_release_replay_from_postgres() {
    if let Some(server) = Postgres::start() {
        in_real_time(assert_all_replay(&server));
    }
}

#[test]
fn records_of_the_first_release_replay_from_mariadb() {
    if let Some(server) = MariaDb::start() {
        in_real_time(assert_all_replay(&server));
    }
}

#[test]
fn records_of_the_first_release_replay_from_redis() {
    if let Some(server) = Redis::start() {
        in_real_time(assert_all_replay(&server));
    }
}

#[test]
fn records_are_stored_in_the_format_of_the_first_release() {
    in_real_time(async {
        let written: Vec<_> = all();
        let names = [
            "plain",
            "empty",
            "headers",
            "stream",
            "tombstone",
            "compressed",
            "sealed",
            "sealed-compressed",
        ];
        assert_eq!(
            written
                .iter()
                .map(|vector| &*vector.name)
                .collect::<Vec<_>>(),
            names
        );
        for vector in written {
            // When the handler gives the same response to the same request.
            let (name, stored) = (vector.name.clone(), &vector.record);
            let store = FaultyStore::new();
            let engine = vector.set_up(Idempotency::builder().store(store.clone()));
            let (key, fingerprint, response) =
                (stored.key, stored.fingerprint, stored.response.clone());
            let handler = CountingHandler::responding(move |_| vector.response());
            let app = Adapter::Layer.app(&engine.build().unwrap(), &handler);
            send(&app, &TestRequest::payment(&name)).await;

            // Then it is stored under the same key, with the same fingerprint, in the same format.
            assert_eq!(store.keys(), [key], "{name}");
            let record = store.get(&key).await.unwrap().unwrap();
            assert_eq!(record.fingerprint, fingerprint, "{name}");
            match (outcome(&store, &key).await, response) {
                (Outcome::Tombstone, None) => {}
                // Nonces are random, and compression may improve: only the first byte, the format, must be equal.
                (Outcome::Response(now), Some(then)) if then[0] != PLAIN => {
                    assert_eq!(now.as_bytes()[0], then[0], "{name}");
                }
                (Outcome::Response(now), Some(then)) => {
                    assert_eq!(now.as_bytes()[..], then, "{name}");
                }
                (now, then) => panic!("{name}: {now:?} for {then:?}"),
            }
        }
    });
}
