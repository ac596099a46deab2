//! Messages that are committed with a record, and the relays that deliver them.
//!
//! - `messages`: what is enqueued, and what is delivered of it.
//! - `failures`: receivers that fail: order, pauses, dead letters.
//! - `relays`: many relays, and relays that are killed, stopped or cut off from their server.
//! - `shop` is what these tests are written with.

mod failures;
mod messages;
mod relays;
mod shop;
