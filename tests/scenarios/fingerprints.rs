//! Which request is the same as another (DESIGN.md, section 6), over real connections.

use std::fmt::Write;

use http::Method;
use idempotent_runtime::{FingerprintRule, Idempotency, Policy, Profile};

use crate::support::{Adapter, CountingHandler, Server, TestRequest, in_real_time};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// Sends `first`, then each of the others with its key, and asserts that they are replays or mismatches.
async fn assert_compared(
    rule: FingerprintRule,
    first: &TestRequest,
    same: &[TestRequest],
    others: &[TestRequest],
) {
    for adapter in [Adapter::Attribute, Adapter::Layer] {
        let handler = CountingHandler::new();
        let policy = Policy::new().fingerprint(rule.clone());
        let engine = Idempotency::builder().policy(policy).build().unwrap();
        let server = Server::start(adapter.app(&engine, &handler)).await;
        server.send(first).await.assert_charge(1);
        for request in others {
            let answer = server.send(request).await;
            assert_eq!(answer.code(), "mismatch", "{request:?}");
        }
        for request in same {
            let answer = server.send(request).await;
            assert!(answer.replayed(), "{request:?}: {answer:?}");
            answer.assert_replay_of_charge(1);
        }
        assert_eq!(handler.starts(), 1);
    }
}

fn payment(content_type: &str, body: &str) -> TestRequest {
    let request = TestRequest::post("/pay").key("k").body(body.to_owned());
    request.header("content-type", content_type)
}

fn each<const N: usize>(
    request: impl Fn(&str) -> TestRequest,
    values: [&str; N],
) -> [TestRequest; N] {
    values.map(request)
}

#[test]
fn parameters_of_the_media_type_count_in_any_order_and_spelling() {
    in_real_time(async {
        let of = |content_type: &str| payment(content_type, "{}");
        let rule = FingerprintRule::new;
        assert_compared(
            rule(),
            &of("application/json; version=1; profile=\"a\""),
            &each(
                of,
                [
                    "application/json;profile=a;version=1",
                    "Application/JSON; Version=\"1\"; PROFILE=\"\\a\"; charset=UTF-8",
                    "application/json; charset=\"utf-8\"; profile=a; version=1;",
                ],
            ),
            &each(
                of,
                [
                    "application/json; version=2; profile=a",
                    "application/json; version=1",
                    "application/json; version=1; profile=A",
                    "application/json; version=1; profile=a; charset=iso-8859-1",
                    "application/vnd.api+json; version=1; profile=a",
                    "application/json; version=1; profile=a; profile=a",
                ],
            ),
        )
        .await;
        let extension = "application/vnd.api+json; ext=\"https://jsonapi.org/ext/atomic\"";
        assert_compared(
            rule(),
            &of("application/vnd.api+json"),
            &[],
            &[of(extension)],
        )
        .await;
    });
}

#[test]
fn json_is_compared_by_meaning_only_where_the_media_type_says_json() {
    in_real_time(async {
        let rule = || FingerprintRule::new().json();
        for json in [
            JSON,
            "APPLICATION/json; charset=utf-8",
            "application/merge-patch+json; v=1",
        ] {
            let of = |body: &str| payment(json, body);
            assert_compared(rule(), &of("[1.10]"), &[of(" [ 1.1 ]")], &[of("[1.2]")]).await;
        }
        for other in [
            "text/plain",
            "application/x-ndjson",
            "text/csv; header=json",
        ] {
            let of = |body: &str| payment(other, body);
            assert_compared(rule(), &of("1.10"), &[of("1.10")], &[of("1.1")]).await;
        }
        let untyped = |body: &'static str| TestRequest::post("/pay").key("k").body(body);
        assert_compared(
            rule(),
            &untyped("1.10"),
            &[untyped("1.10")],
            &[untyped("1.1")],
        )
        .await;
    });
}

#[test]
fn another_precondition_is_another_request() {
    in_real_time(async {
        let put = || {
            let request = TestRequest::new(Method::PUT, "/pay").key("k").body("{}");
            request.header("content-type", JSON)
        };
        let dates = [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:38 GMT",
        ];
        for (name, [first, second]) in [
            ("if-match", ["\"v1\"", "\"v2\""]),
            ("if-none-match", ["\"v1\"", "*"]),
            ("if-modified-since", dates),
            ("if-unmodified-since", dates),
        ] {
            let with = |value: &str| put().header(name, value);
            let others = [
                with(second),
                put(),
                with(first).header("if-match", "\"v3\""),
            ];
            assert_compared(
                FingerprintRule::new(),
                &with(first),
                &[with(first)],
                &others,
            )
            .await;
        }
    });
}

