//! A gRPC service that charges once per key, and a client that has to ask twice.
//!
//! ```text
//! cargo run -p idempotent-examples --example grpc
//! ```
//!
//! The service is tonic's, written by hand where others generate it from a `.proto` file. The layer stands around it, and is
//! told which methods are unary and have an effect.

use std::{
    convert::Infallible,
    error::Error,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use axum::http::{self, uri::PathAndQuery};
use idempotent_runtime::{Idempotency, IdempotencyLayer};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    body::Body,
    client,
    server::{self, NamedService, UnaryService},
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::Service;

const CHARGE: &str = "/payments.v1.Payments/Charge";

#[derive(Clone, PartialEq, prost::Message)]
struct Order {
    #[prost(uint32, tag = "1")]
    cents: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Receipt {
    #[prost(uint32, tag = "1")]
    number: u32,
}

/// The service, which counts what it charged.
#[derive(Clone, Default)]
struct Payments(Arc<AtomicU32>);

type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl UnaryService<Order> for Payments {
    type Response = Receipt;
    type Future = BoxFuture<Response<Receipt>, Status>;

    fn call(&mut self, order: Request<Order>) -> Self::Future {
        let payments = self.clone();
        Box::pin(async move {
            if order.get_ref().cents == 0 {
                return Err(Status::invalid_argument("nothing to charge"));
            }
            // The effect: once per key.
            let number = payments.0.fetch_add(1, Ordering::SeqCst) + 1;
            Ok(Response::new(Receipt { number }))
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let payments = Payments::default();
    let idempotency = Idempotency::builder().build()?;
    let layer = IdempotencyLayer::new(idempotency.clone()).grpc([CHARGE]);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = Server::builder()
        .layer(layer)
        .add_service(payments.clone())
        .serve_with_incoming(TcpIncoming::from(listener));
    let server = tokio::spawn(server);

    let channel = Endpoint::from_shared(format!("http://{address}"))?;
    let mut client = client::Grpc::new(channel.connect().await?);
    for (key, cents) in [
        ("order-1", 500),
        ("order-1", 500),
        ("order-1", 900),
        ("order-2", 900),
        ("order-3", 0),
    ] {
        match charge(&mut client, key, cents).await {
            Ok(receipt) => {
                let replayed = receipt.metadata().contains_key("idempotent-replay");
                let how = if replayed { "replayed" } else { "executed" };
                println!(
                    "{key}, {cents} cents: receipt {} ({how})",
                    receipt.get_ref().number
                );
            }
            Err(status) => println!(
                "{key}, {cents} cents: {:?}, {}",
                status.code(),
                status.message()
            ),
        }
    }
    let charged = payments.0.load(Ordering::SeqCst);
    println!("five calls, {charged} charges");
    server.abort();
    assert_eq!(charged, 2, "each key charges at most once");
    Ok(())
}

/// Sends an order with its key, which a retry must send again.
async fn charge(
    client: &mut client::Grpc<Channel>,
    key: &'static str,
    cents: u32,
) -> Result<Response<Receipt>, Status> {
    let mut request = Request::new(Order { cents });
    let key = tonic::metadata::MetadataValue::from_static(key);
    request.metadata_mut().insert("idempotency-key", key);
    let ready = client.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Order, Receipt>::default();
    client
        .unary(request, PathAndQuery::from_static(CHARGE), codec)
        .await
}

/// What `tonic-prost-build` would write.
impl Service<http::Request<Body>> for Payments {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let payments = self.clone();
        Box::pin(async move {
            if request.uri().path() != CHARGE {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let codec = ProstCodec::<Receipt, Order>::default();
            Ok(server::Grpc::new(codec).unary(payments, request).await)
        })
    }
}

impl NamedService for Payments {
    const NAME: &'static str = "payments.v1.Payments";
}
