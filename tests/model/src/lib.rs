//! A model of the contract, small enough that every state of it can be visited.
//!
//! The contract (sections 1, 3, 4, 9 and 10) says what the engine and the store do. This package says the same in code
//! that a model checker can run: a few requests with one key, two processes, one store, messages that are late or
//! lost, processes that die. The checker tries every order in which these things can happen and finds the shortest
//! one that breaks an invariant. The tests show three things:
//!
//! - with all rules every invariant holds, and nobody is stuck (`tests/contract.rs`);
//! - each rule is needed: without it an invariant breaks (`tests/rules.rs`);
//! - a store that breaks the contract is detected (`tests/store_faults.rs`).
//!
//! The README says how to read a trace and how to add a rule.
//!
//! # Map
//!
//! | module | what it has |
//! |---|---|
//! | [`rules`] | the rules of the engine, each a flag; policies; faults of the store |
//! | [`record`] | the record and the store's operations on it |
//! | [`request`] | one request: its stages, its answers, what the engine remembers of it |
//! | [`engine`] | what the engine does; each rule stands where it is applied |
//! | `network`, `process` | the store at work, messages and time; clients and processes that go away |
//! | [`world`], [`action`], `possible` | one state; what can happen; what can happen in this state |
//! | [`invariant`] | what must never be, judged by an observer that sees everything |
//! | [`reach`] | what must stay possible: an answer, an outcome |
//! | [`system`], `sameness`, [`Check`] | the model as the checker sees it; which states count as one; the exploration |
//! | [`story`] | a trace in plain English |
//!
//! # What is modelled
//!
//! - One key. A token is the number of the request that made it; an outcome is named after the execution that made it.
//! - A request arrives at process A or B, at any time. An operation that it sends reaches the store at any later time,
//!   and its reply is received at any time after that. A time-out leaves the operation on its way, or loses its reply.
//!   A lost message is one that never arrives.
//! - An acquire arrives within `transit` ticks, or never; stores guarantee that, and that it is less than the ttl.
//!   Other operations may arrive at any time.
//! - Time passes in ticks. The record remembers the ticks that are left, so that time needs no end; two lives of the
//!   record are explored, one after the other.
//! - Each time-out, each late renewal, crash, leaving client and shutdown is a mishap. A test says how many there are.
//! - A process that dies forgets everything, its withdrawals too. What it leaves behind is excused from "no key stays
//!   blocked": with `refuse` it is `outcome_unknown` until the record expires.
//! - A handler returns an outcome, or a 429 before it did anything, or panics. A recovery function finds out the truth
//!   as of now, or does not know.
//! - The keeper of leases is its successes. Where it does not come in time, a lease lapses.
//!
//! # What is not
//!
//! - Contents: responses, streams, tombstones, limits, secrets. Scopes and more than one key.
//! - A network that copies messages by itself: a copy here comes from a repetition, which the engine knows of.
//! - Stores that forget what they acknowledged, and clocks of a store that jump.
//! - Transactions (section 13), shutdown deadlines (L3), the number of waiters and executions (I15).
//! - I11, only the store's clock decides: there is no other clock here. I14: responses have no headers here.

pub mod action;
mod check;
pub mod engine;
pub mod invariant;
mod network;
mod possible;
mod process;
pub mod reach;
pub mod record;
pub mod request;
pub mod rules;
mod sameness;
pub mod story;
pub mod system;
pub mod world;

pub use check::Check;
pub use invariant::Invariant;
pub use rules::{Policy, Rules, StoreFault};
