//! What a client got.

use std::fmt;

use bytes::Bytes;
use http::{StatusCode, header::CONTENT_TYPE};
use serde_json::Value;

use crate::support::TestResponse;

/// How a request ended for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The handler's own answer.
    Outcome(Shown),
    /// The handler or its extractor says that nothing happened.
    Refused,
    Conflict,
    Mismatch,
    /// `outcome_unknown`.
    Unknown,
    /// `response_not_stored`.
    NotStored,
    /// `handler_panicked`.
    Panicked,
    /// `store_unavailable` or `overloaded`.
    Unavailable,
    /// The connection ended without a whole answer.
    Cut,
    /// The client left before its answer.
    Left,
    /// Neither an answer nor the end of the connection, for longer than any request may take.
    Nothing,
    Other(String),
}

/// An outcome as it was shown, byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) key: u64,
    /// The number of the execution that it is the outcome of.
    pub(crate) execution: usize,
    pub(crate) status: StatusCode,
    /// The headers that a handler sets and that a replay keeps.
    pub(crate) headers: Vec<String>,
    pub(crate) body: Bytes,
}

/// What the body of a handler that says that nothing happened begins with.
pub(crate) const NOTHING_HAPPENED: &str = "nothing happened";

impl Answer {
    /// The kind of this response.
    pub(crate) fn of(response: &TestResponse) -> Self {
        let json = response.headers.get(CONTENT_TYPE);
        if json.is_some_and(|json| json == "application/problem+json") {
            let problem: Value = serde_json::from_slice(&response.body).unwrap_or_default();
            return match problem["code"].as_str().unwrap_or_default() {
                "conflict" => Self::Conflict,
                "mismatch" => Self::Mismatch,
                "outcome_unknown" => Self::Unknown,
                "response_not_stored" => Self::NotStored,
                "handler_panicked" => Self::Panicked,
                "store_unavailable" | "overloaded" => Self::Unavailable,
                _ => Self::Other(format!("{response:?}")),
            };
        }
        if response.body.starts_with(NOTHING_HAPPENED.as_bytes()) {
            return Self::Refused;
        }
        Shown::of(response).map_or_else(|| Self::Other(format!("{response:?}")), Self::Outcome)
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Outcome(_) => "answers: the outcome",
            Self::Refused => "answers: refused by the handler",
            Self::Conflict => "answers: conflict",
            Self::Mismatch => "answers: mismatch",
            Self::Unknown => "answers: outcome_unknown",
            Self::NotStored => "answers: response_not_stored",
            Self::Panicked => "answers: handler_panicked",
            Self::Unavailable => "answers: 503",
            Self::Cut => "answers: none, the server was gone",
            Self::Left => "answers: none, the client left",
            Self::Nothing => "answers: none, and no end",
            Self::Other(_) => "answers: others",
        }
    }
}

impl Shown {
    fn of(response: &TestResponse) -> Option<Self> {
        let line = response.body.split(|&byte| byte == b'\n').next()?;
        let words: Vec<_> = std::str::from_utf8(line).ok()?.split(' ').collect();
        let ["order", key, "execution", execution, "nonce", _] = words[..] else {
            return None;
        };
        let lines = ["x-execution", "content-type"].map(|name| response.lines(name));
        Some(Self {
            key: key.parse().ok()?,
            execution: execution.parse().ok()?,
            status: response.status,
            headers: lines.concat().into_iter().map(ToOwned::to_owned).collect(),
            body: response.body.clone(),
        })
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.body.split(|&byte| byte == b'\n').next();
        let line = String::from_utf8_lossy(line.unwrap_or_default());
        write!(
            f,
            "{} {line:?} of {} bytes {:?}",
            self.status,
            self.body.len(),
            self.headers
        )
    }
}
