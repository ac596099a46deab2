//! The table of routes, and what every request passes before its route answers.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{RawPathParams, Request},
    routing::{MethodFilter, on},
};
use http::{
    HeaderName, HeaderValue, Method, Response,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
    request::Parts,
};
use serde::Serialize;

use super::{Access, Admin, act::Act, base, error::Refusal, input, origin};

/// What a route answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Page,
    Script,
    Style,
    Access,
    Stats,
    Records,
    Record,
    Lookup,
    Series,
    Audit,
    Act(Act),
}

/// A method and a path.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) endpoint: Endpoint,
}

impl Route {
    const fn get(path: &'static str, endpoint: Endpoint) -> Self {
        let method = Method::GET;
        Self {
            method,
            path,
            endpoint,
        }
    }

    const fn post(path: &'static str, endpoint: Endpoint) -> Self {
        let method = Method::POST;
        Self {
            method,
            path,
            endpoint,
        }
    }

    /// Whether another site's page may lead a browser here: the page itself is linked to.
    fn is_api(&self) -> bool {
        !matches!(
            self.endpoint,
            Endpoint::Page | Endpoint::Script | Endpoint::Style
        )
    }
}

/// The parameter of the path: a name that the router around is not likely to use.
const ID: &str = "idempotency_record";

/// All there is. The page is `index.html` under whatever path it is nested.
pub(super) static ROUTES: [Route; 14] = [
    Route::get("/", Endpoint::Page),
    Route::get("/app.js", Endpoint::Script),
    Route::get("/style.css", Endpoint::Style),
    Route::get("/api/access", Endpoint::Access),
    Route::get("/api/stats", Endpoint::Stats),
    Route::get("/api/records", Endpoint::Records),
    Route::get("/api/records/{idempotency_record}", Endpoint::Record),
    Route::post("/api/lookup", Endpoint::Lookup),
    Route::get("/api/series", Endpoint::Series),
    Route::get("/api/audit", Endpoint::Audit),
    Route::post(
        "/api/records/{idempotency_record}/resolve",
        Endpoint::Act(Act::Resolve),
    ),
    Route::post(
        "/api/records/{idempotency_record}/release",
        Endpoint::Act(Act::Release),
    ),
    Route::post(
        "/api/records/{idempotency_record}/forget",
        Endpoint::Act(Act::Forget),
    ),
    Route::post(
        "/api/records/{idempotency_record}/reveal",
        Endpoint::Act(Act::Reveal),
    ),
];

/// What every answer says, errors included.
const HEADERS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'self'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // For browsers older than `frame-ancestors`.
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

pub(super) fn router<S>(admin: Arc<Admin>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let mut router = Router::new();
    for route in &ROUTES {
        let (filter, allowed) = if route.method == Method::GET {
            (MethodFilter::GET, "GET,HEAD")
        } else {
            (MethodFilter::POST, "POST")
        };
        let (answering, refusing) = (Arc::clone(&admin), Arc::clone(&admin));
        let methods = on(filter, move |request| answering.answer(request, Ok(route)));
        let other = move |request| refusing.answer(request, Err(Refusal::other_method(allowed)));
        router = router.route(route.path, methods.fallback(other));
    }
    router.fallback(move |request| admin.answer(request, Err(Refusal::no_route())))
}

impl Admin {
    /// The answer of a route, or of none, to whom the guard lets in.
    async fn answer(
        self: Arc<Self>,
        request: Request,
        route: Result<&'static Route, Refusal>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let access = (self.guard)(&parts);
        let answered = match route {
            _ if access == Access::Deny => Err(Refusal::denied()),
            Ok(route) => self.route(route, parts, body, access).await,
            Err(refusal) => Err(refusal),
        };
        let mut response = answered.unwrap_or_else(Refusal::into_response);
        for (name, value) in HEADERS {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }

    async fn route(
        self: Arc<Self>,
        route: &Route,
        mut parts: Parts,
        body: Body,
        access: Access,
    ) -> Result<Response<Body>, Refusal> {
        if route.is_api() {
            origin::check(&parts)?;
        }
        if route.method == Method::POST {
            input::is_json(&parts)?;
        }
        let query = parts.uri.query().unwrap_or_default();
        match route.endpoint {
            Endpoint::Page => Ok(file("text/html; charset=utf-8", base::page(&parts))),
            Endpoint::Script => Ok(file(
                "text/javascript; charset=utf-8",
                include_str!("page/app.js").into(),
            )),
            Endpoint::Style => Ok(file(
                "text/css; charset=utf-8",
                include_str!("page/style.css").into(),
            )),
            Endpoint::Access => Ok(json(&self.access(&access))),
            Endpoint::Stats => Ok(json(&self.stats().await?)),
            Endpoint::Records => Ok(json(&self.records(query).await?)),
            Endpoint::Record => Ok(json(&self.record(&id(&mut parts).await).await?)),
            Endpoint::Lookup => Ok(json(&self.look_up(input::read(body).await?).await?)),
            Endpoint::Series => Ok(json(&self.series().await?)),
            Endpoint::Audit => Ok(json(&self.audit(query).await?)),
            Endpoint::Act(act) => {
                let actor = self.actor(access)?;
                let key = input::whole_id(&id(&mut parts).await)?;
                let order = input::read(body).await?;
                Ok(json(&self.act(act, actor, key, order).await?))
            }
        }
    }
}

/// The parameter of the path. Decoded: what is no ID is refused later.
async fn id(parts: &mut Parts) -> String {
    use axum::RequestPartsExt as _;

    let params = parts.extract::<RawPathParams>().await;
    let found = params.ok().and_then(|params| {
        let value = params.iter().find(|(name, _)| *name == ID)?.1;
        Some(value.to_owned())
    });
    found.unwrap_or_default()
}

fn file(content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer in JSON.
fn json(value: &impl Serialize) -> Response<Body> {
    // Invariant: views are structs of texts and numbers, which are always JSON.
    let text = serde_json::to_string(value).expect("views are JSON");
    file("application/json", text)
}
