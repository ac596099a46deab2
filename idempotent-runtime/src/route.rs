//! Which endpoint a request is for, and the path it came by.

use std::{borrow::Cow, sync::Arc};

use http::{Extensions, Method, Request, Uri, request::Parts};

use crate::{endpoint::UNMATCHED, names::Name};

/// What an adapter knows of the router around it.
#[derive(Clone, Copy)]
pub(crate) struct Routing {
    /// What the router found out about a request with these extensions.
    pub(crate) routed: for<'a> fn(&'a Extensions) -> Routed<'a>,
    /// The largest body, in bytes, that the request's route accepts.
    pub(crate) body_limit: fn(&mut Extensions) -> usize,
}

/// That of an adapter without a router.
#[cfg(not(feature = "axum"))]
pub(crate) static NO_ROUTING: Routing = Routing {
    routed: |_| Routed {
        template: None,
        original: None,
    },
    body_limit: |_| crate::policy::DEFAULT_MAX_BODY,
};

/// What a router found out about a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Routed<'a> {
    /// The route template that it matched.
    pub(crate) template: Option<&'a str>,
    /// The URI that the client sent, before a nested router stripped its prefix.
    pub(crate) original: Option<&'a Uri>,
}

impl Routing {
    pub(crate) fn of<'a>(&self, extensions: &'a Extensions) -> Routed<'a> {
        (self.routed)(extensions)
    }

    /// The URI that the client sent.
    pub(crate) fn uri_as_sent<'a>(&self, head: &'a Parts) -> Cow<'a, Uri> {
        uri_as_sent(&head.uri, self.of(&head.extensions).original)
    }
}

/// What names an endpoint.
///
/// 1. It is `name`, if the policy has one.
/// 2. Else it is the method and the route template that the router matched, as `POST /orders/{id}`.
/// 3. If no router matched a template, as in a fallback, it is the method and [`UNMATCHED`]. The fingerprint has the
///    path, so that keys are compared and not shared between paths.
pub(crate) struct Endpoint {
    identity: Cow<'static, str>,
    /// What metrics and spans call it instead, where it names what clients choose: labels are bounded in number.
    label: Option<Cow<'static, str>>,
}

impl Endpoint {
    pub(crate) fn new(name: Option<&Name>, method: &Method, template: Option<&str>) -> Self {
        if let Some(name) = name {
            return Self {
                identity: name.to_endpoint(),
                label: None,
            };
        }
        let template = template.unwrap_or(UNMATCHED);
        let other = || Cow::Owned(["OTHER ", template].concat());
        Self {
            identity: Cow::Owned([method.as_str(), " ", template].concat()),
            label: (!is_standard(method)).then(other),
        }
    }

    /// What names it in the scope of a key.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// What metrics and spans call it.
    pub(crate) fn label(&self) -> &str {
        self.label.as_ref().unwrap_or(&self.identity)
    }
}

/// The endpoint that a request is for, on a route with this policy.
pub(crate) fn endpoint<B>(
    policy: &crate::Policy,
    request: &Request<B>,
    routing: &Routing,
) -> Endpoint {
    let template = routing.of(request.extensions()).template;
    Endpoint::new(policy.name.as_ref(), request.method(), template)
}

/// Whether this is a standard method: clients can invent others, and the number of labels must stay bounded.
pub(crate) fn is_standard(method: &Method) -> bool {
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

/// The URI that the client sent, before a nested router stripped its prefix.
///
/// A router that the request came through remembers it in the extensions. A handler may copy these into requests of its
/// own, and a layer behind a router may rewrite a path or a query: then the request's own URI is not the rest of the
/// remembered one, and both together say what is asked for.
fn uri_as_sent<'a>(uri: &'a Uri, original: Option<&'a Uri>) -> Cow<'a, Uri> {
    match original {
        None => Cow::Borrowed(uri),
        Some(original) if is_rest_of(uri, original) && uri.query() == original.query() => {
            Cow::Borrowed(original)
        }
        Some(original) => Cow::Owned(both(original, uri)),
    }
}

/// Whether this is a URI, or what nested routers leave of it.
fn is_rest_of(uri: &Uri, original: &Uri) -> bool {
    // Of the path of the nested router itself, `/` is left.
    uri.path() == "/" || original.path().ends_with(uri.path())
}

/// One URI after the other. Paths begin with `/`, so that two of them are one path.
fn both(original: &Uri, uri: &Uri) -> Uri {
    let mut text = [original.path(), "/", uri.path()].concat();
    for (n, query) in [original.query(), uri.query()]
        .into_iter()
        .flatten()
        .enumerate()
    {
        text.push(if n == 0 { '?' } else { '&' });
        text.push_str(query);
    }
    // Two URIs that are too long together for one: the request's own says where it goes.
    text.parse().unwrap_or_else(|_| uri.clone())
}

/// The request that an execution serves: where it was sent, and which route it was for.
#[derive(Debug)]
pub(crate) struct Target {
    method: Method,
    /// As sent.
    uri: Uri,
    template: Option<Arc<str>>,
    has_caller: bool,
}

impl Target {
    /// A request to this URI, as sent.
    pub(crate) fn new(
        method: Method,
        uri: Uri,
        template: Option<Arc<str>>,
        has_caller: bool,
    ) -> Self {
        Self {
            method,
            uri,
            template,
            has_caller,
        }
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// Whether a caller step let the request in.
    pub(crate) fn has_caller(&self) -> bool {
        self.has_caller
    }

    /// Whether this is the same request, further inside. A copy of its extensions in another request is not enough: that
    /// one has another method, path or route.
    pub(crate) fn is_of<B>(&self, request: &Request<B>, routing: &Routing) -> bool {
        let template = routing.of(request.extensions()).template;
        self.method == request.method()
            && is_rest_of(request.uri(), &self.uri)
            && (self.uri.path() == request.uri().path()
                || self.template.is_none()
                || self.template.as_deref() == template)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: Option<&'static str>, method: &str) -> (String, String) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let name = name.map(Name::Static);
        let endpoint = Endpoint::new(name.as_ref(), &method, None);
        (endpoint.identity().to_owned(), endpoint.label().to_owned())
    }

    #[test]
    fn what_nested_routers_leave_of_a_uri_is_the_same_request() {
        for (original, uri, rest) in [
            ("/api/pay?a=1", "/api/pay?a=1", true),
            ("/api/pay?a=1", "/pay?a=1", true),
            ("/api", "/", true),
            ("/batch", "/pay", false),
            ("/xpay", "/pay", false),
            ("/orders/1/pay", "/orders/2/pay", false),
        ] {
            let (original, uri): (Uri, Uri) = (original.parse().unwrap(), uri.parse().unwrap());
            assert_eq!(is_rest_of(&uri, &original), rest, "{original} {uri}");
        }
    }

    #[test]
    fn a_uri_that_is_not_the_rest_of_the_other_counts_beside_it() {
        for (original, uri, both_of_them) in [
            ("/batch", "/pay/1", "/batch//pay/1"),
            ("/batch?a=1", "/pay?b=2", "/batch//pay?a=1&b=2"),
            ("/batch", "/pay?b=2", "/batch//pay?b=2"),
        ] {
            let both = both(&original.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!(both.to_string(), both_of_them);
        }
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
