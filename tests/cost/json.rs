//! How much memory it takes to compare the largest JSON bodies by their meaning.

use axum::{Router, body::Body, extract::DefaultBodyLimit, routing::post};
use idempotent_runtime::{FingerprintRule, Idempotency, Policy, idempotent};
use tower::ServiceExt;

const MIB: usize = 1024 * 1024;

#[idempotent]
async fn ignores_its_body() {}

/// The texts that take the most memory, of about this length.
fn texts(bytes: usize) -> [(&'static str, String); 4] {
    let of = |open: &str, repeated: &str, close: &str| {
        let fits = (bytes - open.len() - close.len()) / repeated.len();
        format!("{open}{}{close}", repeated.repeat(fits))
    };
    [
        ("numbers", of("[", "0,", "0]")),
        ("members", of("{", "\"\":0,", "\"\":0}")),
        ("different members", {
            let fits = bytes / 10 - 1;
            let members = (0..fits).map(|n| format!("\"{:05x}\":0,", n % 0xf_ffff));
            format!("{{{}\"\":0}}", members.collect::<String>())
        }),
        ("escaped members", of("{", "\"\\n\":0,", "\"\":0}")),
    ]
}

/// The most bytes that a request with this body takes at one time, without the body itself.
fn most_bytes(json: bool, text: String) -> u64 {
    let rule = FingerprintRule::new();
    let rule = if json { rule.json() } else { rule };
    let policy = Policy::new().fingerprint(rule);
    let engine = Idempotency::builder().policy(policy).build();
    let router: Router = Router::new()
        .route("/", post(ignores_its_body))
        .layer(engine.expect("the settings are valid"))
        .layer(DefaultBodyLimit::disable());
    let request = axum::extract::Request::post("/")
        .header("content-type", "application/json")
        .header("idempotency-key", "k");
    let request = request.body(Body::from(text)).expect("valid");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let mut status = None;
    let counted = allocation_counter::measure(|| {
        let response = runtime.block_on(router.oneshot(request));
        status = Some(response.expect("infallible").status());
    });
    assert_eq!(status, Some(axum::http::StatusCode::OK));
    counted.bytes_max
}

#[test]
fn comparing_json_by_its_meaning_takes_bounded_memory() {
    let more = |what: &str, text: String| {
        let length = text.len() as u64;
        let bytes = most_bytes(false, text.clone());
        let more = most_bytes(true, text).saturating_sub(bytes);
        println!("{what}: {length} bytes take {more} more by meaning");
        (length, more)
    };
    for (what, text) in texts(2 * MIB) {
        let (length, more) = more(what, text);
        assert!(more <= 20 * length, "{what}: {length} bytes take {more}");
    }
    // A longer text has no more values, or counts by its bytes.
    let members = "\"\\n0123456789abcdef\":0,".repeat((1 << 19) - 2);
    for (what, text) in [
        ("many numbers", format!("[{}0]", "0,".repeat(4 * MIB))),
        ("long escaped names", format!("{{{members}\"\":0}}")),
    ] {
        let (length, more) = more(what, text);
        assert!(
            more <= 40 * MIB as u64 + length,
            "{what}: {length} bytes take {more}"
        );
    }
}
