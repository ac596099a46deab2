//! Bundles of options that make the engine answer as others do.

use http::{HeaderName, StatusCode};

use crate::policy::Policy;

/// A bundle of options; each is still overridable on the [`Builder`](crate::Builder).
///
/// | | `Default` | `Ietf` | `Stripe` |
/// |---|---|---|---|
/// | keys | quoted or bare | quoted only | quoted or bare |
/// | concurrent duplicates | wait | 409 at once | 409 at once |
/// | mismatch | 409 | 422 | 400 |
/// | replay header | `idempotent-replay` | `idempotent-replay` | `idempotent-replayed` |
///
/// `Ietf` follows draft-ietf-httpapi-idempotency-key-header-07, sections 2.1 (structured-field strings) and 2.7
/// (409 for a concurrent request, 422 for a reused key). `Stripe` follows its API reference: 400 for a key
/// reused with other parameters, 409 for a concurrent request, and the header it marks replays with.
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

impl Profile {
    pub(crate) const fn policy(self) -> Policy {
        match self {
            Self::Default => Policy::new(),
            Self::Ietf => Policy::new().strict(true).wait(false),
            Self::Stripe => Policy::new().wait(false),
        }
    }

    pub(crate) const fn mismatch_status(self) -> Option<StatusCode> {
        match self {
            Self::Default => None,
            Self::Ietf => Some(StatusCode::UNPROCESSABLE_ENTITY),
            Self::Stripe => Some(StatusCode::BAD_REQUEST),
        }
    }

    pub(crate) const fn replay_header(self) -> HeaderName {
        match self {
            Self::Default | Self::Ietf => HeaderName::from_static("idempotent-replay"),
            Self::Stripe => HeaderName::from_static("idempotent-replayed"),
        }
    }
}
