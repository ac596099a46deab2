//! The arguments of a handler.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension, Form, Json, Router,
    body::Bytes,
    extract::{
        FromRef, FromRequest, FromRequestParts, Multipart, OriginalUri, Path, Query, RawForm,
        Request, State, rejection::JsonRejection,
    },
    http::{HeaderMap, Method, StatusCode, Uri, Version, request::Parts},
    routing::post,
};
use idempotent_runtime::{Execution, idempotent};
use serde::Deserialize;

use crate::support::{empty, exercise, json, post as body, send, serve};

#[derive(Clone, Default)]
struct App {
    name: Name,
    limit: Arc<u32>,
}

#[derive(Clone, Default)]
struct Name(String);

impl FromRef<App> for Name {
    fn from_ref(app: &App) -> Self {
        app.name.clone()
    }
}

impl FromRef<App> for Arc<u32> {
    fn from_ref(app: &App) -> Self {
        Arc::clone(&app.limit)
    }
}

fn app() -> App {
    App {
        name: Name("zoo".into()),
        limit: Arc::new(7),
    }
}

#[derive(Deserialize)]
struct Payment {
    amount: u32,
}

#[tokio::test]
async fn no_arguments() {
    #[idempotent]
    async fn handler() -> &'static str {
        "none"
    }
    let response = exercise(Router::new().route("/", post(handler)), empty("/")).await;
    assert_eq!(response.body, "none");
}

