//! The examples that are tortured: what is sent to each, and what its answers mean.

use crate::{client::Answer, transfers};

/// The example whose processes are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum App {
    /// `payments`: at most once. A crash leaves an unknown outcome.
    Payments,
    /// `transfer`: rows and record are committed together, so a retry always ends with an outcome.
    Transfers,
}

impl App {
    /// The name of the example.
    pub(crate) fn example(self) -> &'static str {
        match self {
            Self::Payments => "payments",
            Self::Transfers => "transfer",
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Payments => "/api/payments",
            Self::Transfers => "/api/transfers",
        }
    }

    /// The body of the request with this key. No two keys have the same, so each effect tells whose it is.
    pub(crate) fn body(self, key: u64) -> String {
        match self {
            Self::Payments => format!("{{\"amount\":{key}}}"),
            Self::Transfers => transfers::of(key).to_string(),
        }
    }

    /// What a response means; nothing if it asks for the same request again.
    pub(crate) fn answer(self, status: &str, body: &str) -> Option<Answer> {
        match status {
            "201" => Some(Answer::Done(body.to_owned())),
            "409" if body.contains("\"conflict\"") => None,
            "409" if body.contains("\"outcome_unknown\"") => match self {
                Self::Payments => Some(Answer::Unknown),
                // Of a COMMIT in doubt, which is decided soon.
                Self::Transfers => None,
            },
            "409" if self == Self::Transfers && body.contains("\"insufficient_funds\"") => {
                Some(Answer::Refused(body.to_owned()))
            }
            "503" => None,
            _ => Some(Answer::Unexpected(format!("{status} {body}"))),
        }
    }

    /// How an answer names an effect.
    pub(crate) fn names(self, body: &str, effect: &str) -> bool {
        match self {
            Self::Payments => body.contains(&format!("\"{effect}\"")),
            Self::Transfers => body.contains(&format!("\"id\":{effect},")),
        }
    }
}
