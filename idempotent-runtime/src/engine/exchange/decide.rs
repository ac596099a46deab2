//! The decision: from what was seen of the key and what the route asks for to the next step. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    engine::reply::Answer,
    fingerprint::Difference,
    policy::{OnCrash, Settings},
    store::{Outcome, StoreError, Token},
};

/// What a look at the key showed.
#[derive(Debug)]
pub(super) enum Seen {
    /// This request owns the key, by an acquire that was sent at that instant.
    Acquired { attempt: u32, sent: Instant },
    /// The key belongs to another request.
    Mismatch(Difference),
    /// Another execution is in flight.
    InFlight { remaining: Duration },
    /// The outcome is known.
    Completed(Outcome),
    /// The lease lapsed without an outcome.
    Lapsed { lease: Token },
    /// An execution of this process has ended, and its outcome could not be stored yet.
    InDoubt,
    /// The request would have to execute, and there is no room for that.
    NoRoom,
    /// The engine shuts down.
    ShutDown,
    /// The store did not answer.
    Failed(StoreError),
}

/// What happens next with a request.
#[derive(Debug)]
pub(super) enum Decision {
    /// The request goes on without waiting.
    Proceed(Next),
    /// Another execution is in flight: the request waits for its outcome.
    Wait { remaining: Duration },
}

/// A step that needs no waiting.
#[derive(Debug)]
pub(super) enum Next {
    /// This request owns the key: run the handler.
    Execute { attempt: u32, sent: Instant },
    /// An execution crashed, and the route executes again or has a function to find out what happened: take over the
    /// lapsed lease first.
    TakeOver { lease: Token },
    /// The request is answered without the handler.
    Answer(Answer),
    /// It is refused, because there is no room or the engine shuts down.
    Overloaded,
    /// It is refused, because the store did not answer.
    StoreFailed(StoreError),
}

/// Decides after a look at the key.
pub(super) fn decide(seen: Seen, settings: &Settings) -> Decision {
    if let Seen::InFlight { remaining } = seen
        && settings.wait
    {
        return Decision::Wait { remaining };
    }
    Decision::Proceed(next(seen, settings))
}

/// Decides for a request that does not wait, or does not wait any longer.
pub(super) fn next(seen: Seen, settings: &Settings) -> Next {
    match seen {
        Seen::Acquired { attempt, sent } => Next::Execute { attempt, sent },
        Seen::Mismatch(difference) => Next::Answer(Answer::Mismatch(difference)),
        Seen::InFlight { remaining } => Next::Answer(Answer::Conflict { remaining }),
        Seen::Completed(outcome) => Next::Answer(Answer::from(outcome)),
        Seen::Lapsed { lease } => match settings.on_crash {
            OnCrash::Refuse => Next::Answer(Answer::Unknown),
            OnCrash::Retry | OnCrash::Recover(_) => Next::TakeOver { lease },
        },
        Seen::InDoubt => Next::Answer(Answer::Unknown),
        Seen::NoRoom | Seen::ShutDown => Next::Overloaded,
        Seen::Failed(error) => Next::StoreFailed(error),
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
        store::StoreErrorKind,
    };

    const LEFT: Duration = Duration::from_secs(3);

    fn stored() -> StoredResponse {
        let (head, body) = Response::builder()
            .status(StatusCode::CREATED)
            .body(Bytes::from_static(b"paid"))
            .unwrap()
            .into_parts();
        StoredResponse::encode(&head, &body, &ResponseLimits::default(), None, None).unwrap()
    }

    /// Everything that can be seen, under every policy that matters.
    #[tokio::test]
    async fn the_table() {
        let recover: crate::RecoverFn = |_| Box::pin(async { crate::Recovery::StillUnknown });
        let lease = Token::from_bytes([7; 16]);
        let sent = Instant::now();
        let policies = [
            ("refuse", Policy::new()),
            ("no wait", Policy::new().wait(false)),
            ("retry", Policy::new().on_crash(OnCrash::Retry)),
            ("recover", Policy::new().on_crash(OnCrash::Recover(recover))),
        ];
        for (name, policy) in policies {
            let settings = Settings::resolve(&policy, &Policy::new());
            let decided = |seen| format!("{:?}", decide(seen, &settings));
            let proceed = |next: Next| format!("{:?}", Decision::Proceed(next));
            let answer = |answer| proceed(Next::Answer(answer));

            let in_flight = match name {
                "no wait" => answer(Answer::Conflict { remaining: LEFT }),
                _ => format!("{:?}", Decision::Wait { remaining: LEFT }),
            };
            let lapsed = match name {
                "retry" | "recover" => proceed(Next::TakeOver { lease }),
                _ => answer(Answer::Unknown),
            };
            let response = Outcome::Response(stored());
            let down = || StoreError::new("memory", StoreErrorKind::Unavailable);
            for (seen, expected) in [
                (
                    Seen::Acquired { attempt: 4, sent },
                    proceed(Next::Execute { attempt: 4, sent }),
                ),
                (
                    Seen::Mismatch(Difference::Request),
                    answer(Answer::Mismatch(Difference::Request)),
                ),
                (
                    Seen::Mismatch(Difference::Caller),
                    answer(Answer::Mismatch(Difference::Caller)),
                ),
                (Seen::InFlight { remaining: LEFT }, in_flight),
                (Seen::Completed(response), answer(Answer::Replay(stored()))),
                (
                    Seen::Completed(Outcome::Tombstone),
                    answer(Answer::NotStored),
                ),
                (Seen::Lapsed { lease }, lapsed),
                (Seen::InDoubt, answer(Answer::Unknown)),
                (Seen::NoRoom, proceed(Next::Overloaded)),
                (Seen::ShutDown, proceed(Next::Overloaded)),
                (Seen::Failed(down()), proceed(Next::StoreFailed(down()))),
            ] {
                let seen_as = format!("{seen:?}");
                assert_eq!(decided(seen), expected, "{name}: {seen_as}");
            }
        }
    }
}
