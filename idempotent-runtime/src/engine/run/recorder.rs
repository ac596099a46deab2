//! The engine's end of a stream: responses of unknown size, passed on frame by frame while they are recorded.
//!
//! 1. Each frame goes to the client when the next one has arrived; a copy is kept, up to `max_response`. So the last frame
//!    is held back: before the outcome is stored nobody has the whole response, whatever marks its end.
//! 2. A stream that ends within the limit is completed with what was recorded. Only then does the client get the last
//!    frame; if the completion is not acknowledged, the client sees a broken stream rather than a
//!    finished one that no retry will show.
//! 3. A stream that outgrows the limit, breaks, carries trailers, or is still going when the execution's
//!    `max_lifetime` is over, leaves a tombstone. The rest is passed through unrecorded.
//! 4. The stream is part of the execution: a client that goes away does not end it before its outcome is
//!    stored. After that nobody needs the rest, and it is dropped.
//! 5. A client that does not read stops the stream, not its lease: the stream is recorded in a task of its own, because
//!    a server does not poll a body for which its connection has no room.

use std::{collections::VecDeque, future::Future, pin::pin, sync::Arc};

use bytes::Bytes;
use http::response::Parts;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::{
    sync::mpsc,
    task::coop::consume_budget,
    time::{Instant, timeout_at},
};
use tracing::{Instrument, instrument::WithSubscriber};

use super::{commit::CommitOutcome, state::Run};
use crate::{
    catch_unwind::{Panicked, catching},
    engine::{
        body::recording::{FrameResult, Recording},
        core::{Core, detach_handle::DetachHandle},
        handler::BoxError,
    },
    store::Outcome,
};

/// Starts recording, within a runtime, and returns what the client reads.
pub(super) fn start<B>(run: Box<Run>, head: Parts, body: B) -> Recording
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let (client, recording) = Recording::channel();
    let watched = client.clone();
    let detach = run.detach();
    let core = Arc::clone(&run.core);
    let runtime = core.runtime.clone();
    let recorder = Recorder {
        run,
        head,
        body,
        client: Some(client),
        kept: Vec::new(),
        held: VecDeque::new(),
    };
    let recorder = counted(recorder.drive(), watched, core, detach);
    let recorder = recorder.instrument(tracing::Span::current());
    runtime.spawn(recorder.with_current_subscriber());
    recording
}

/// Passes on what was read of a body, and the rest of it unrecorded. The outcome of its execution is decided elsewhere.
pub(super) fn rest<B>(core: &Core, read: Vec<Frame<Bytes>>, mut body: B) -> Recording
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    let (client, recording) = Recording::channel();
    let passing = async move {
        if send_all(read, &client).await {
            pass_on(None, &mut body, &client).await;
        }
    };
    let passing = passing.instrument(tracing::Span::current());
    core.runtime.spawn(passing.with_current_subscriber());
    recording
}

/// Runs a recorder. It counts as detached from the moment its client has gone.
async fn counted(
    recorder: impl Future<Output = ()>,
    client: mpsc::Sender<FrameResult>,
    core: Arc<Core>,
    detach: DetachHandle,
) {
    let mut recorder = pin!(recorder);
    tokio::select! {
        biased;
        () = &mut recorder => return,
        () = client.closed() => {}
    }
    let _detached = detach.detach(&core.room);
    recorder.await;
}

/// The engine's end.
struct Recorder<B> {
    run: Box<Run>,
    head: Parts,
    body: B,
    /// `None` when the client has gone.
    client: Option<mpsc::Sender<FrameResult>>,
    kept: Vec<u8>,
    /// The frames that were read and not sent yet. The last one is held back until it is known not to be the last.
    held: VecDeque<Frame<Bytes>>,
}

/// Why recording stopped.
enum Stop {
    /// The stream ended.
    Ended,
    /// It cannot be stored; this is what comes after the frames that are held, if anything is known of it.
    NotStorable(Option<FrameResult>),
}

