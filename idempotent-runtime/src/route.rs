//! Which endpoint a request is for, and the path it came by.

use std::{borrow::Cow, fmt};

use http::{Extensions, Method, Uri};

use crate::names::Name;

/// Where a request arrived, before any router rewrote its URI.
pub(crate) struct Route {
    /// The route's identity in the scope: `POST /orders/{id}`, or the policy's name.
    pub(crate) endpoint: Cow<'static, str>,
    /// What metrics and spans call it instead, where it names what clients choose: labels are
    /// bounded in number.
    pub(crate) label: Option<Cow<'static, str>>,
    /// The URI with the full original path and query.
    pub(crate) uri: Uri,
}

impl Route {
    /// What metrics and spans call it.
    pub(crate) fn label(&self) -> &str {
        self.label.as_ref().unwrap_or(&self.endpoint)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("label", &self.label())
            .finish_non_exhaustive()
    }
}

/// The route of a request.
///
/// 1. The endpoint is `name`, if the policy has one.
/// 2. Else it is the method and the route template that the router matched, as `POST /orders/{id}`.
/// 3. If no router matched a template, as in a fallback, it is the method and `handler`, or without that the method
///    and the path itself; metrics then say `unmatched` instead of a path that clients can choose.
///
/// The path is the one that the client sent: nested routers strip prefixes from the request's own URI.
pub(crate) fn route(
    name: Option<&Name>,
    handler: Option<&'static str>,
    method: &Method,
    uri: &Uri,
    extensions: &Extensions,
) -> Route {
    let uri = uri_as_sent(uri, extensions).clone();
    if let Some(name) = name {
        return Route {
            endpoint: name.to_endpoint(),
            label: None,
            uri,
        };
    }
    if let Some(template) = template(extensions).or(handler) {
        let other = || Cow::Owned(["OTHER ", template].concat());
        return Route {
            endpoint: Cow::Owned([method.as_str(), " ", template].concat()),
            label: known(method).is_none().then(other),
            uri,
        };
    }
    let endpoint = Cow::Owned([method.as_str(), " ", uri.path()].concat());
    Route {
        endpoint,
        label: Some(Cow::Owned(
            [known(method).unwrap_or("OTHER"), " unmatched"].concat(),
        )),
        uri,
    }
}

/// The method, if it is a standard one: clients can invent others, and the number of labels must stay bounded.
fn known(method: &Method) -> Option<&str> {
    const KNOWN: [Method; 9] = [
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];
    KNOWN.contains(method).then(|| method.as_str())
}

/// The URI that the client sent, before any router rewrote it.
pub(crate) fn uri_as_sent<'a>(uri: &'a Uri, extensions: &'a Extensions) -> &'a Uri {
    original_uri(extensions).unwrap_or(uri)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        name: Option<&'static str>,
        handler: Option<&'static str>,
        method: &str,
    ) -> (String, String) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let uri = Uri::from_static("/orders/7?x=1");
        let name = name.map(Name::Static);
        let route = route(name.as_ref(), handler, &method, &uri, &Extensions::new());
        assert_eq!(route.uri, uri);
        let label = route.label().to_owned();
        (route.endpoint.into_owned(), label)
    }

    #[test]
    fn a_name_is_the_endpoint() {
        assert_eq!(
            of(Some("pay"), Some("shop::pay"), "POST"),
            ("pay".into(), "pay".into())
        );
    }

    #[test]
    fn without_a_template_the_handler_is_the_endpoint() {
        let endpoint = || "POST shop::pay".to_owned();
        assert_eq!(
            of(None, Some("shop::pay"), "POST"),
            (endpoint(), endpoint())
        );
    }

    #[test]
    fn labels_contain_nothing_that_clients_choose() {
        assert_eq!(
            of(None, None, "POST"),
            ("POST /orders/7".into(), "POST unmatched".into())
        );
        assert_eq!(
            of(None, None, "BREW"),
            ("BREW /orders/7".into(), "OTHER unmatched".into())
        );
        assert_eq!(
            of(None, Some("h"), "BREW"),
            ("BREW h".into(), "OTHER h".into())
        );
    }
}
