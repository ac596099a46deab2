//! Starting the execution, or the recovery function before it.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, request::Parts};
use tokio::time::Instant;

use super::{
    stage::{Stage, slow},
    state::{Beside, Claiming, Exchange, Identified, Started},
    winner::answer,
};
use crate::{
    catch_unwind::{catch_unwind, drop_catching},
    engine::{
        handler::{Handler, NotReady},
        run::{Answered, Run},
    },
    policy::RecoverFn,
};

impl Exchange {
    /// Starts the execution, as far as nothing waits.
    pub(super) fn execute_now<H: Handler>(
        self,
        acquired: (u32, Instant),
        claiming: Claiming,
        identified: Identified,
        head: Parts,
        mut handler: H,
    ) -> Stage<H> {
        let Identified { key, body, .. } = identified;
        let mut run = match self.run(acquired, claiming, key, &head) {
            Ok(run) => run,
            Err(Beside {
                exchange,
                remaining,
            }) => {
                drop_catching((head, handler));
                let answered = exchange.conflict(remaining);
                return exchange.end(answered);
            }
        };
        let request = Request::from_parts(head, body);
        if !run.may_start() {
            return declined(run, request, handler);
        }
        // Without a waker: one that is not ready is asked again, by the task that waits for it.
        let mut context = Context::from_waker(Waker::noop());
        let polled = catch_unwind(|| handler.poll_ready(&mut context));
        let ready = polled.unwrap_or(Poll::Ready(Err(NotReady::Panicked)));
        if !matches!(ready, Poll::Ready(Ok(()))) {
            return slow(
                run.after(),
                execute_when_ready(run, request, handler, ready),
            );
        }
        if !run.begin() {
            return declined(run, request, handler);
        }
        run.doubt.start();
        Stage::Running(run.call(handler, request))
    }
}

/// The handler may not start.
fn declined<H: Handler>(run: Run, request: Request<Bytes>, handler: H) -> Stage<H> {
    drop_catching((request, handler));
    slow(run.after(), async move {
        answer(Box::new(run).decline().await).await
    })
}

/// Executes the handler.
pub(super) async fn execute<H: Handler>(
    started: Result<Started, Beside>,
    handler: H,
) -> Answered<H::Body> {
    let Started { run, request } = match started {
        Ok(started) => started,
        Err(beside) => {
            drop_catching(handler);
            return beside.conflict();
        }
    };
    if !run.may_start() {
        drop_catching((request, handler));
        return answer(Box::pin(Box::new(run).decline()).await).await;
    }
    execute_when_ready(run, request, handler, Poll::Pending).await
}

/// Executes the handler once it can be called. `ready` is what it said when it was asked before.
async fn execute_when_ready<H: Handler>(
    run: Run,
    request: Request<Bytes>,
    handler: H,
    ready: Poll<Result<(), NotReady>>,
) -> Answered<H::Body> {
    let (mut run, handler) = match Box::new(run).until_ready(handler, ready).await {
        Ok(ready) => ready,
        Err(not_ready) => {
            drop_catching(request);
            return answer(not_ready).await;
        }
    };
    run.doubt.start();
    answer(run.call(handler, request).finish().await).await
}

/// An execution crashed, and this request has taken its lease over: asks the recovery function, so one retry at a time
/// asks, and executes the handler if nothing was executed.
pub(super) async fn recover<H: Handler>(
    started: Result<Started, Beside>,
    recover: RecoverFn,
    mut handler: H,
) -> Answered<H::Body> {
    let Started { mut run, request } = match started {
        Ok(started) => started,
        Err(beside) => {
            drop_catching(handler);
            return beside.conflict();
        }
    };
    if !run.may_start() || !run.begin() {
        drop_catching((request, handler));
        return answer(Box::new(run).decline().await).await;
    }
    // Before the start: a clone runs code of the application's.
    let retry = request.clone();
    run.doubt.start();
    match Box::new(run).recover(recover, &mut handler, retry).await {
        Ok(result) => answer(result).await,
        Err(run) => {
            let (run, handler) = match run.until_ready(handler, Poll::Pending).await {
                Ok(ready) => ready,
                Err(not_ready) => {
                    drop_catching(request);
                    return answer(not_ready).await;
                }
            };
            answer(run.call(handler, request).finish().await).await
        }
    }
}
