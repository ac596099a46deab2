//! Which states are one: the same but for names, and but for what no longer matters.
//!
//! The checker explores one state of each kind. This is what keeps the exploration small, and it hides nothing:
//! whatever can follow from one of two such states can follow from the other, under other names.

use std::hash::{Hash, Hasher};

use crate::{
    record::{Operation, Record, Reply, TakeOver},
    request::{Answer, Call, Execution, Process, Request, RequestId, Stage},
    world::{LateOperation, Mishaps, REQUESTS, World},
};

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut least = self.least(false);
        // The two processes may change places, where as many requests come to the one as to the other.
        let at = |process| {
            self.requests
                .iter()
                .filter(|one| one.arrived() && one.process == process)
                .count()
        };
        let comes_to = |process: Process| at(process) + usize::from(self.to_come[process as usize]);
        if comes_to(Process::A) == comes_to(Process::B) {
            least = least.min(self.least(true));
        }
        least.hash(state);
    }
}

impl World {
    /// The least of the states that differ from this one in the numbers of requests of one process.
    fn least(&self, mirrored: bool) -> Likeness {
        let numbers = self.numbers_by_process(mirrored);
        let mut least = Likeness::of(self, numbers, mirrored);
        for (first, second) in [(0, 1), (1, 2)] {
            let [a, b] = [numbers[first], numbers[second]].map(RequestId);
            if self[b].arrived() && self[a].process == self[b].process {
                let mut swapped = numbers;
                swapped.swap(first, second);
                least = least.min(Likeness::of(self, swapped, mirrored));
            }
        }
        least
    }

    /// The numbers of the requests: those of the first process first, those that have not arrived last.
    fn numbers_by_process(&self, mirrored: bool) -> [u8; REQUESTS as usize] {
        let mut numbers: [u8; REQUESTS as usize] =
            std::array::from_fn(|at| u8::try_from(at).unwrap_or(REQUESTS));
        numbers.sort_by_key(|number| {
            let request = &self[RequestId(*number)];
            (
                !request.arrived(),
                (request.process == Process::B) != mirrored,
            )
        });
        numbers
    }
}

/// A state under other numbers, without what no longer matters.
#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Likeness {
    requests: [Request; REQUESTS as usize],
    record: Option<Record>,
    late: Vec<LateOperation>,
    life: u8,
    to_come: [u8; 2],
    shutting_down: [bool; 2],
    left: Mishaps,
    broken: bool,
}

impl Likeness {
    /// `order` lists the old numbers in their new order.
    fn of(world: &World, order: [u8; REQUESTS as usize], mirrored: bool) -> Self {
        let rename = |old: RequestId| {
            let new = order.iter().position(|number| *number == old.0);
            RequestId(new.and_then(|new| u8::try_from(new).ok()).unwrap_or(old.0))
        };
        let mut late = world.late.clone();
        for operation in &mut late {
            operation.sender = rename(operation.sender);
            if let Operation::Acquire(TakeOver::Lease(lease)) = &mut operation.operation {
                *lease = rename(*lease);
            }
        }
        late.sort_unstable();
        let [a, b] = [Process::A, Process::B]
            .map(|process| if mirrored { process.other() } else { process } as usize);
        Self {
            requests: order.map(|old| renamed(world[RequestId(old)], mirrored, rename)),
            record: world.record.map(|record| Record {
                token: rename(record.token),
                outcome: record.outcome.map(rename),
                ..record
            }),
            late,
            life: world.life,
            shutting_down: [world.shutting_down[a], world.shutting_down[b]],
            to_come: [world.to_come[a], world.to_come[b]],
            left: world.left,
            broken: world.broken.is_some(),
        }
    }
}

fn renamed(
    mut request: Request,
    mirrored: bool,
    rename: impl Fn(RequestId) -> RequestId,
) -> Request {
    if mirrored && request.arrived() {
        request.process = request.process.other();
    }
    if let Call::Replied(Reply::Unknown(token) | Reply::Completed(token)) = &mut request.call {
        *token = rename(*token);
    }
    if let TakeOver::Lease(lease) = &mut request.take_over {
        *lease = rename(*lease);
    }
    match &mut request.answer {
        Some(Answer::Outcome(outcome)) => *outcome = rename(*outcome),
        // What else a client heard was judged when it heard it.
        Some(answer) => *answer = Answer::Conflict,
        None => {}
    }
    if request.stage == Stage::Ended {
        request.asked_take_over &= request.withdrawing;
        if matches!(request.execution, Execution::None | Execution::Released) {
            (request.attempt, request.leased_in, request.started_in) = (0, 0, 0);
        }
    }
    request
}
