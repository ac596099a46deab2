//! Unary gRPC calls through the layer, of tonic's client to tonic's server (DESIGN.md, section 8).

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use idempotent_runtime::{Execution, Idempotency, IdempotencyLayer, MemoryStore, Policy};
use prost::Message;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::AbortHandle,
};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    client,
    metadata::{Ascii, MetadataMap, MetadataValue},
    server::{self, NamedService, UnaryService},
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::support::{Fault, FaultyStore, Operation, in_real_time};

const CHARGE: &str = "/pay.v1.Payments/Charge";
const REFUND: &str = "/pay.v1.Payments/Refund";
const MISSING: &str = "/pay.v1.Payments/Missing";

#[derive(Clone, PartialEq, Message)]
struct Order {
    #[prost(int64, tag = "1")]
    amount: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Receipt {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(bytes = "vec", tag = "2")]
    document: Vec<u8>,
}

/// `google.rpc.Status` and what stands in its details.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

/// What a handler does besides counting.
#[derive(Clone, Copy)]
#[repr(i64)]
enum Does {
    Pays = 1,
    Refuses = 2,
    IsAway = 3,
    Panics = 4,
    WaitsForTheGate = 5,
    AnswersMuch = 6,
    IsFull = 7,
}

#[derive(Clone)]
struct Payments {
    executed: Arc<AtomicU64>,
    entered: Arc<Semaphore>,
    gate: Arc<Semaphore>,
    attempts: Arc<Mutex<Vec<Option<u64>>>>,
}

impl NamedService for Payments {
    const NAME: &'static str = "pay.v1.Payments";
}

impl Service<http::Request<Body>> for Payments {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let payments = self.clone();
        Box::pin(async move {
            if ![CHARGE, REFUND].contains(&request.uri().path()) {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let codec = ProstCodec::<Receipt, Order>::default();
            Ok(server::Grpc::new(codec).unary(payments, request).await)
        })
    }
}

impl UnaryService<Order> for Payments {
    type Response = Receipt;
    type Future = BoxFuture<'static, Result<Response<Receipt>, Status>>;

    fn call(&mut self, request: Request<Order>) -> Self::Future {
        let payments = self.clone();
        Box::pin(async move {
            let number = payments.executed.fetch_add(1, Ordering::SeqCst) + 1;
            let execution = request.extensions().get::<Execution>();
            let attempt = execution.map(|execution| u64::from(execution.attempt()));
            payments.attempts.lock().unwrap().push(attempt);
            let does = request.into_inner().amount;
            let mut document = Vec::new();
            if does == Does::Refuses as i64 {
                let mut metadata = MetadataMap::new();
                metadata.insert("x-limit", MetadataValue::from_static("1"));
                metadata.insert("x-auth-token", MetadataValue::from_static("secret"));
                metadata.insert_bin("x-proof-bin", MetadataValue::from_bytes(b"\xff\0"));
                let details = b"any bytes\0".to_vec().into();
                let message = "100 % too much: ü";
                return Err(Status::with_details_and_metadata(
                    Code::InvalidArgument,
                    message,
                    details,
                    metadata,
                ));
            } else if does == Does::IsAway as i64 {
                return Err(Status::unavailable("come back"));
            } else if does == Does::IsFull as i64 {
                return Err(Status::resource_exhausted("come back"));
            } else if does == Does::Panics as i64 {
                panic!("as the test wants it");
            } else if does == Does::WaitsForTheGate as i64 {
                payments.entered.add_permits(1);
                payments.gate.acquire().await.unwrap().forget();
            } else if does == Does::AnswersMuch as i64 {
                document = vec![7; 100_000];
            }
            let mut response = Response::new(Receipt { number, document });
            let headers = response.metadata_mut();
            headers.insert("x-shop", MetadataValue::from_static("berlin"));
            Ok(response)
        })
    }
}

