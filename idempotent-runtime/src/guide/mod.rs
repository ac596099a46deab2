//! Longer reading: what happens when, how clients should retry, running it in production.

#[doc = include_str!("clients.md")]
pub mod clients {}

#[doc = include_str!("answers.md")]
pub mod answers {}

#[doc = include_str!("operations.md")]
pub mod operations {}
