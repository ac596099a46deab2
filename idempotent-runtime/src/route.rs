//! Which endpoint a request is for, and the path it came by.

use std::{borrow::Cow, fmt};

use http::{Extensions, Method, Uri};

use crate::{endpoint::UNMATCHED, names::Name};

/// Where a request arrived, before any router rewrote its URI.
pub(crate) struct Route {
    /// Names the route in the scope: `POST /orders/{id}`, or the policy's name.
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
/// 3. If no router matched a template, as in a fallback, it is the method and [`UNMATCHED`]. The fingerprint has the
///    path, so that keys are compared and not shared between paths.
///
/// The path is the one that the client sent: nested routers strip prefixes from the request's own URI.
pub(crate) fn route(
    name: Option<&Name>,
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
    let template = template(extensions).unwrap_or(UNMATCHED);
    let other = || Cow::Owned(["OTHER ", template].concat());
    Route {
        endpoint: Cow::Owned([method.as_str(), " ", template].concat()),
        label: (!is_standard(method)).then(other),
        uri,
    }
}

/// Whether this is a standard method: clients can invent others, and the number of labels must stay bounded.
fn is_standard(method: &Method) -> bool {
    const STANDARD: [Method; 9] = [
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
    STANDARD.contains(method)
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

    fn of(name: Option<&'static str>, method: &str) -> (String, String) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let uri = Uri::from_static("/orders/7?x=1");
        let name = name.map(Name::Static);
        let route = route(name.as_ref(), &method, &uri, &Extensions::new());
        assert_eq!(route.uri, uri);
        let label = route.label().to_owned();
        (route.endpoint.into_owned(), label)
    }

    #[test]
    fn a_name_is_the_endpoint() {
        assert_eq!(of(Some("pay"), "POST"), ("pay".into(), "pay".into()));
    }

    #[test]
    fn without_a_template_all_paths_of_a_method_are_one_endpoint() {
        let endpoint = || "POST unmatched".to_owned();
        assert_eq!(of(None, "POST"), (endpoint(), endpoint()));
    }

    #[test]
    fn labels_contain_nothing_that_clients_choose() {
        assert_eq!(
            of(None, "BREW"),
            ("BREW unmatched".into(), "OTHER unmatched".into())
        );
    }
}