/// A server, and its client.
struct Site {
    payments: Payments,
    address: SocketAddr,
    client: client::Grpc<Channel>,
    server: AbortHandle,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Site {
    async fn start(layer: IdempotencyLayer) -> Self {
        let payments = Payments {
            executed: Arc::default(),
            entered: Arc::new(Semaphore::new(0)),
            gate: Arc::new(Semaphore::new(0)),
            attempts: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::builder()
            .layer(layer)
            .add_service(payments.clone())
            .serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(server).abort_handle();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self {
            payments,
            address,
            client: client::Grpc::new(endpoint.connect().await.unwrap()),
            server,
        }
    }

    fn executed(&self) -> u64 {
        self.payments.executed.load(Ordering::SeqCst)
    }

    async fn charge(&self, key: &str, does: Does) -> Result<Response<Receipt>, Status> {
        call(self.client.clone(), CHARGE, Some(key), does).await
    }
}

async fn call(
    mut client: client::Grpc<Channel>,
    method: &'static str,
    key: Option<&str>,
    does: Does,
) -> Result<Response<Receipt>, Status> {
    let mut request = Request::new(Order {
        amount: does as i64,
    });
    if let Some(key) = key {
        let key: MetadataValue<Ascii> = key.parse().unwrap();
        request.metadata_mut().insert("idempotency-key", key);
    }
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static(method);
    let codec = ProstCodec::<Order, Receipt>::default();
    client.unary(request, path, codec).await
}

fn layer(engine: &Idempotency) -> IdempotencyLayer {
    IdempotencyLayer::new(engine.clone()).grpc([CHARGE, MISSING])
}

fn with(policy: Policy) -> IdempotencyLayer {
    let engine = Idempotency::builder().build().unwrap();
    layer(&engine).policy(policy)
}

fn is_replay(metadata: &MetadataMap) -> bool {
    metadata.get("idempotent-replay").is_some()
}

/// What the details of a status of the engine say: the reason, the action, and the seconds to wait.
fn details(status: &Status) -> (String, String, Option<i64>) {
    let details = RpcStatus::decode(status.details()).unwrap();
    assert_eq!(details.code, status.code() as i32);
    assert_eq!(details.message, status.message());
    let find = |name: &str| {
        let url = format!("type.googleapis.com/google.rpc.{name}");
        let mut found = details.details.iter();
        found.find(|any| any.type_url == url).map(|any| &any.value)
    };
    let info = ErrorInfo::decode(&find("ErrorInfo").unwrap()[..]).unwrap();
    assert_eq!(info.domain, "idempotency-key");
    let code = &info.metadata["code"];
    assert_eq!(
        info.metadata["type"],
        format!("/problems/idempotency/{code}")
    );
    assert_eq!(info.reason, format!("IDEMPOTENCY_{}", code.to_uppercase()));
    let retry = find("RetryInfo").map(|value| RetryInfo::decode(&value[..]).unwrap());
    let seconds = retry.map(|retry| retry.delay.unwrap().seconds);
    (code.clone(), info.metadata["action"].clone(), seconds)
}

#[track_caller]
fn assert_refused(
    answer: Result<Response<Receipt>, Status>,
    code: Code,
    problem: &str,
    action: &str,
) -> Option<i64> {
    let status = answer.expect_err("a status");
    assert_eq!(status.code(), code, "{status:?}");
    let (found, does, seconds) = details(&status);
    assert_eq!((&*found, &*does), (problem, action), "{status:?}");
    assert!(!status.message().contains("Retry-After"), "{status:?}");
    seconds
}

#[test]
fn a_call_executes_once_and_its_retry_gets_the_same_message_and_metadata() {
    in_real_time(async {
        let site = Site::start(with(Policy::new())).await;
        let first = site.charge("k", Does::Pays).await.unwrap();
        let second = site.charge("k", Does::Pays).await.unwrap();
        assert_eq!(first.get_ref().number, 1);
        assert_eq!(first.get_ref(), second.get_ref());
        assert_eq!(site.executed(), 1);
        assert!(!is_replay(first.metadata()));
        assert!(is_replay(second.metadata()));
        for response in [&first, &second] {
            assert_eq!(response.metadata().get("x-shop").unwrap(), "berlin");
            // Trailing metadata, which the client puts with the other.
            assert_eq!(response.metadata().get("grpc-status").unwrap(), "0");
        }
        assert_eq!(*site.payments.attempts.lock().unwrap(), [Some(1)]);
        // Another key is another call.
        assert_eq!(
            site.charge("l", Does::Pays).await.unwrap().get_ref().number,
            2
        );
    });
}

#[test]
fn concurrent_calls_with_one_key_execute_once() {
    in_real_time(async {
        let site = Site::start(with(Policy::new())).await;
        let calls = (0..50).map(|_| site.charge("k", Does::Pays));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.unwrap().get_ref().number, 1);
        }
        assert_eq!(site.executed(), 1);
    });
}

