//! The same service in gRPC: `pay.v1.Payments/Charge`, whose order and receipt are each a string.

use std::{
    convert::Infallible,
    sync::atomic::Ordering::SeqCst,
    task::{Context, Poll},
};

use axum::http;
use idempotent_runtime::IdempotencyLayer;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService, UnaryService},
    transport::{Error, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::{Layer as _, Service, ServiceExt as _};

use super::{BoxFuture, Shared};

const CHARGE: &str = "/pay.v1.Payments/Charge";

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, service: Shared) -> Result<(), Error> {
    let server = Server::builder().add_service(Door(service));
    server
        .serve_with_incoming(TcpIncoming::from(listener))
        .await
}

/// Counts a request, and gives it the engine of the case.
#[derive(Clone)]
struct Door(Shared);

impl NamedService for Door {
    const NAME: &'static str = "pay.v1.Payments";
}

impl Service<http::Request<Body>> for Door {
    type Response = http::Response<axum::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.requests.fetch_add(1, SeqCst);
        let engine = self.0.case().engine.clone();
        let layer = IdempotencyLayer::new(engine).grpc([CHARGE]);
        let payments = layer.layer(Payments(self.0.clone()));
        Box::pin(payments.oneshot(request))
    }
}

#[derive(Clone)]
struct Payments(Shared);

impl Service<http::Request<axum::body::Body>> for Payments {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<axum::body::Body>) -> Self::Future {
        let charge = Charge(self.0.clone());
        Box::pin(async move {
            let codec = ProstCodec::<String, String>::default();
            Ok(Grpc::new(codec).unary(charge, request).await)
        })
    }
}

struct Charge(Shared);

impl UnaryService<String> for Charge {
    type Response = String;
    type Future = BoxFuture<Result<Response<String>, Status>>;

    fn call(&mut self, order: Request<String>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            let (case, mut end) = {
                let case = service.case();
                (case.name.clone(), case.end.subscribe())
            };
            let receipt = service.executions.fetch_add(1, SeqCst) + 1;
            match case.as_str() {
                "503" => return Err(Status::unavailable("the bank does not answer")),
                "panic" => panic!("as the case says"),
                "conflict" => {
                    let _next_case = end.wait_for(|end| *end).await;
                }
                _ => {}
            }
            let order = order.into_inner();
            Ok(Response::new(format!("receipt {receipt} of {order}")))
        })
    }
}
