//! Which endpoint a request is for, and the path it came by.

use std::borrow::Cow;

use http::{Extensions, Method, Uri};

use crate::engine::Route;

/// The route of a request.
///
/// 1. The endpoint is `name`, if the policy has one.
/// 2. Else it is the method and the route template that the router matched, as `POST /orders/{id}`.
/// 3. Where no router said which template it matched, as in a fallback, it is the method and `handler`, and
///    without that the method and the path itself; metrics then say `unmatched` rather than a path that
///    clients can choose.
///
/// The path is the one the client sent: routers that nest strip prefixes from the request's own URI.
pub(crate) fn route(
    name: Option<&'static str>,
    handler: Option<&'static str>,
    method: &Method,
    uri: &Uri,
    extensions: &Extensions,
) -> Route {
    let uri = original_uri(extensions).unwrap_or(uri).clone();
    if let Some(name) = name {
        return Route {
            endpoint: Cow::Borrowed(name),
            label: Cow::Borrowed(name),
            uri,
        };
    }
    if let Some(template) = template(extensions).or(handler) {
        let endpoint: Cow<'static, str> = Cow::Owned([method.as_str(), " ", template].concat());
        return Route {
            label: endpoint.clone(),
            endpoint,
            uri,
        };
    }
    let endpoint = Cow::Owned([method.as_str(), " ", uri.path()].concat());
    Route {
        endpoint,
        label: Cow::Owned([method.as_str(), " unmatched"].concat()),
        uri,
    }
}

#[cfg(feature = "axum")]
fn original_uri(extensions: &Extensions) -> Option<&Uri> {
    extensions
        .get::<axum::extract::OriginalUri>()
        .map(|original| &original.0)
}

#[cfg(feature = "axum")]
fn template(extensions: &Extensions) -> Option<&str> {
    extensions
        .get::<axum::extract::MatchedPath>()
        .map(axum::extract::MatchedPath::as_str)
}

#[cfg(not(feature = "axum"))]
fn original_uri(_: &Extensions) -> Option<&Uri> {
    None
}

#[cfg(not(feature = "axum"))]
fn template(_: &Extensions) -> Option<&str> {
    None
}
