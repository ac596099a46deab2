//! The state that is explored: the record, the requests, and what is on its way between them.

use std::ops::{Index, IndexMut};

use crate::{
    invariant::Invariant,
    record::{Operation, Record},
    request::{Process, Request, RequestId},
};

/// How many requests the model has at most.
pub const REQUESTS: u8 = 3;

/// One state of everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// What the store holds.
    pub record: Option<Record>,
    /// The requests, and the engines' memory of them.
    pub requests: [Request; REQUESTS as usize],
    /// Operations that nobody waits for any more, and that may still arrive; sorted.
    pub late: Vec<LateOperation>,
    /// Which life of the record this is: it ends when the record expired and was purged or replaced.
    pub life: u8,
    /// Requests that may still arrive at each process.
    pub to_come: [u8; 2],
    /// Processes that admit nothing more.
    pub shutting_down: [bool; 2],
    /// What may still go wrong.
    pub left: Mishaps,
    /// The first invariant that broke.
    pub broken: Option<Invariant>,
}

/// An operation whose caller gave up on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LateOperation {
    /// Under whose token it was sent.
    pub sender: RequestId,
    /// What it asks for.
    pub operation: Operation,
    /// Ticks in which it may still arrive; acquires only. A late write may arrive at any time.
    pub ticks: u8,
}

/// How many mishaps a run may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mishaps {
    /// Operations or replies that are lost or late.
    pub faults: u8,
    /// Processes that die.
    pub crashes: u8,
    /// Clients that leave.
    pub departures: u8,
    /// Processes that shut down.
    pub shutdowns: u8,
}

impl World {
    /// Before anything happened.
    #[must_use]
    pub const fn new(to_come: [u8; 2], left: Mishaps) -> Self {
        Self {
            record: None,
            requests: [Request::new(); REQUESTS as usize],
            late: Vec::new(),
            life: 0,
            to_come,
            shutting_down: [false; 2],
            left,
            broken: None,
        }
    }

    /// All requests with their numbers.
    pub fn all(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        (0..).map(RequestId).zip(&self.requests)
    }

    /// The numbers of all requests.
    pub fn ids() -> impl Iterator<Item = RequestId> {
        (0..REQUESTS).map(RequestId)
    }

    /// The other requests of the same process that have arrived.
    pub fn neighbours(&self, id: RequestId) -> impl Iterator<Item = (RequestId, &Request)> {
        let process = self[id].process;
        self.all().filter(move |(other, request)| {
            *other != id && request.process == process && request.arrived()
        })
    }

    /// Those of them that ask for the same.
    pub fn same_key_beside(&self, id: RequestId) -> impl Iterator<Item = (RequestId, &Request)> {
        let payload = self[id].payload;
        self.neighbours(id)
            .filter(move |(_, request)| request.payload == payload)
    }

    /// The request that will arrive next.
    #[must_use]
    pub fn next_arrival(&self) -> Option<RequestId> {
        self.all()
            .find(|(_, request)| !request.arrived())
            .map(|(id, _)| id)
    }

    /// Whether the process admits nothing more.
    #[must_use]
    pub fn is_shutting_down(&self, process: Process) -> bool {
        self.shutting_down[process as usize]
    }

    /// Whether the record is in flight under this token.
    #[must_use]
    pub fn in_flight_under(&self, id: RequestId) -> Option<&Record> {
        self.record
            .as_ref()
            .filter(|record| record.in_flight() && record.token == id)
    }

    /// Leaves an operation on its way that nobody waits for.
    pub fn send_late(&mut self, sender: RequestId, operation: Operation, ticks: u8) {
        self.late.push(LateOperation {
            sender,
            operation,
            ticks,
        });
        self.late.sort_unstable();
    }

    /// Notes the first invariant that breaks.
    pub fn breaks(&mut self, invariant: Invariant) {
        self.broken.get_or_insert(invariant);
    }
}

impl Index<RequestId> for World {
    type Output = Request;

    fn index(&self, id: RequestId) -> &Request {
        &self.requests[usize::from(id.0)]
    }
}

impl IndexMut<RequestId> for World {
    fn index_mut(&mut self, id: RequestId) -> &mut Request {
        &mut self.requests[usize::from(id.0)]
    }
}