#[tokio::test]
async fn state_and_json() {
    #[idempotent]
    async fn handler(State(app): State<App>, Json(payment): Json<Payment>) -> String {
        format!("{} {}", app.name.0, payment.amount)
    }
    let router = Router::new().route("/", post(handler)).with_state(app());
    assert_eq!(
        exercise(router, json("/", r#"{"amount":3}"#)).await.body,
        "zoo 3"
    );
}

#[tokio::test]
async fn parts_of_the_state() {
    #[idempotent]
    async fn handler(State(Name(name)): State<Name>, State(limit): State<Arc<u32>>) -> String {
        format!("{name} {limit}")
    }
    let router = Router::new().route("/", post(handler)).with_state(app());
    assert_eq!(exercise(router, empty("/")).await.body, "zoo 7");
}

#[tokio::test]
async fn path_query_headers_and_bytes() {
    #[idempotent]
    async fn handler(
        Path((id, item)): Path<(u32, String)>,
        Query(query): Query<HashMap<String, String>>,
        headers: HeaderMap,
        body: Bytes,
    ) -> String {
        format!("{id} {item} {} {:?} {body:?}", query["q"], headers["x-zoo"])
    }
    let mut request = body("/7/book?q=x", "text/plain", "hello");
    request
        .headers_mut()
        .insert("x-zoo", "z".parse().expect("valid"));
    let response = exercise(Router::new().route("/{id}/{item}", post(handler)), request).await;
    assert_eq!(response.body, r#"7 book x "z" b"hello""#);
}

#[tokio::test]
async fn parts_of_the_request() {
    #[idempotent]
    async fn handler(
        method: Method,
        uri: Uri,
        version: Version,
        OriginalUri(whole): OriginalUri,
    ) -> String {
        format!("{method} {uri} {version:?} {whole}")
    }
    let router = Router::new().nest("/api", Router::new().route("/x", post(handler)));
    assert_eq!(
        exercise(router, empty("/api/x?a=1")).await.body,
        "POST /x?a=1 HTTP/1.1 /api/x?a=1"
    );
}

#[tokio::test]
async fn extractors_in_options_and_results() {
    #[idempotent]
    async fn handler(
        id: Option<Path<u32>>,
        execution: Option<Execution>,
        payment: Result<Json<Payment>, JsonRejection>,
    ) -> String {
        let amount = payment.map_or_else(
            |rejection| rejection.status().to_string(),
            |p| p.amount.to_string(),
        );
        format!("{} {} {amount}", id.is_some(), execution.is_some())
    }
    let router = || {
        Router::new()
            .route("/{id}", post(handler))
            .route("/", post(handler))
    };
    assert_eq!(
        exercise(router(), json("/1", r#"{"amount":3}"#)).await.body,
        "true true 3"
    );
    // The handler takes the rejection, so its response is stored as any other.
    assert_eq!(
        exercise(router(), json("/", "nonsense")).await.body,
        "false true 400 Bad Request"
    );
}

#[tokio::test]
async fn a_rejection_by_an_extractor_leaves_the_key_unused() {
    #[idempotent]
    async fn handler(Json(payment): Json<Payment>) -> String {
        payment.amount.to_string()
    }
    let address = serve(Router::new().route("/", post(handler))).await;
    let keyed = |text| {
        let mut request = json("/", text);
        request
            .headers_mut()
            .insert("idempotency-key", "k".parse().expect("valid"));
        request
    };
    let refused = send(address, keyed("nonsense")).await;
    assert_eq!(
        (refused.status, refused.is_replay()),
        (StatusCode::BAD_REQUEST, false)
    );
    let corrected = send(address, keyed(r#"{"amount":3}"#)).await;
    assert_eq!(
        (corrected.status, corrected.body.as_str()),
        (StatusCode::OK, "3")
    );
}

#[tokio::test]
async fn execution_with_a_required_key() {
    #[idempotent(required)]
    async fn handler(execution: Execution) -> String {
        format!("{} {}", execution.attempt(), execution.key().expose())
    }
    let address = serve(Router::new().route("/", post(handler))).await;
    let missing = send(address, empty("/")).await;
    assert_eq!(missing.status, StatusCode::BAD_REQUEST);
    assert!(missing.body.contains("missing_key"), "{}", missing.body);
    let mut request = empty("/");
    request
        .headers_mut()
        .insert("idempotency-key", "k".parse().expect("valid"));
    assert_eq!(send(address, request).await.body, "1 k");
}

#[tokio::test]
async fn execution_without_a_key_is_refused() {
    #[idempotent]
    async fn handler(_execution: Execution) {}
    let address = serve(Router::new().route("/", post(handler))).await;
    let missing = send(address, empty("/")).await;
    assert_eq!(missing.status, StatusCode::BAD_REQUEST);
    assert!(missing.body.contains("missing_key"), "{}", missing.body);
}

#[tokio::test]
async fn mutable_and_destructuring_patterns() {
    #[derive(Deserialize)]
    struct Pair {
        a: u32,
        b: (u32, [u32; 2]),
    }
    #[idempotent]
    async fn handler(
        mut headers: HeaderMap,
        Json(Pair { a, b: (_, [c, ..]) }): Json<Pair>,
    ) -> String {
        headers.clear();
        format!("{a} {c} {}", headers.len())
    }
    #[idempotent]
    async fn mutable(Json(mut list): Json<Vec<u32>>) -> String {
        list.push(9);
        format!("{list:?}")
    }
    #[idempotent]
    async fn destructured(Json((a, [b, c])): Json<(u32, [u32; 2])>) -> String {
        format!("{a} {b} {c}")
    }
    #[idempotent]
    async fn ignored(_: HeaderMap, Json(_): Json<u32>) -> &'static str {
        "ignored"
    }
    let router = || {
        let router = Router::new()
            .route("/", post(handler))
            .route("/m", post(mutable));
        router
            .route("/d", post(destructured))
            .route("/i", post(ignored))
    };
    assert_eq!(
        exercise(router(), json("/", r#"{"a":1,"b":[2,[3,4]]}"#))
            .await
            .body,
        "1 3 0"
    );
    assert_eq!(
        exercise(router(), json("/m", "[1,2]")).await.body,
        "[1, 2, 9]"
    );
    assert_eq!(
        exercise(router(), json("/d", "[1,[2,3]]")).await.body,
        "1 2 3"
    );
    assert_eq!(exercise(router(), json("/i", "1")).await.body, "ignored");
}

#[tokio::test]
async fn forms() {
    #[idempotent]
    async fn form(Form(payment): Form<Payment>) -> String {
        payment.amount.to_string()
    }
    #[idempotent]
    async fn raw(RawForm(bytes): RawForm) -> Bytes {
        bytes
    }
    let router = || {
        Router::new()
            .route("/form", post(form))
            .route("/raw", post(raw))
    };
    let request = |path| body(path, "application/x-www-form-urlencoded", "amount=5");
    assert_eq!(exercise(router(), request("/form")).await.body, "5");
    assert_eq!(exercise(router(), request("/raw")).await.body, "amount=5");
}

#[tokio::test]
async fn multipart() {
    #[idempotent]
    async fn handler(mut parts: Multipart) -> String {
        let mut seen = Vec::new();
        while let Ok(Some(part)) = parts.next_field().await {
            let name = part.name().unwrap_or_default().to_owned();
            seen.push(format!("{name}={}", part.text().await.unwrap_or_default()));
        }
        seen.join("&")
    }
    let text = "--B\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
                --B\r\ncontent-disposition: form-data; name=\"b\"\r\n\r\n2\r\n--B--\r\n";
    let request = body("/", "multipart/form-data; boundary=B", text);
    assert_eq!(
        exercise(Router::new().route("/", post(handler)), request)
            .await
            .body,
        "a=1&b=2"
    );
}

#[tokio::test]
async fn requests_strings_and_extensions() {
    #[derive(Clone)]
    struct Tenant(&'static str);
    #[idempotent]
    async fn request(request: Request) -> String {
        format!("{} {}", request.method(), request.uri())
    }
    #[idempotent]
    async fn string(Extension(Tenant(tenant)): Extension<Tenant>, text: String) -> String {
        format!("{tenant} {text}")
    }
    let router = || {
        let router = Router::new()
            .route("/request", post(request))
            .route("/string", post(string));
        router.layer(Extension(Tenant("t")))
    };
    assert_eq!(
        exercise(router(), body("/request", "text/plain", "x"))
            .await
            .body,
        "POST /request"
    );
    assert_eq!(
        exercise(router(), body("/string", "text/plain", "x"))
            .await
            .body,
        "t x"
    );
}

#[tokio::test]
async fn own_extractors_for_one_type_of_state() {
    struct User(String);
    impl FromRequestParts<App> for User {
        type Rejection = StatusCode;
        async fn from_request_parts(_: &mut Parts, app: &App) -> Result<Self, StatusCode> {
            Ok(Self(app.name.0.clone()))
        }
    }
    struct Upload(usize);
    impl FromRequest<App> for Upload {
        type Rejection = StatusCode;
        async fn from_request(request: Request, app: &App) -> Result<Self, StatusCode> {
            let bytes = Bytes::from_request(request, app)
                .await
                .map_err(|_| StatusCode::BAD_REQUEST)?;
            Ok(Self(bytes.len()))
        }
    }
    #[idempotent]
    async fn handler(User(name): User, Upload(bytes): Upload) -> String {
        format!("{name} {bytes}")
    }
    #[idempotent(state = App)]
    async fn stated(User(name): User, Upload(bytes): Upload) -> String {
        format!("{name} {bytes}")
    }
    let router = || {
        Router::new()
            .route("/", post(handler))
            .route("/s", post(stated))
            .with_state(app())
    };
    assert_eq!(
        exercise(router(), body("/", "text/plain", "xyz"))
            .await
            .body,
        "zoo 3"
    );
    assert_eq!(
        exercise(router(), body("/s", "text/plain", "xyz"))
            .await
            .body,
        "zoo 3"
    );
}

#[tokio::test]
async fn sixteen_arguments() {
    #[allow(
        clippy::too_many_arguments,
        clippy::many_single_char_names,
        reason = "as many as axum takes"
    )]
    #[idempotent]
    async fn handler(
        a: Method,
        b: Method,
        c: Method,
        d: Method,
        e: Method,
        f: Method,
        g: Method,
        h: Method,
        i: Method,
        j: Method,
        k: Method,
        l: Method,
        m: Method,
        n: Method,
        o: Method,
        p: String,
    ) -> String {
        let all = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o];
        format!(
            "{} {p}",
            all.iter().filter(|method| **method == Method::POST).count()
        )
    }
    let router = Router::new().route("/", post(handler));
    assert_eq!(
        exercise(router, body("/", "text/plain", "x")).await.body,
        "15 x"
    );
}

#[tokio::test]
async fn conditional_arguments() {
    #[idempotent]
    async fn with(
        #[cfg(test)] method: Method,
        #[cfg(not(test))] nothing: Nothing,
        text: String,
    ) -> String {
        format!("{method} {text}")
    }
    #[idempotent]
    async fn without(method: Method, #[cfg(not(test))] text: String) -> String {
        #[cfg(not(test))]
        drop(text);
        method.to_string()
    }
    let router = || {
        Router::new()
            .route("/with", post(with))
            .route("/without", post(without))
    };
    assert_eq!(
        exercise(router(), body("/with", "text/plain", "x"))
            .await
            .body,
        "POST x"
    );
    assert_eq!(exercise(router(), empty("/without")).await.body, "POST");
}

#[tokio::test]
async fn tuples_of_extractors() {
    #[idempotent]
    async fn handler((method, uri): (Method, Uri), (headers, text): (HeaderMap, String)) -> String {
        format!("{method} {uri} {} {text}", headers.contains_key("host"))
    }
    let mut request = body("/", "text/plain", "x");
    request
        .headers_mut()
        .insert("host", "zoo".parse().expect("valid"));
    assert_eq!(
        exercise(Router::new().route("/", post(handler)), request)
            .await
            .body,
        "POST / true x"
    );
}
