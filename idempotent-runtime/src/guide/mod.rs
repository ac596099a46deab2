//! Guides: how clients retry, which answers they get, how callers are told apart, which effects leave the database, what a
//! crash leads to, how a service runs in production and in several regions, how its secret is rotated, and how this library
//! compares with others and replaces them.

#[doc = include_str!("clients.md")]
pub mod clients {}

#[doc = include_str!("answers.md")]
pub mod answers {}

#[doc = include_str!("callers.md")]
pub mod callers {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("metrics.md")]
pub mod metrics {}

#[doc = include_str!("layers.md")]
pub mod layers {}

#[doc = include_str!("grpc.md")]
#[expect(
    clippy::doc_markdown,
    reason = "gRPC's statuses are not code of this crate"
)]
pub mod grpc {}

#[doc = include_str!("money.md")]
pub mod money {}

#[doc = include_str!("effects.md")]
pub mod effects {}

#[doc = include_str!("crashes.md")]
pub mod crashes {}

#[doc = include_str!("unknown.md")]
pub mod unknown {}

#[doc = include_str!("secrets.md")]
pub mod secrets {}

#[doc = include_str!("regions.md")]
#[expect(clippy::doc_markdown, reason = "names of products are not code")]
pub mod regions {}

#[doc = include_str!("comparison.md")]
#[expect(clippy::doc_markdown, reason = "names of products are not code")]
pub mod comparison {}

#[doc = include_str!("coming_from.md")]
#[expect(clippy::doc_markdown, reason = "names of products are not code")]
pub mod coming_from {}