#[test]
fn the_same_bytes_are_another_request_with_another_coding_or_range() {
    in_real_time(async {
        // A client sends compressed bytes without saying so, gets a 400, and mends that.
        let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3].as_slice();
        let plain = || payment(JSON, "").body(gzip);
        let coded = |coding: &str| plain().header("content-encoding", coding);
        for rule in [FingerprintRule::new(), FingerprintRule::new().json()] {
            assert_compared(
                rule.clone(),
                &plain(),
                &[coded("identity"), coded("")],
                &[coded("gzip"), coded("br"), coded("identity, gzip")],
            )
            .await;
            assert_compared(
                rule,
                &coded("gzip"),
                &[coded("GZIP"), coded("identity,gzip ,")],
                &[plain(), coded("br"), coded("gzip, gzip"), coded("x-gzip")],
            )
            .await;
        }
        // Two parts of a file that are equal.
        let part = |range: &str| {
            let request = TestRequest::new(Method::PUT, "/pay").key("k");
            request.body(vec![0; 100]).header("content-range", range)
        };
        let whole = TestRequest::new(Method::PUT, "/pay").key("k");
        assert_compared(
            FingerprintRule::new(),
            &part("bytes 0-99/200"),
            &[part("bytes 0-99/200")],
            &[part("bytes 100-199/200"), whole.body(vec![0; 100])],
        )
        .await;
    });
}

#[test]
fn the_query_is_sorted_by_name_and_the_values_of_a_name_keep_their_order() {
    in_real_time(async {
        let of = |query: &str| TestRequest::post(format!("/pay?{query}")).key("k");
        assert_compared(
            FingerprintRule::new(),
            &of("step=a&step=b&x=1"),
            &each(of, ["x=1&step=a&step=b", "step=a&x=1&step=b"]),
            &each(
                of,
                [
                    "step=b&step=a&x=1",
                    "step=a&step=b",
                    "step=a&step=b&x=1&x=1",
                    // The same name, spelled in another way, does not let the values pass each other.
                    "%73tep=b&step=a&x=1",
                ],
            ),
        )
        .await;
        let ignoring = FingerprintRule::new().ignore_query_parameters(&["nonce", "sent at"]);
        assert_compared(
            ignoring,
            &of("a=1&nonce=1"),
            &each(
                of,
                [
                    "nonce=2&a=1",
                    "a=1",
                    "a=1&nonce",
                    "a=1&no%6Ece=7&sent+at=now&nonce=8",
                ],
            ),
            &each(
                of,
                ["a=2&nonce=1", "nonce=1", "a=1&Nonce=1", "a=1&nonce2=1"],
            ),
        )
        .await;
    });
}

/// A form as browsers send it.
fn multipart(boundary: &str, parts: &[(&str, &str)]) -> TestRequest {
    let mut body = String::new();
    for (head, content) in parts {
        write!(
            body,
            "--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n"
        )
        .unwrap();
    }
    write!(body, "--{boundary}--\r\n").unwrap();
    payment(&format!("multipart/form-data; boundary={boundary}"), &body)
}

#[test]
fn a_multipart_form_is_compared_by_its_parts() {
    in_real_time(async {
        let amount = ("name=\"amount\"", "100");
        let photo = (
            "name=\"photo\"; filename=\"a.jpg\"\r\nContent-Type: image/jpeg",
            "\u{0}\r\n--é",
        );
        let first = multipart("----WebKitFormBoundaryA", &[amount, photo]);
        let mut truncated = first.clone();
        truncated.body.truncate(truncated.body.len() - 8);
        let mut unquoted = multipart("x-Z", &[amount, photo]);
        unquoted.headers.insert(
            "content-type",
            "Multipart/Form-Data; charset=UTF-8; boundary=\"x-Z\""
                .parse()
                .unwrap(),
        );
        assert_compared(
            FingerprintRule::new(),
            &first,
            &[
                multipart("----WebKitFormBoundaryB", &[amount, photo]),
                multipart("72e6a7b4", &[amount, photo]),
                unquoted,
                first.clone(),
            ],
            &[
                multipart("x", &[("name=\"amount\"", "101"), photo]),
                multipart("x", &[("name=\"Amount\"", "100"), photo]),
                multipart("x", &[photo, amount]),
                multipart("x", &[amount]),
                multipart("x", &[amount, photo, amount]),
                multipart(
                    "x",
                    &[
                        amount,
                        (
                            "name=\"photo\"; filename=\"b.jpg\"\r\nContent-Type: image/jpeg",
                            photo.1,
                        ),
                    ],
                ),
                multipart(
                    "x",
                    &[
                        amount,
                        (
                            "name=\"photo\"; filename=\"a.jpg\"\r\nContent-Type: image/png",
                            photo.1,
                        ),
                    ],
                ),
                multipart(
                    "x",
                    &[amount, ("name=\"photo\"; filename=\"a.jpg\"", photo.1)],
                ),
                multipart("x", &[amount, (photo.0, "\u{0}\n--é")]),
                truncated.clone(),
            ],
        )
        .await;

        // A body without its end is compared by its bytes.
        let mut longer = truncated.clone();
        longer.body = [&*truncated.body, b"-"].concat().into();
        assert_compared(
            FingerprintRule::new(),
            &truncated,
            &[truncated.clone()],
            &[first, longer],
        )
        .await;
    });
}

