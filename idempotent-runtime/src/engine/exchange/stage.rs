//! How far a request has come, and what polls it on.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use super::winner::answer;
use crate::{
    catch_unwind::{Catching, Panicked, catch_unwind, catching_unpin},
    engine::{
        core::{Core, detach_handle::Detached, plan::Plan},
        handler::{BoxFuture, Handler, HandlerResult},
        reply::{Reply, name_outcome, nothing_executed, refuse},
        run::{After, Answered, Ended, Running},
    },
    problem::ProblemCode,
};

/// How far a request has come that was received.
pub(super) enum Stage<H: Handler> {
    /// Its handler is at work.
    Running(Running<H::Future>),
    /// Something waits, or waited before.
    Slow {
        future: Catching<BoxFuture<Answered<H::Body>>>,
        after: After,
    },
    /// The answer is here, and whether nothing was executed for it.
    Answered(Reply<H::Body>, bool),
    /// It was given.
    Gone,
}

/// What is left to do waits.
pub(super) fn slow<H, F>(after: After, rest: F) -> Stage<H>
where
    H: Handler,
    F: Future<Output = Answered<H::Body>> + Send + 'static,
{
    let future: BoxFuture<_> = Box::pin(rest);
    Stage::Slow {
        future: catching_unpin(future),
        after,
    }
}

impl<H: Handler> Stage<H> {
    /// The answer is here: records how the request ended, and names it in the reply.
    pub(super) fn answered(
        core: &Core,
        plan: &Plan,
        (result, mut reply): Answered<H::Body>,
    ) -> Self {
        let nothing = nothing_executed(result, &reply);
        plan.metrics.request(result);
        name_outcome(core, result, &mut reply);
        Self::Answered(reply, nothing)
    }

    /// Foreign code panicked where nothing else catches it.
    pub(super) fn panicked(core: &Core, plan: &Plan) -> Self {
        tracing::error!("a keyed request panicked outside of its handler; the outcome is unknown");
        let answered = refuse(core, &ProblemCode::OutcomeUnknown.into());
        Self::answered(core, plan, answered)
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<(Reply<H::Body>, bool)> {
        loop {
            *self = match self {
                Self::Running(running) => {
                    let ended = ready!(running.poll(context));
                    match mem::replace(self, Self::Gone) {
                        Self::Running(running) => Self::ended(running, ended),
                        stage => stage,
                    }
                }
                Self::Slow { future, after } => match ready!(Pin::new(future).poll(context)) {
                    Ok(answered) => Self::answered(&after.core, &after.plan, answered),
                    Err(Panicked) => Self::panicked(&after.core, &after.plan),
                },
                Self::Answered(..) | Self::Gone => {
                    let Self::Answered(reply, nothing) = mem::replace(self, Self::Gone) else {
                        panic!("an answered request was polled again");
                    };
                    return Poll::Ready((reply, nothing));
                }
            };
        }
    }

    /// The handler has ended.
    fn ended(running: Running<H::Future>, ended: Result<HandlerResult<H::Body>, Panicked>) -> Self {
        let Running { mut run, since, .. } = running;
        match catch_unwind(|| run.end_now(ended, since)) {
            Ok(Ended::Answered(answered)) => Self::answered(&run.core, &run.plan, answered),
            Ok(Ended::Waits(ending)) => slow(run.after(), async move {
                answer(Box::new(run).end(ending).await).await
            }),
            Err(Panicked) => Self::panicked(&run.core, &run.plan),
        }
    }

    /// The client leaves. See [`Leave`](crate::engine::detach::Leave).
    pub(super) fn leave(&self) -> Option<Detached> {
        match self {
            Self::Running(Running { run, .. }) => run.detach().leave(&run.core.room),
            Self::Slow { after, .. } => after.detach.leave(&after.core.room),
            Self::Answered(..) | Self::Gone => None,
        }
    }
}
