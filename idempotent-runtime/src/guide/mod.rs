//! Longer reading: how clients should retry, what they are answered, who they are, and running a service in production.

#[doc = include_str!("clients.md")]
pub mod clients {}

#[doc = include_str!("answers.md")]
pub mod answers {}

#[doc = include_str!("callers.md")]
pub mod callers {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("layers.md")]
pub mod layers {}

#[doc = include_str!("money.md")]
pub mod money {}

#[doc = include_str!("unknown.md")]
pub mod unknown {}