#[test]
fn a_form_is_compared_by_its_pairs() {
    in_real_time(async {
        let of = |body: &str| payment(FORM, body);
        assert_compared(
            FingerprintRule::new().form(),
            &of("a=1&b=x+y&items[0][id]=7&items[1][id]=8&c[]=1&c[]=2"),
            &[
                of("b=x%20y&a=1&items[1][id]=8&c[]=1&c[]=2&items[0][id]=7"),
                of("c%5B%5D=1&c%5b%5d=2&items%5B0%5D[id]=7&items[1][id]=8&%61=1&b=x+y&"),
                payment(
                    "application/X-WWW-Form-Urlencoded; charset=utf-8",
                    "b=x+y&a=1&items[0][id]=7&items[1][id]=8&c[]=1&c[]=2",
                ),
            ],
            &[
                of("a=1&b=x+y&items[0][id]=8&items[1][id]=7&c[]=1&c[]=2"),
                of("a=1&b=x+y&items[0][id]=7&items[1][id]=8&c[]=2&c[]=1"),
                of("a=1&b=x%2By&items[0][id]=7&items[1][id]=8&c[]=1&c[]=2"),
                of("a=1&b=x+y&items[0][id]=7&items[1][id]=8&c[]=1"),
                payment(
                    "text/plain",
                    "b=x+y&a=1&items[0][id]=7&items[1][id]=8&c[]=1&c[]=2",
                ),
            ],
        )
        .await;
        // Values of one name in another order, and everything without the rule or the media type.
        let form = FingerprintRule::new().form();
        assert_compared(
            form.clone(),
            &of("a=1&a=2&b=3"),
            &[of("b=3&a=1&a=2")],
            &[of("a=2&a=1&b=3")],
        )
        .await;
        assert_compared(
            FingerprintRule::new(),
            &of("a=1&b=2"),
            &[],
            &[of("b=2&a=1")],
        )
        .await;
        let text = |body: &str| payment("text/plain", body);
        assert_compared(form, &text("a=1&b=2"), &[], &[text("b=2&a=1")]).await;
    });
}

#[test]
fn ignored_members_of_a_json_body_may_change_or_be_missing() {
    in_real_time(async {
        let of = |body: &str| payment(JSON, body);
        assert_compared(
            FingerprintRule::new().ignore(&["/meta/sent_at", "/items/0/n", "/a~1b"]),
            &of(r#"{"amount":100,"meta":{"sent_at":1,"by":"x"},"items":[{"n":1},{"n":2}],"a/b":0}"#),
            &[
                of(r#"{"meta":{"by":"x","sent_at":{"t":2}},"amount":1e2,"items":[{"n":7},{"n":2}]}"#),
                of(r#"{"amount":100,"meta":{"by":"x"},"items":[{},{"n":2.0}],"a/b":[1]}"#),
            ],
            &[
                of(r#"{"amount":101,"meta":{"sent_at":1,"by":"x"},"items":[{"n":1},{"n":2}]}"#),
                of(r#"{"amount":100,"meta":{"sent_at":1,"by":"x"},"items":[{"n":1},{"n":3}]}"#),
                of(r#"{"amount":100,"meta":{"sent_at":1,"by":"x"},"items":[{"n":1},{"n":2}],"sent_at":1}"#),
                of(r#"{"amount":100,"items":[{"n":1},{"n":2}]}"#),
                payment(
                    "text/plain",
                    r#"{"amount":100,"meta":{"sent_at":1,"by":"x"},"items":[{"n":1},{"n":2}],"a/b":0}"#,
                ),
            ],
        )
        .await;
    });
}

#[test]
fn the_stripe_profile_compares_forms_by_their_pairs() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().profile(Profile::Stripe);
        let app = Adapter::Layer.app(&engine.build().unwrap(), &handler);
        let server = Server::start(app).await;
        let of = |body: &str| payment(FORM, body);
        server
            .send(&of("amount=100&metadata[a]=1"))
            .await
            .assert_charge(1);
        let again = server.send(&of("metadata[a]=1&amount=100")).await;
        assert_eq!((again.status.as_u16(), again.text()), (201, "charge 1"));
        let other = server.send(&of("metadata[a]=1&amount=9999")).await;
        assert_eq!(other.status, 400);
        assert_eq!(handler.starts(), 1);
    });
}
