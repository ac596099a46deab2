//! The middleware for `reqwest-middleware`.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Extensions, HeaderName, HeaderValue, Method};
use reqwest::{Request, Response, ResponseBuilderExt};
use reqwest_middleware::{Error, Middleware, Next};
use tokio::time::{Instant, sleep};

use super::{Verdict, decide};
use crate::{backoff::Backoff, key::IdempotencyKey};

/// Gives each logical request one key and repeats it until it has its answer. See the [module documentation](super).
#[derive(Clone, Debug)]
pub struct Keyed {
    header: HeaderName,
    quoted: bool,
    methods: Vec<Method>,
    give_up_after: Duration,
    server_ttl: Duration,
    pauses: (Duration, Duration),
}

/// The key of one logical request, for [`RequestBuilder::with_extension`](reqwest_middleware::RequestBuilder::with_extension).
///
/// A client that keeps it, before it sends the request, may send the request again after a restart.
#[derive(Clone)]
pub struct RequestKey {
    key: IdempotencyKey,
    first_sent: SystemTime,
}

/// The key is so old that the server may have forgotten it: the request was not sent, since it could execute again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expired;

/// One attempt: its answer, read to its end.
struct Answer {
    response: http::Response<Bytes>,
    verdict: Verdict,
}

impl RequestKey {
    /// A key, and when a request with it was sent for the first time, or now.
    #[must_use]
    pub fn new(key: IdempotencyKey, first_sent: SystemTime) -> Self {
        Self { key, first_sent }
    }

    /// A new key.
    ///
    /// # Panics
    ///
    /// Never: 32 hexadecimal digits are a key.
    #[must_use]
    pub fn random() -> Self {
        let text = format!("{:032x}", rand::random::<u128>());
        let key = IdempotencyKey::from_bytes(text.as_bytes());
        Self {
            key: key.expect("32 hexadecimal digits are a key"),
            first_sent: SystemTime::now(),
        }
    }

    /// The key. A secret: keep it where others cannot read it.
    #[must_use]
    pub fn key(&self) -> &IdempotencyKey {
        &self.key
    }

    /// When a request with it was sent for the first time.
    #[must_use]
    pub fn first_sent(&self) -> SystemTime {
        self.first_sent
    }
}

impl Keyed {
    /// Covers POST, PUT, PATCH and DELETE, by the header `Idempotency-Key` without quotes, for a minute.
    #[must_use]
    pub fn new() -> Self {
        Self {
            header: HeaderName::from_static("idempotency-key"),
            quoted: false,
            methods: vec![Method::POST, Method::PUT, Method::PATCH, Method::DELETE],
            give_up_after: Duration::from_secs(60),
            server_ttl: Duration::from_secs(24 * 60 * 60),
            pauses: (Duration::from_millis(200), Duration::from_secs(10)),
        }
    }

    /// The header of the key. Default: `Idempotency-Key`.
    #[must_use]
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = name;
        self
    }

    /// Writes keys in quotes, as servers want them that follow the IETF draft strictly. Default: without.
    #[must_use]
    pub fn quoted(mut self) -> Self {
        self.quoted = true;
        self
    }

    /// The methods that get a key; requests of others pass by.
    #[must_use]
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.methods = methods.into_iter().collect();
        self
    }

    /// No attempt begins after this time, counted from the first one. Default: one minute.
    #[must_use]
    pub fn give_up_after(mut self, time: Duration) -> Self {
        self.give_up_after = time;
        self
    }

    /// How long the server remembers a key. No attempt begins later, counted from the first one. Default: 24 hours.
    #[must_use]
    pub fn server_ttl(mut self, ttl: Duration) -> Self {
        self.server_ttl = ttl;
        self
    }

    /// The shortest and the longest pause between two attempts where the server says none. They grow from one to the
    /// other, with jitter. Default: 200 ms and 10 s.
    #[must_use]
    pub fn pauses(mut self, shortest: Duration, longest: Duration) -> Self {
        self.pauses = (shortest, longest);
        self
    }

    /// Writes the key into the request, unless that has a header of its own.
    fn write_key(&self, request: &mut Request, key: &RequestKey) -> Result<(), Error> {
        if request.headers().contains_key(&self.header) {
            return Ok(());
        }
        let text = key.key.expose();
        let text = if self.quoted {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        } else {
            text.to_owned()
        };
        let mut value = HeaderValue::try_from(text).map_err(Error::middleware)?;
        value.set_sensitive(true);
        request.headers_mut().insert(self.header.clone(), value);
        Ok(())
    }

    /// Whether the server may have forgotten a key that was first sent then.
    fn is_expired(&self, key: &RequestKey) -> bool {
        let age = key.first_sent.elapsed().unwrap_or_default();
        age >= self.server_ttl
    }
}

