//! The body type of both adapters: axum's, which its middleware requires and most services have.
//!
//! It comes from the small crate `axum-core`, so that the layer has one type with and without the feature `axum`.

use bytes::Bytes;
use http::Response;

pub use axum_core::body::Body;

use crate::engine::{Reply, ResponseBody};

/// The engine's reply as it is sent.
pub(crate) fn from_engine(reply: Reply<Body>) -> Response<Body> {
    reply.map(|body| match body {
        ResponseBody::Full(bytes) => full(bytes),
        ResponseBody::Live(body) => body,
        ResponseBody::Recording(recording) => Body::new(recording),
        ResponseBody::Rejection(body) => Body::new(body),
    })
}

/// A body that is already there.
pub(crate) fn full(bytes: Bytes) -> Body {
    Body::from(bytes)
}