#[test]
fn a_status_of_the_handler_is_stored_with_its_details() {
    in_real_time(async {
        let site = Site::start(with(Policy::new())).await;
        for replays in [false, true] {
            let status = site.charge("k", Does::Refuses).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert_eq!(status.message(), "100 % too much: ü");
            assert_eq!(status.details(), b"any bytes\0");
            assert_eq!(status.metadata().get("x-limit").unwrap(), "1");
            let proof = status.metadata().get_bin("x-proof-bin").unwrap();
            assert_eq!(proof.to_bytes().unwrap(), &b"\xff\0"[..]);
            assert_eq!(is_replay(status.metadata()), replays);
            // As in a header of HTTP: it is the first client's alone.
            let token = status.metadata().get("x-auth-token");
            assert_eq!(token.is_some(), !replays);
        }
        assert_eq!(site.executed(), 1);
    });
}

/// A client's retry policy repeats a call only if its answer had no head of its own.
#[test]
fn a_status_without_a_message_is_one_head_as_the_service_gave_it() {
    in_real_time(async {
        let site = Site::start(with(Policy::new())).await;
        for _ in 0..2 {
            let stream = TcpStream::connect(site.address).await.unwrap();
            let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
            let driver = tokio::spawn(connection);
            let head = http::Request::post(format!("http://localhost{CHARGE}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("idempotency-key", "k")
                .body(())
                .unwrap();
            let (response, mut body) = client.send_request(head, false).unwrap();
            // A field of one byte, in a message of two, in a frame.
            let order = [0, 0, 0, 0, 2, 8, Does::Refuses as u8];
            body.send_data(order.to_vec().into(), true).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.headers()["grpc-status"], "3");
            assert_eq!(response.headers()["x-limit"], "1");
            assert!(response.body().is_end_stream());
            driver.abort();
        }
        assert_eq!(site.executed(), 1);
    });
}

#[test]
fn a_policy_releases_statuses_by_those_of_http() {
    in_real_time(async {
        let release = Policy::new().release(&[503]);
        let site = Site::start(with(release)).await;
        for executed in 1..=3 {
            let status = site.charge("k", Does::IsAway).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            assert_eq!(status.message(), "come back");
            assert_eq!(site.executed(), executed);
        }
        for _ in 0..2 {
            site.charge("l", Does::Refuses).await.unwrap_err();
        }
        assert_eq!(site.executed(), 4);
    });
}

/// As 429 does: whoever says so has done nothing.
#[test]
fn a_handler_that_has_no_room_releases_its_key() {
    in_real_time(async {
        let site = Site::start(with(Policy::new())).await;
        for executed in 1..=2 {
            let status = site.charge("k", Does::IsFull).await.unwrap_err();
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert_eq!(site.executed(), executed);
        }
    });
}

#[test]
fn a_mismatch_and_a_missing_key_are_statuses() {
    in_real_time(async {
        let site = Site::start(with(Policy::new().required(true))).await;
        site.charge("k", Does::Pays).await.unwrap();
        let mismatch = site.charge("k", Does::AnswersMuch).await;
        assert_refused(
            mismatch,
            Code::FailedPrecondition,
            "mismatch",
            "fix_request",
        );
        let missing = call(site.client.clone(), CHARGE, None, Does::Pays).await;
        assert_refused(missing, Code::InvalidArgument, "missing_key", "fix_request");
        let invalid = site.charge(&"k".repeat(300), Does::Pays).await;
        assert_refused(invalid, Code::InvalidArgument, "invalid_key", "fix_request");
        assert_eq!(site.executed(), 1);
    });
}

#[test]
fn a_conflict_says_when_to_come_back() {
    in_real_time(async {
        let site = Site::start(with(Policy::new().wait(false))).await;
        let (client, entered) = (site.client.clone(), &site.payments.entered);
        let first = tokio::spawn(call(client, CHARGE, Some("k"), Does::WaitsForTheGate));
        entered.acquire().await.unwrap().forget();
        let conflict = site.charge("k", Does::WaitsForTheGate).await;
        let seconds = assert_refused(conflict, Code::Aborted, "conflict", "retry_same_key");
        assert!(
            seconds.is_some_and(|seconds| (1..=5).contains(&seconds)),
            "{seconds:?}"
        );
        site.payments.gate.add_permits(1);
        assert_eq!(first.await.unwrap().unwrap().get_ref().number, 1);
    });
}

/// The deadline of a client ends its call, and not what the call began.
#[test]
fn a_call_whose_client_leaves_is_executed_to_its_end() {
    in_real_time(async {
        let site = Site::start(with(Policy::new())).await;
        let (client, entered) = (site.client.clone(), &site.payments.entered);
        let first = tokio::spawn(call(client, CHARGE, Some("k"), Does::WaitsForTheGate));
        entered.acquire().await.unwrap().forget();
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        site.payments.gate.add_permits(1);
        let retry = site.charge("k", Does::WaitsForTheGate).await.unwrap();
        assert_eq!(retry.get_ref().number, 1);
        assert!(is_replay(retry.metadata()));
        assert_eq!(site.executed(), 1);
    });
}

#[test]
fn a_panic_is_an_internal_error_and_stays_one() {
    in_real_time(async {
        let site = Site::start(with(Policy::new())).await;
        for _ in 0..2 {
            let answer = site.charge("k", Does::Panics).await;
            assert_refused(answer, Code::Internal, "handler_panicked", "none");
        }
        assert_eq!(site.executed(), 1);
    });
}

#[test]
fn a_response_that_is_too_large_reaches_its_client_and_is_not_stored() {
    in_real_time(async {
        let policy = Policy::new().max_response(50_000);
        let site = Site::start(with(policy)).await;
        let first = site.charge("k", Does::AnswersMuch).await.unwrap();
        assert_eq!(first.get_ref().document, vec![7; 100_000]);
        assert_eq!(first.metadata().get("grpc-status").unwrap(), "0");
        let again = site.charge("k", Does::AnswersMuch).await;
        assert_refused(again, Code::AlreadyExists, "response_not_stored", "none");
        assert_eq!(site.executed(), 1);
    });
}

#[test]
fn a_request_that_is_too_large_is_out_of_range() {
    in_real_time(async {
        let site = Site::start(with(Policy::new().max_body(4))).await;
        let answer = site.charge("k", Does::Pays).await;
        assert_refused(answer, Code::OutOfRange, "request_too_large", "fix_request");
        assert_eq!(site.executed(), 0);
    });
}

#[test]
fn a_store_that_is_away_is_unavailable() {
    in_real_time(async {
        let store = FaultyStore::new();
        let builder = Idempotency::builder().store(store.clone());
        let engine = builder.build().unwrap();
        let site = Site::start(layer(&engine)).await;
        store.fail_always(Operation::Acquire, Fault::Unreachable);
        let answer = site.charge("k", Does::Pays).await;
        let seconds = assert_refused(
            answer,
            Code::Unavailable,
            "store_unavailable",
            "retry_same_key",
        );
        assert_eq!(seconds, Some(1));
        assert_eq!(site.executed(), 0);
    });
}

/// Nothing ran, and a deploy may add the method.
#[test]
fn a_method_that_the_service_does_not_have_leaves_its_key_free() {
    in_real_time(async {
        let store = MemoryStore::new();
        let builder = Idempotency::builder().store(store.clone());
        let site = Site::start(layer(&builder.build().unwrap())).await;
        for _ in 0..2 {
            let answer = call(site.client.clone(), MISSING, Some("k"), Does::Pays).await;
            let status = answer.unwrap_err();
            assert_eq!(status.code(), Code::Unimplemented);
            assert!(!is_replay(status.metadata()));
            assert_eq!(store.len(), 0);
        }
    });
}

#[test]
fn methods_that_are_not_listed_pass_unprotected() {
    in_real_time(async {
        let site = Site::start(with(Policy::new())).await;
        for number in 1..=2 {
            let answer = call(site.client.clone(), REFUND, Some("k"), Does::Pays).await;
            assert_eq!(answer.unwrap().get_ref().number, number);
        }
    });
}

/// The endpoint is the method, wherever the service is mounted.
#[test]
fn methods_behind_a_router_are_endpoints_of_their_own() {
    in_real_time(async {
        let store = MemoryStore::new();
        let builder = Idempotency::builder().store(store.clone());
        let layer = IdempotencyLayer::new(builder.build().unwrap()).grpc([CHARGE, REFUND]);
        let site = Site::start(layer).await;
        for (method, number) in [(CHARGE, 1), (REFUND, 2), (CHARGE, 1), (REFUND, 2)] {
            let answer = call(site.client.clone(), method, Some("k"), Does::Pays).await;
            assert_eq!(answer.unwrap().get_ref().number, number, "{method}");
        }
        assert_eq!(store.len(), 2);
    });
}

#[test]
#[should_panic(expected = "it has to be /package.Service/Method")]
fn what_is_no_method_is_refused_when_the_layer_is_made() {
    let engine = Idempotency::builder().build().unwrap();
    let _ = IdempotencyLayer::new(engine).grpc(["pay.v1.Payments/Charge"]);
}
