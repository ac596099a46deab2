//! Bundles of options that make the engine answer as others do.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::{fingerprint::FingerprintRule, policy::Policy};

/// A bundle of options; each is still overridable on the [`Builder`](crate::Builder), and by a route's
/// [`Policy`](crate::Policy).
///
/// | | `Default` | `Ietf` | `Stripe` |
/// |---|---|---|---|
/// | keys | quoted or bare | quoted only (`strict`) | the header's value as it is (`opaque`) |
/// | concurrent duplicates | wait 30 s, then 409 | wait 5 s, then 409 | wait 5 s, then 409 |
/// | `mismatch`, `caller_mismatch` | 409 | 422 | 400 |
/// | bodies | by their bytes | by their bytes | forms by their pairs ([`FingerprintRule::form`]) |
/// | replay header | `Idempotent-Replay` | `Idempotent-Replay` | `Idempotent-Replayed` |
/// | part of the caller | | | `Stripe-Account`, `Stripe-Context` |
/// | problems | RFC 9457 | RFC 9457 | also `error` and `Stripe-Should-Retry` |
///
/// `Ietf` follows draft-ietf-httpapi-idempotency-key-header-07, sections 2.1 (structured-field strings) and 2.7
/// (409 for a concurrent request, 422 for a reused key). It waits before it says 409, which the draft allows: hardly any
/// client that retries repeats a 409, so one that came at once would be final.
///
/// `Stripe` compares forms by their pairs, because its SDKs write parameters in any order.
///
/// It is for services that Stripe's own SDKs call, or clients written after them. They read a member `error` of the
/// body, which problems carry beside their own members, and the header `Stripe-Should-Retry`:
///
/// | code | status | `error.type` | `error.code` | `Stripe-Should-Retry` |
/// |---|---|---|---|---|
/// | `mismatch`, `caller_mismatch` | 400 | `idempotency_error` | | false |
/// | `conflict` | 409 | `idempotency_error` | `idempotency_key_in_use` | true |
/// | `outcome_unknown`, `response_not_stored` | 409 | `api_error` | our code | false |
/// | `handler_panicked`, `record_unreadable` | 500 | `api_error` | | false |
/// | `missing_key`, `invalid_key` | 400 | `invalid_request_error` | | false |
/// | `request_too_large` | 413 | `invalid_request_error` | | false |
/// | `caller_unknown` | 401 | `invalid_request_error` | | false |
/// | `unreadable_body` | 400 | `invalid_request_error` | | true |
/// | `store_unavailable`, `overloaded` | 503 | `api_error` | | true |
///
/// A panic after which the same request may be sent again (`on_crash = "retry"`, or a panic before the handler began) says
/// `true`. A replay of a stored 409 or 5xx, which these SDKs would repeat for its status, says `false`, and keeps the
/// handler's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// What suits new services.
    #[default]
    Default,
    /// As the IETF draft says.
    Ietf,
    /// As clients of Stripe's API expect.
    Stripe,
}

/// How long a duplicate waits where clients expect an early answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl Profile {
    pub(crate) const fn policy(self) -> Policy {
        match self {
            Self::Default => Policy::new(),
            Self::Ietf => Policy::new().strict(true).wait_timeout(PATIENCE),
            Self::Stripe => Policy::new()
                .opaque(true)
                .wait_timeout(PATIENCE)
                .fingerprint(FingerprintRule::new().form()),
        }
    }

    pub(crate) const fn mismatch_status(self) -> Option<StatusCode> {
        match self {
            Self::Default => None,
            Self::Ietf => Some(StatusCode::UNPROCESSABLE_ENTITY),
            Self::Stripe => Some(StatusCode::BAD_REQUEST),
        }
    }

    /// Request headers that name the account on whose behalf a caller acts: it is part of the caller.
    pub(crate) fn account_headers(self) -> &'static [HeaderName] {
        static STRIPE: [HeaderName; 2] = [
            HeaderName::from_static("stripe-account"),
            HeaderName::from_static("stripe-context"),
        ];
        match self {
            Self::Default | Self::Ietf => &[],
            Self::Stripe => &STRIPE,
        }
    }

    pub(crate) const fn replay_header(self) -> HeaderName {
        match self {
            Self::Default | Self::Ietf => HeaderName::from_static("idempotent-replay"),
            Self::Stripe => HeaderName::from_static("idempotent-replayed"),
        }
    }
}
