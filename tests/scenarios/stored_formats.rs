//! Records of the first release, byte by byte: later versions replay them, and write the same where they write
//! the same form.
//!
//! A record that is not found, whose fingerprint differs or that cannot be read is a payment made twice, or one
//! that nobody can ask about, for everybody who updates. So `vectors/stored_1.json` never changes; a new form
//! gets a file of its own.

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

/// The key under which the sealed ones are sealed.
const KEY: (u32, [u8; 32]) = (7, [0x5e; 32]);

/// The first byte of a form that is neither sealed nor compressed.
const PLAIN: u8 = 1;

/// One record of the file, and the answer it stands for.
#[derive(Debug)]
struct StoredVector {
    name: String,
    planted: PlantedRecord,
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
            planted: PlantedRecord {
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

    /// The engine's setting, as the name says.
    fn set_up(&self, builder: Builder) -> Builder {
        let sealing = |builder: Builder| builder.encrypt(Keyring::new(KEY.0, KEY.1));
        match &*self.name {
            "tombstone" => builder.policy(Policy::new().max_response(8)),
            "compressed" => builder.compress_from(64),
            "sealed" => sealing(builder),
            "sealed-compressed" => sealing(builder).compress_from(64),
            _ => builder,
        }
    }

    /// What the handler answered.
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

async fn later_versions_replay_them(backend: &impl Backend) {
    for vector in all() {
        // Given a record of the first release.
        backend.plant(&vector.planted).await;

        // When its request comes again, to an engine that was set up as it was.
        let handler = CountingHandler::new();
        let builder = Idempotency::builder().store(backend.open().await);
        let engine = vector.set_up(builder).build().unwrap();
        let answer = send(
            &Adapter::Layer.app(&engine, &handler),
            &TestRequest::payment(&vector.name),
        )
        .await;

        // Then it is answered and not executed.
        assert_eq!(handler.starts(), 0, "{}", vector.name);
        if vector.planted.response.is_none() {
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
    in_real_time(later_versions_replay_them(&MemoryBackend::new()));
}

#[test]
fn records_of_the_first_release_replay_from_a_file() {
    in_real_time(later_versions_replay_them(&FileBackend::new()));
}

#[test]
fn records_of_the_first_release_replay_from_postgres() {
    if let Some(server) = Postgres::start() {
        in_real_time(later_versions_replay_them(&server));
    }
}

#[test]
fn records_of_the_first_release_replay_from_mariadb() {
    if let Some(server) = MariaDb::start() {
        in_real_time(later_versions_replay_them(&server));
    }
}

#[test]
fn records_of_the_first_release_replay_from_redis() {
    if let Some(server) = Redis::start() {
        in_real_time(later_versions_replay_them(&server));
    }
}

#[test]
fn what_the_first_release_wrote_is_still_written() {
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
            // When the handler answers the same to the same request.
            let (name, planted) = (vector.name.clone(), &vector.planted);
            let store = FaultyStore::new();
            let engine = vector.set_up(Idempotency::builder().store(store.clone()));
            let (key, fingerprint, response) =
                (planted.key, planted.fingerprint, planted.response.clone());
            let handler = CountingHandler::responding(move |_| vector.response());
            let app = Adapter::Layer.app(&engine.build().unwrap(), &handler);
            send(&app, &TestRequest::payment(&name)).await;

            // Then it is kept under the same key, with the same fingerprint, in the same form.
            assert_eq!(store.keys(), [key], "{name}");
            let record = store.get(&key).await.unwrap().unwrap();
            assert_eq!(record.fingerprint, fingerprint, "{name}");
            match (outcome(&store, &key).await, response) {
                (Outcome::Tombstone, None) => {}
                // Nonces are random, and compression may get better: what counts is the first byte.
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
