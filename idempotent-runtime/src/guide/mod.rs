//! Guides: how clients retry, which answers they get, how callers are told apart, how a service runs in production, and how
//! its secret is rotated.

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

#[doc = include_str!("secrets.md")]
pub mod secrets {}