impl Default for Keyed {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Middleware for Keyed {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response, Error> {
        if !self.methods.contains(request.method()) {
            return next.run(request, extensions).await;
        }
        // What is around this middleware may repeat the request without its headers, but with its extensions.
        let key = extensions.get_or_insert_with(RequestKey::random).clone();
        self.write_key(&mut request, &key)?;
        let began = Instant::now();
        let mut backoff = Backoff::new(self.pauses.0, self.pauses.1);
        loop {
            if self.is_expired(&key) {
                return Err(Error::middleware(Expired));
            }
            let Some(again) = request.try_clone() else {
                return next.run(request, extensions).await;
            };
            let url = request.url().clone();
            let answer = attempt(again, extensions, next.clone()).await;
            let after = match &answer {
                Ok(Answer { verdict, .. }) => match verdict {
                    Verdict::Final => None,
                    Verdict::RetrySameKey { after } => Some(*after),
                },
                Err(error) if is_transient(error) => Some(None),
                Err(_) => None,
            };
            let pause = after.map(|after| after.unwrap_or_else(|| backoff.pause()));
            match pause {
                Some(pause) if began.elapsed() + pause < self.give_up_after => sleep(pause).await,
                _ => return answer.map(|answer| answer.into_response(url)),
            }
        }
    }
}

/// Sends the request once, and reads the answer to its end: one that breaks off is none.
async fn attempt(
    request: Request,
    extensions: &mut Extensions,
    next: Next<'_>,
) -> Result<Answer, Error> {
    let mut response = next.run(request, extensions).await?;
    let mut head = http::Response::new(());
    *head.status_mut() = response.status();
    *head.version_mut() = response.version();
    *head.headers_mut() = std::mem::take(response.headers_mut());
    *head.extensions_mut() = std::mem::take(response.extensions_mut());
    let body = response.bytes().await?;
    let verdict = decide(head.status(), head.headers(), &body);
    Ok(Answer {
        response: head.map(|()| body),
        verdict,
    })
}

/// Whether the request may have had its effect, or never arrived: then the same key finds out.
fn is_transient(error: &Error) -> bool {
    match error {
        Error::Reqwest(error) => !(error.is_builder() || error.is_redirect()),
        Error::Middleware(_) => false,
    }
}

impl Answer {
    fn into_response(self, url: reqwest::Url) -> Response {
        let (head, body) = self.response.into_parts();
        // Only an extension of the builder carries the address.
        let builder = http::Response::builder().url(url);
        let mut response = builder.body(body).unwrap_or_default();
        *response.status_mut() = head.status;
        *response.version_mut() = head.version;
        *response.headers_mut() = head.headers;
        response.extensions_mut().extend(head.extensions);
        Response::from(response)
    }
}

impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestKey")
            .field("first_sent", &self.first_sent)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the idempotency key is older than the server's ttl, so that the request could execute again: it was not \
             sent; find out whether the operation took effect",
        )
    }
}

impl std::error::Error for Expired {}
