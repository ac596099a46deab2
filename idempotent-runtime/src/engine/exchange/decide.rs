//! The decision: from what the store answered and what the route asks for to the next step. Pure.

use std::time::Duration;

use crate::{
    engine::reply::Answer,
    policy::{OnCrash, Settings},
    store::Acquisition,
};

/// What happens next with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The request goes on without waiting.
    Proceed(Next),
    /// Another execution is in flight: the request waits for its outcome.
    Wait { remaining: Duration },
}

/// A step that needs no waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This request owns the key: run the handler.
    Execute { attempt: u32 },
    /// An execution crashed, and the route has a function to find out what happened.
    Recover,
    /// The request is answered without the handler.
    Answer(Answer),
}

/// Decides after an acquire.
pub(crate) fn decide(seen: Acquisition, settings: &Settings) -> Decision {
    if let Acquisition::InFlight { remaining } = seen
        && settings.wait
    {
        return Decision::Wait { remaining };
    }
    Decision::Proceed(next(seen, settings))
}

/// Decides for a request that does not wait, or does not wait any longer.
pub(crate) fn next(seen: Acquisition, settings: &Settings) -> Next {
    match seen {
        Acquisition::Acquired { attempt } => Next::Execute { attempt },
        Acquisition::Mismatch => Next::Answer(Answer::Mismatch),
        Acquisition::InFlight { remaining } => Next::Answer(Answer::Conflict { remaining }),
        Acquisition::Completed(outcome) => Next::Answer(Answer::from(outcome)),
        Acquisition::Unknown if matches!(settings.on_crash, OnCrash::Recover(_)) => Next::Recover,
        Acquisition::Unknown => Next::Answer(Answer::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Response, StatusCode};

    use super::*;
    use crate::{
        policy::Policy,
        response::{ResponseLimits, StoredResponse},
        store::Outcome,
    };

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
                Decision::Proceed(Next::Execute { attempt: 4 }),
                "{name}"
            );
            assert_eq!(
                step(Acquisition::Mismatch),
                Decision::Proceed(Next::Answer(Answer::Mismatch)),
                "{name}"
            );
            let expected = match name {
                "no wait" => Decision::Proceed(Next::Answer(Answer::Conflict { remaining: LEFT })),
                _ => Decision::Wait { remaining: LEFT },
            };
            assert_eq!(
                step(Acquisition::InFlight { remaining: LEFT }),
                expected,
                "{name}"
            );
            assert_eq!(
                step(Acquisition::Completed(Outcome::Response(stored()))),
                Decision::Proceed(Next::Answer(Answer::Replay(stored()))),
                "{name}"
            );
            assert_eq!(
                step(Acquisition::Completed(Outcome::Tombstone)),
                Decision::Proceed(Next::Answer(Answer::NotStored)),
                "{name}"
            );
            // With `retry` the store itself takes over; if it says unknown all the same, nothing is executed.
            let expected = match name {
                "recover" => Decision::Proceed(Next::Recover),
                _ => Decision::Proceed(Next::Answer(Answer::Unknown)),
            };
            assert_eq!(step(Acquisition::Unknown), expected, "{name}");
        }
    }
}
