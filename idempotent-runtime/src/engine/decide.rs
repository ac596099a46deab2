//! The decision: from what the store said and what the route asks for to the next step. Pure.

use std::time::Duration;

use crate::{
    policy::{OnCrash, Settings},
    response::StoredResponse,
    store::{Acquisition, Outcome},
};

/// What happens next with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This request owns the key: run the handler.
    Execute { attempt: u32 },
    /// Another execution is in flight: wait for its outcome.
    Wait { remaining: Duration },
    /// An execution vanished, and the route has a function to find out what happened.
    Recover,
    /// The request is answered without the handler.
    Answer(Answer),
}

/// An answer that needs no execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The stored response.
    Replay(StoredResponse),
    /// Executed, but the response was not kept.
    NotStored,
    /// The key belongs to a request that asks for something else.
    Mismatch,
    /// The first request is still being executed.
    Conflict { remaining: Duration },
    /// Nobody knows whether the effect happened.
    Unknown,
}

/// Decides after an acquire.
pub(crate) fn decide(seen: Acquisition, settings: &Settings) -> Step {
    match seen {
        Acquisition::Acquired { attempt } => Step::Execute { attempt },
        Acquisition::Mismatch => Step::Answer(Answer::Mismatch),
        Acquisition::InFlight { remaining } if settings.wait => Step::Wait { remaining },
        Acquisition::InFlight { remaining } => Step::Answer(Answer::Conflict { remaining }),
        Acquisition::Completed(outcome) => Step::Answer(Answer::from(outcome)),
        Acquisition::Unknown if matches!(settings.on_crash, OnCrash::Recover(_)) => Step::Recover,
        Acquisition::Unknown => Step::Answer(Answer::Unknown),
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Response(response) => Self::Replay(response),
            Outcome::Tombstone => Self::NotStored,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Response, StatusCode};

    use super::*;
    use crate::{policy::Policy, response::ResponseLimits};

    const LEFT: Duration = Duration::from_secs(3);

    fn stored() -> StoredResponse {
        let (head, body) = Response::builder()
            .status(StatusCode::CREATED)
            .body(Bytes::from_static(b"paid"))
            .unwrap()
            .into_parts();
        StoredResponse::encode(&head, &body, &ResponseLimits::default()).unwrap()
    }

    /// Every answer of the store, under every policy that matters.
    #[test]
    fn the_table() {
        let recover: crate::RecoverFn = |_| Box::pin(async { crate::Recovery::StillUnknown });
        let policies = [
            ("wait", Policy::new()),
            ("no wait", Policy::new().wait(false)),
            ("retry", Policy::new().on_crash(OnCrash::Retry)),
            ("recover", Policy::new().on_crash(OnCrash::Recover(recover))),
        ];
        for (name, policy) in policies {
            let settings = Settings::resolve(&policy, &Policy::new());
            let step = |seen| decide(seen, &settings);

            assert_eq!(
                step(Acquisition::Acquired { attempt: 4 }),
                Step::Execute { attempt: 4 },
                "{name}"
            );
            assert_eq!(
                step(Acquisition::Mismatch),
                Step::Answer(Answer::Mismatch),
                "{name}"
            );
            let expected = match name {
                "no wait" => Step::Answer(Answer::Conflict { remaining: LEFT }),
                _ => Step::Wait { remaining: LEFT },
            };
            assert_eq!(
                step(Acquisition::InFlight { remaining: LEFT }),
                expected,
                "{name}"
            );
            assert_eq!(
                step(Acquisition::Completed(Outcome::Response(stored()))),
                Step::Answer(Answer::Replay(stored())),
                "{name}"
            );
            assert_eq!(
                step(Acquisition::Completed(Outcome::Tombstone)),
                Step::Answer(Answer::NotStored),
                "{name}"
            );
            // With `retry` the store itself takes over; if it says unknown all the same, nothing is executed.
            let expected = match name {
                "recover" => Step::Recover,
                _ => Step::Answer(Answer::Unknown),
            };
            assert_eq!(step(Acquisition::Unknown), expected, "{name}");
        }
    }
}
