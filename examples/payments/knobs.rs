//! Delays and panics that a client may ask for, as extractors.
//!
//! 1. `x-delay-ms: N` sleeps N milliseconds before the effect; 60,000 at most.
//! 2. `x-panic: 1` panics after it.
//!
//! Any other value is rejected with 400. A rejection means that nothing was executed, so it releases the key: correct
//! the header and send the request again with the same key. Neither header is part of the fingerprint; a retry may
//! leave them out.

use std::time::Duration;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, request::Parts},
};

/// The longest delay.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// `x-delay-ms`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delay(Duration);

/// `x-panic`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panic(bool);

/// The answer to an invalid header.
type Rejection = (StatusCode, &'static str);

impl Delay {
    /// Sleeps for the delay.
    pub(crate) async fn sleep(self) {
        if !self.0.is_zero() {
            tokio::time::sleep(self.0).await;
        }
    }
}

impl Panic {
    /// Panics if the client asked for it.
    pub(crate) fn panic_if_asked(self) {
        assert!(!self.0, "the client asked for it: x-panic");
    }
}

impl<S: Sync> FromRequestParts<S> for Delay {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let millis = match text(&parts.headers, "x-delay-ms")? {
            Some(text) => text.parse().ok(),
            None => Some(0),
        };
        millis
            .map(Duration::from_millis)
            .filter(|delay| *delay <= LONGEST_DELAY)
            .map(Self)
            .ok_or((
                StatusCode::BAD_REQUEST,
                "x-delay-ms: expected a whole number of milliseconds, at most 60000\n",
            ))
    }
}

impl<S: Sync> FromRequestParts<S> for Panic {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        match text(&parts.headers, "x-panic")? {
            None | Some("0") => Ok(Self(false)),
            Some("1") => Ok(Self(true)),
            Some(_) => Err((StatusCode::BAD_REQUEST, "x-panic: expected 1 or 0\n")),
        }
    }
}

/// The value of a header that may have one line at most.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Rejection> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => line.to_str().map(Some).map_err(|_| {
            let message = "x-delay-ms, x-panic: expected visible ASCII\n";
            (StatusCode::BAD_REQUEST, message)
        }),
        (Some(_), Some(_)) => Err((
            StatusCode::BAD_REQUEST,
            "x-delay-ms, x-panic: expected one line\n",
        )),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn extract<T: FromRequestParts<(), Rejection = Rejection>>(
        name: &str,
        lines: &[&str],
    ) -> Option<T> {
        let mut request = Request::new(());
        for line in lines {
            let name = axum::http::HeaderName::try_from(name).unwrap();
            request.headers_mut().append(name, line.parse().unwrap());
        }
        let mut parts = request.into_parts().0;
        T::from_request_parts(&mut parts, &()).await.ok()
    }

    #[tokio::test]
    async fn delays_are_whole_milliseconds_up_to_a_minute() {
        for (lines, millis) in [
            (&[][..], 0),
            (&["0"], 0),
            (&["250"], 250),
            (&["60000"], 60_000),
        ] {
            let delay: Delay = extract("x-delay-ms", lines).await.unwrap();
            assert_eq!(delay.0, Duration::from_millis(millis));
        }
        for lines in [
            &["60001"][..],
            &["1.5"],
            &["-1"],
            &["soon"],
            &[""],
            &["1", "1"],
        ] {
            assert!(
                extract::<Delay>("x-delay-ms", lines).await.is_none(),
                "{lines:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_one_asks_for_a_panic() {
        for (lines, panics) in [(&[][..], false), (&["0"], false), (&["1"], true)] {
            assert_eq!(extract::<Panic>("x-panic", lines).await.unwrap().0, panics);
        }
        assert!(extract::<Panic>("x-panic", &["yes"]).await.is_none());
    }
}
