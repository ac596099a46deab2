//! How large a request body may be where the policy does not say: as large as the route accepts.

use http::Extensions;

/// axum's own limit where no `DefaultBodyLimit` says otherwise, and that of the layer in any other service: 2 MB.
pub(crate) const DEFAULT: usize = 2 * 1024 * 1024;

/// Where `DefaultBodyLimit` is disabled: the route's handler may read more, but not all at once, as the engine does.
#[cfg(feature = "axum")]
const DISABLED: usize = 64 * 1024 * 1024;

/// The limit of a request's route.
#[cfg(feature = "axum")]
pub(crate) fn body_limit(extensions: &mut Extensions) -> usize {
    use std::mem;

    use axum::{RequestExt, body::Body, extract::Request};
    use http_body::Body as _;

    // axum keeps the limit in an extension of a private type. It applies it to any request with these extensions, and
    // the limited body says how much it lets through.
    let mut probe = Request::new(Body::new(probe::Endless));
    mem::swap(probe.extensions_mut(), extensions);
    let mut probe = probe.with_limited_body();
    let most = probe.body().size_hint().upper();
    mem::swap(probe.extensions_mut(), extensions);
    most.map_or(DISABLED, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

#[cfg(not(feature = "axum"))]
pub(crate) fn body_limit(_: &mut Extensions) -> usize {
    DEFAULT
}

#[cfg(feature = "axum")]
mod probe {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use http_body::{Body, Frame};

    /// A body that does not say how long it is. Nobody reads it.
    pub(super) struct Endless;

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(None)
        }
    }
}

#[cfg(all(test, feature = "axum"))]
mod tests {
    use axum::extract::DefaultBodyLimit;
    use http::Request;

    use super::*;

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
        assert_eq!(of(None), DEFAULT);
        for most in [0, 1, 64 * 1024 * 1024, usize::MAX] {
            assert_eq!(of(Some(DefaultBodyLimit::max(most))), most);
        }
        assert_eq!(of(Some(DefaultBodyLimit::disable())), DISABLED);
    }
}
