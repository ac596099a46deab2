//! The axum adapter: what `#[idempotent]` expands to, and the engine's types as extractors and response parts.
//!
//! An annotated handler is a plain function whose last argument, a [`FromRouter`](call::FromRouter), is an extractor that extracts
//! nothing: it takes the whole request and remembers how to extract the user's arguments for the router's
//! state, which from there on nobody names. One call of [`run_handler`](run::run_handler) then
//!
//! 1. runs the handler at once, as if the attribute were absent, if the engine does not cover the request, or
//!    if an [`Execution`](crate::Execution) around it already does (a layer outside of the attribute);
//! 2. else hands the engine the request, its route and the erased step "extract, then call the handler".
//!
//! The state is cloned for each call, as axum itself does for each request: an execution may outlive the
//! connection, and the router.
//!
//! Generic code is kept to the two futures that cannot do without the handler's types. All else, the engine
//! first, is compiled once.

mod arguments;
mod call;
mod checks;
mod extract;
mod extraction;
mod hints;
mod invoke;
pub mod private;
mod run;
#[cfg(feature = "typed-routing")]
mod typed;

pub use extract::ExecutionRejection;
