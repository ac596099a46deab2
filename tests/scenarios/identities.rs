//! The digests by which a record is found and compared, frozen for each rule (DESIGN.md, section 6).
//!
//! With another store key a retry executes again, with another fingerprint it is a mismatch. So a difference here needs
//! a new version in the domain of the digest and a note on migration. `VECTORS=overwrite` rewrites the digests, for a
//! change before the first release, or for new vectors.

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use http::Method;
use idempotent_runtime::{
    FingerprintRule, Idempotency, IdempotencyLayer, JsonPointer, Policy, scope, store::Store,
};
use serde_json::Value;

use crate::support::{CountingHandler, FaultyStore, TestRequest, hex, send, with_paused_clock};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/identity_2.json");

async fn bare(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

fn texts(value: &Value) -> Vec<&str> {
    let texts = value.as_array().into_iter().flatten();
    texts.map(|text| text.as_str().unwrap()).collect()
}

fn rule(vector: &Value) -> FingerprintRule {
    let rule = &vector["rule"];
    let mut made = FingerprintRule::new();
    for flag in texts(&rule["flags"]) {
        made = match flag {
            "json" => made.json(),
            "form" => made.form(),
            "ignore_query" => made.ignore_query(),
            "ignore_body" => made.ignore_body(),
            "ignore_content_type" => made.ignore_content_type(),
            other => panic!("{other}"),
        };
    }
    let headers = texts(&rule["headers"]).into_iter();
    made = made.header_names(headers.map(|name| name.parse().unwrap()));
    let pointers: Vec<JsonPointer> = texts(&rule["ignore"])
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    if !pointers.is_empty() {
        made = made.ignore_pointers(pointers);
    }
    made.ignore_query_parameter_names(texts(&rule["parameters"]))
}

/// The store key and the fingerprint under which the engine keeps this vector's request.
async fn identity(vector: &Value) -> (String, String) {
    let store = FaultyStore::new();
    let policy = Policy::new()
        .fingerprint(rule(vector))
        .uuid(vector["uuid"].as_bool().unwrap_or(false));
    let mut builder = Idempotency::builder().store(store.clone()).policy(policy);
    if let Some(secret) = vector["secret"].as_str() {
        builder = builder.secret(secret);
    }
    if let Some(scope) = vector["scope"].as_str() {
        builder = builder.scope(scope::header(scope.parse::<http::HeaderName>().unwrap()));
    }
    let layer = IdempotencyLayer::new(builder.build().unwrap());
    let app = match vector["template"].as_str() {
        Some(template) => Router::new().route(template, any(bare)),
        None => Router::new().fallback(bare),
    };
    let app = match vector["name"].as_str() {
        Some(name) => app.layer(layer.endpoint(name)),
        None => app.layer(layer),
    };
    let handler = CountingHandler::new();
    let method: Method = vector["method"].as_str().unwrap_or("POST").parse().unwrap();
    let path = vector["path"].as_str().unwrap_or("/pay");
    let mut request = TestRequest::new(method, path).key(vector["key"].as_str().unwrap_or("k"));
    for line in vector["request"].as_array().into_iter().flatten() {
        request = request.header(line[0].as_str().unwrap(), line[1].as_str().unwrap());
    }
    let request = request.body(vector["body"].as_str().unwrap_or("").to_owned());
    send(&app.with_state(handler), &request)
        .await
        .assert_charge(1);
    let [key] = store.keys()[..] else {
        panic!("{vector}: not one record");
    };
    let record = store.get(&key).await.unwrap().unwrap();
    (hex(key.as_bytes()), hex(record.fingerprint.as_bytes()))
}

#[test]
fn records_are_found_and_compared_by_frozen_digests() {
    with_paused_clock(async {
        let text = std::fs::read_to_string(FILE).unwrap();
        let mut vectors: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert!(vectors.len() >= 30, "vectors are missing");
        let overwrite = std::env::var("VECTORS").is_ok_and(|value| value == "overwrite");
        for vector in &mut vectors {
            let (store_key, fingerprint) = identity(vector).await;
            if overwrite {
                vector["store_key"] = store_key.into();
                vector["fingerprint"] = fingerprint.into();
                continue;
            }
            assert_eq!(vector["store_key"], store_key, "{vector}");
            assert_eq!(vector["fingerprint"], fingerprint, "{vector}");
        }
        if overwrite {
            let lines: Vec<String> = vectors.iter().map(Value::to_string).collect();
            std::fs::write(FILE, format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
        }
    });
}

#[test]
fn vectors_named_alike_are_one_identity_and_all_others_differ() {
    let vectors: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap();
    let identity = |vector: &Value| (vector["store_key"].clone(), vector["fingerprint"].clone());
    for (n, one) in vectors.iter().enumerate() {
        for other in &vectors[..n] {
            let alike = one["same"] == other["same"];
            assert_eq!(identity(one) == identity(other), alike, "{one} {other}");
        }
    }
}
