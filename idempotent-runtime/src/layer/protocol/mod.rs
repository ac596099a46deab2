//! What a request speaks beside HTTP, and so what becomes of responses on their way into the engine and out of it.
//!
//! ```text
//! grpc      which requests are gRPC calls
//! methods   which of them are protected
//! framing   a handler's response into the form that is stored: its trailers in its body
//! unframed  the stored form back into a response with trailers
//! status    the engine's answers as statuses, and the handler's as those of HTTP, which policies are written in
//! ```

use http::{Request, Response};

use crate::{
    body::{Body, from_engine},
    engine::Reply,
};

#[cfg(feature = "grpc")]
mod framing;
mod grpc;
mod methods;
#[cfg(feature = "grpc")]
mod status;
#[cfg(feature = "grpc")]
mod unframed;

pub(super) use methods::Methods;

/// What a request that the layer covers speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP and nothing else.
    Http,
    /// A gRPC call of a method that is protected.
    #[cfg(feature = "grpc")]
    Grpc,
}

impl Protocol {
    /// What this request speaks; `None` for a gRPC call that is not protected.
    pub(super) fn of<B>(request: &Request<B>, methods: &Methods) -> Option<Self> {
        if !grpc::is_call(request.headers()) {
            return Some(Self::Http);
        }
        methods.protect(request)
    }

    /// The template of the route, if the protocol says more about it than the router's.
    pub(super) fn template<B>(self, request: &Request<B>) -> Option<&str> {
        match self {
            Self::Http => {
                let _ = request;
                None
            }
            #[cfg(feature = "grpc")]
            Self::Grpc => Some(request.uri().path()),
        }
    }

    /// The response of the wrapped service as the engine gets it. A body of more than `limit` bytes, which is not stored, is
    /// passed on while it comes.
    #[cfg_attr(
        not(feature = "grpc"),
        expect(clippy::unused_async, reason = "as with the feature")
    )]
    pub(super) async fn into_engine(
        self,
        response: Response<Body>,
        limit: usize,
    ) -> Response<Body> {
        match self {
            Self::Http => {
                let _ = limit;
                response
            }
            #[cfg(feature = "grpc")]
            Self::Grpc => framing::framed(response, limit).await,
        }
    }

    /// The engine's reply as it is sent.
    pub(super) fn out_of_engine(self, reply: Reply<Body>) -> Response<Body> {
        match self {
            Self::Http => from_engine(reply),
            #[cfg(feature = "grpc")]
            Self::Grpc => match status::problem_in(&reply) {
                Some((code, problem)) => status::answered(reply, code, &problem),
                None => unframed::unframed(reply),
            },
        }
    }

    /// Whether the wrapped service answered this because it has no such method: no handler ran, if nobody read the request.
    pub(super) fn is_unimplemented(self, response: &Response<Body>) -> bool {
        match self {
            Self::Http => {
                let _ = response;
                false
            }
            #[cfg(feature = "grpc")]
            Self::Grpc => status::is_unimplemented(response.headers()),
        }
    }
}
