//! What can happen, one thing at a time.

use crate::{
    engine::Recovery,
    request::{Payload, Process, RequestId},
    world::LateOperation,
};

/// One step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A request with the key arrives.
    Arrive(RequestId, Process, Payload),
    /// Its operation reaches the store and is executed.
    Deliver(RequestId),
    /// The reply reaches the engine.
    Receive(RequestId),
    /// The engine gives up on its operation: the message or its reply is late or lost. A mishap.
    TimeOut(RequestId),
    /// A waiter polls.
    Poll(RequestId),
    /// A waiter's time is over.
    Deadline(RequestId),
    /// A client goes away. A mishap.
    Leave(RequestId),
    /// The recovery function returns.
    Recover(RequestId, Recovery),
    /// The handler has its effect.
    Effect(RequestId),
    /// The handler returns an outcome.
    Respond(RequestId),
    /// The handler returns a 503 after its effect.
    RespondError(RequestId),
    /// The handler returns a 429: it did nothing.
    Refuse(RequestId),
    /// The handler panics.
    Panic(RequestId),
    /// An execution that was fenced out reads the record.
    ReadWinner(RequestId),
    /// The keeper renews a lease.
    Renew(RequestId),
    /// A renewal stays on its way. A mishap.
    DelayRenewal(RequestId),
    /// An operation that nobody waits for reaches the store.
    DeliverLate(LateOperation),
    /// A withdrawal gives the token back.
    Withdraw(RequestId),
    /// One tick of time passes.
    Tick,
    /// The store purges the expired record.
    Purge,
    /// A process dies. A mishap.
    Crash(Process),
    /// A process shuts down. A mishap.
    ShutDown(Process),
}