impl<B> Recorder<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    async fn drive(mut self) {
        let stop = self.record().await;
        let outcome = match &stop {
            Stop::Ended => self.run.outcome(&self.head, &self.kept),
            Stop::NotStorable(_) => Outcome::Tombstone,
        };
        let committed = self.run.commit(&outcome, None).await;
        let Self {
            run,
            mut body,
            client,
            held,
            ..
        } = self;
        // The outcome is final: what follows is not part of the execution, and a shutdown need not wait for it.
        if committed == CommitOutcome::Unacknowledged {
            run.persist(outcome);
        } else {
            drop(run);
        }
        let Some(client) = client else { return };
        match stop {
            _ if committed != CommitOutcome::Applied => {
                let _gone = client
                    .send(Err("the outcome of this request could not be stored".into()))
                    .await;
            }
            Stop::Ended => {
                let _delivered = send_all(held, &client).await;
            }
            Stop::NotStorable(next) => {
                if send_all(held, &client).await {
                    pass_on(next, &mut body, &client).await;
                }
            }
        }
    }

    async fn record(&mut self) -> Stop {
        let end_of_life = self.run.lease.end_of_life();
        loop {
            // A body that is always ready must not keep its thread from other tasks, nor from the check of the time.
            consume_budget().await;
            if Instant::now() >= end_of_life {
                return Stop::NotStorable(None);
            }
            let next = catching(timeout_at(end_of_life, next_frame(&mut self.body)));
            let Ok(next) = next.await else {
                tracing::error!("the response stream panicked");
                return Stop::NotStorable(Some(Err("the response stream panicked".into())));
            };
            let frame = match next {
                Err(_too_long) => return Stop::NotStorable(None),
                Ok(None) => return Stop::Ended,
                Ok(Some(Err(error))) => return Stop::NotStorable(Some(Err(error))),
                Ok(Some(Ok(frame))) => frame,
            };
            // An empty frame must not send the last one with data.
            if frame.data_ref().is_some_and(Bytes::is_empty) {
                continue;
            }
            match frame.data_ref() {
                Some(data) if self.kept.len() + data.len() <= self.run.settings().max_response => {
                    self.kept.extend_from_slice(data);
                }
                _ => return Stop::NotStorable(Some(Ok(frame))),
            }
            self.held.push_back(frame);
            if !self.send_all_but_the_last().await {
                return Stop::NotStorable(None);
            }
        }
    }

    /// Passes all frames but the last to the client, if it is still there; `false` if the client does not take them before
    /// the execution's `max_lifetime` ends.
    async fn send_all_but_the_last(&mut self) -> bool {
        let end_of_life = self.run.lease.end_of_life();
        while self.held.len() > 1 {
            let Some(client) = &self.client else {
                self.held.pop_front();
                continue;
            };
            let gone = match timeout_at(end_of_life, client.reserve()).await {
                Ok(Ok(place)) => {
                    if let Some(frame) = self.held.pop_front() {
                        place.send(Ok(frame));
                    }
                    false
                }
                Ok(Err(_gone)) => true,
                Err(_too_slow) => return false,
            };
            if gone {
                self.client = None;
            }
        }
        true
    }
}

/// Sends what was held back; `false` if the client has gone.
async fn send_all(
    held: impl IntoIterator<Item = Frame<Bytes>, IntoIter: Send>,
    client: &mpsc::Sender<FrameResult>,
) -> bool {
    for frame in held {
        if client.send(Ok(frame)).await.is_err() {
            return false;
        }
    }
    true
}

/// The unrecorded rest of a stream, for as long as it is whole and the client is there.
async fn pass_on<B>(owed: Option<FrameResult>, body: &mut B, client: &mpsc::Sender<FrameResult>)
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut next = owed;
    loop {
        if let Some(frame) = next {
            let broken = frame.is_err();
            if client.send(frame).await.is_err() || broken {
                return;
            }
        }
        next = tokio::select! {
            () = client.closed() => return,
            frame = catching(next_frame(body)) => match frame {
                Ok(None) => return,
                Ok(frame) => frame,
                Err(Panicked) => Some(Err("the response stream panicked".into())),
            },
        };
    }
}

async fn next_frame<B>(body: &mut B) -> Option<FrameResult>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    Some(body.frame().await?.map_err(Into::into))
}
