//! One request, from its arrival to its answer.

use crate::record::{Reply, TakeOver, Token};

/// The requests of the model are numbered in the order of their arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u8);

/// A server process. Its requests share its memory, and are gone with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Process {
    /// The first.
    A,
    /// The second.
    B,
}

impl Process {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What a request asks for: its fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Payload {
    /// What nearly all ask for.
    Usual,
    /// Something else under the same key.
    Other,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// It does not exist yet.
    NotArrived,
    /// It asks the store for the key; as a waiter that polls, or as one that has just arrived.
    Acquiring {
        /// Whether it polls.
        polling: bool,
    },
    /// It waits for the outcome of another execution.
    Waiting,
    /// It took over and asks the recovery function.
    Recovering,
    /// Its handler runs.
    Executing,
    /// It stores its outcome.
    Completing,
    /// Its client was told `outcome_unknown`; it goes on storing its outcome.
    StoringLate,
    /// Its `complete` was fenced: it reads the winner's outcome.
    ReadingWinner,
    /// It gives the key back, then says this.
    Releasing(Answer),
    /// It ends its lease, then says this.
    Abandoning(Answer),
    /// It has its answer. A withdrawal may go on behind it.
    Ended,
}

/// The operation that a request is waiting for. Which one it is follows from its stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// None.
    Idle,
    /// On its way to the store.
    Sent,
    /// Only with [`CheckThenAct`](crate::StoreFault::CheckThenAct): the store looked, and will write.
    Checked,
    /// Executed; the reply is on its way back.
    Replied(Reply),
}

/// What a client hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// The stored outcome of this execution: its own or a replay.
    Outcome(Token),
    /// 409 `outcome_unknown`.
    OutcomeUnknown,
    /// 409 `conflict`.
    Conflict,
    /// 409 `mismatch`.
    Mismatch,
    /// 503: the store or the engine cannot serve it. Nothing was executed.
    Unavailable,
    /// The handler's own 429: it refused before it did anything.
    Refusal,
    /// The 500 of a handler that panicked, with `on_crash = "retry"`.
    Panicked,
    /// Nobody listens: the client left.
    ClientLeft,
    /// Nobody listens: the process died.
    ConnectionLost,
}

/// What the handler did under this token: what an observer knows who sees everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Execution {
    /// It never started.
    None,
    /// It started, and may have had its effect.
    Started,
    /// It had its effect.
    Effect,
    /// It ended and did nothing.
    NothingDone,
    /// The same, and its key was released.
    Released,
    /// It never started: the recovery function found the effect of an earlier one.
    Recovered,
}

/// One request and the engine's memory of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::struct_excessive_bools)] // Facts that change independently of each other.
pub struct Request {
    /// Where it is.
    pub stage: Stage,
    /// Which process serves it.
    pub process: Process,
    /// What it asks for.
    pub payload: Payload,
    /// The operation it waits for.
    pub call: Call,
    /// What its client heard.
    pub answer: Option<Answer>,
    /// Its operation was repeated once already: the retry budget is spent.
    pub repeated: bool,
    /// An acquire was sent and not answered.
    pub in_doubt: bool,
    /// The engine goes on giving the token back.
    pub withdrawing: bool,
    /// Its process died before it was through.
    pub lost: bool,
    /// Which lease its acquires may take over.
    pub take_over: TakeOver,
    /// A take-over was asked for under its token.
    pub asked_take_over: bool,
    /// Ticks since the acquire was sent that it waits for, or since the renewal, while it recovers.
    pub sent_ago: u8,
    /// The attempt of its lease.
    pub attempt: u8,
    /// The life of the record in which its lease was granted.
    pub leased_in: u8,
    /// The life of the record in which its handler started.
    pub started_in: u8,
    /// What its handler did.
    pub execution: Execution,
}

impl Request {
    /// A request that has not arrived.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self {
            stage: Stage::NotArrived,
            process: Process::A,
            payload: Payload::Usual,
            call: Call::Idle,
            answer: None,
            repeated: false,
            in_doubt: false,
            withdrawing: false,
            lost: false,
            take_over: TakeOver::No,
            asked_take_over: false,
            sent_ago: 0,
            attempt: 0,
            leased_in: 0,
            started_in: 0,
            execution: Execution::None,
        }
    }

    /// Goes to a stage that waits for the store.
    pub fn call_at(&mut self, stage: Stage) {
        self.stage = stage;
        self.call = Call::Sent;
        self.repeated = false;
        self.sent_ago = 0;
    }

    /// Sends its operation again. That is done once.
    pub fn send_again(&mut self) {
        self.call = Call::Sent;
        self.repeated = true;
    }

    /// Goes to a stage that does not wait for the store.
    pub fn rest_at(&mut self, stage: Stage) {
        self.stage = stage;
        self.call = Call::Idle;
        self.repeated = false;
        self.sent_ago = 0;
        self.take_over = TakeOver::No;
    }

    /// Whether it has arrived.
    #[must_use]
    pub fn arrived(&self) -> bool {
        self.stage != Stage::NotArrived
    }

    /// Whether it has arrived and is not through.
    #[must_use]
    pub fn active(&self) -> bool {
        self.arrived() && self.stage != Stage::Ended
    }

    /// Whether its process executes the key on its behalf, or has its outcome to store.
    #[must_use]
    pub fn executes(&self) -> bool {
        matches!(
            self.stage,
            Stage::Recovering | Stage::Executing | Stage::Completing | Stage::StoringLate
        )
    }

    /// Whether its process is still responsible for what becomes of its token.
    #[must_use]
    pub fn responsible(&self) -> bool {
        self.active() || self.withdrawing
    }
}
