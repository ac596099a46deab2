//! What axum's router says about a request.

use std::{
    convert::Infallible,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use ::axum::{
    RequestExt,
    body::Body,
    extract::{MatchedPath, OriginalUri, Request},
};
use bytes::Bytes;
use http::Extensions;
use http_body::{Body as _, Frame};

use crate::route::{Routed, Routing};

/// Where `DefaultBodyLimit` is disabled: the route's handler may read more, but not all at once, as the engine does.
const DISABLED: usize = 64 * 1024 * 1024;

/// What the engine is told by both adapters that may stand behind axum's router.
pub(crate) static ROUTING: Routing = Routing { routed, body_limit };

fn routed(extensions: &Extensions) -> Routed<'_> {
    Routed {
        template: extensions.get().map(MatchedPath::as_str),
        original: extensions.get().map(|OriginalUri(uri)| uri),
    }
}

/// The limit of a request's route.
fn body_limit(extensions: &mut Extensions) -> usize {
    // axum keeps the limit in an extension of a private type. It applies it to any request with these extensions, and
    // the limited body says how much it lets through.
    let mut probe = Request::new(Body::new(Endless));
    mem::swap(probe.extensions_mut(), extensions);
    let mut probe = probe.with_limited_body();
    let most = probe.body().size_hint().upper();
    mem::swap(probe.extensions_mut(), extensions);
    most.map_or(DISABLED, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

/// A body that does not say how long it is. Nobody reads it.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use ::axum::extract::DefaultBodyLimit;

    use super::*;
    use crate::policy::DEFAULT_MAX_BODY;

    fn of(limit: Option<DefaultBodyLimit>) -> usize {
        let mut request = Request::new(());
        request.extensions_mut().insert("kept");
        if let Some(limit) = limit {
            limit.apply(&mut request);
        }
        let most = body_limit(request.extensions_mut());
        assert_eq!(request.extensions().get(), Some(&"kept"));
        most
    }

    #[test]
    fn the_limit_is_that_of_the_route() {
        assert_eq!(of(None), DEFAULT_MAX_BODY);
        for most in [0, 1, 64 * 1024 * 1024, usize::MAX] {
            assert_eq!(of(Some(DefaultBodyLimit::max(most))), most);
        }
        assert_eq!(of(Some(DefaultBodyLimit::disable())), DISABLED);
    }
}
