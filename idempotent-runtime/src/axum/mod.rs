//! The axum adapter: what `#[idempotent]` expands to, and the engine's types as extractors and response parts.
//!
//! An annotated handler is a plain function whose last argument, a [`FromRouter`](call::FromRouter), takes the whole
//! request and remembers how to extract the user's arguments with the router's state. From there on the type of the
//! state is erased. One call of [`run_handler`](run::run_handler) then
//!
//! 1. runs the handler at once, as if the attribute were absent, if the engine does not cover the request, or
//!    if it already runs in an [`Execution`](crate::Execution), of a layer around the attribute;
//! 2. otherwise hands the engine the request, its route and the erased step "extract, then call the handler".
//!
//! The state is cloned for each call, as axum itself does for each request: an execution may outlive the
//! connection, and the router.
//!
//! Only the two futures that need the handler's types are generic code. Everything else, the engine above all, is
//! compiled once.
//!
//! ```text
//! private      what generated code names
//! call         the arguments of an annotated handler, as axum sees them
//! caller       who calls, found by an extractor
//! extraction   the erased step: extract the arguments, then call the handler
//! spare        places for such steps, used again
//! arguments    arguments that are extracted one by one, with the option `state`
//! invoke       a function called with a tuple of arguments
//! recovery     recovery functions and what they extract
//! routing      what axum's router says about a request
//! run          the handler under its policy, up to its response
//! checks       what generated code calls so that a type is checked at the user's token
//! hints        what the compiler then shows
//! extract      the engine's types as extractors and response parts
//! transaction  the handler's transaction, likewise
//! deferred     when it begins
//! typed        typed paths of axum-extra
//! ```

mod arguments;
mod call;
mod caller;
mod caller_step;
mod checks;
mod deferred;
mod extract;
mod extraction;
mod hints;
mod invoke;
pub(crate) mod private;
mod recovery;
mod recovery_step;
mod routing;
mod run;
mod spare;
#[cfg(feature = "sql")]
mod transaction;
#[cfg(feature = "typed-routing")]
mod typed;

pub use caller::extractor;
pub use extract::ExecutionRejection;
pub(crate) use extract::unstyled;
pub(crate) use routing::ROUTING;
#[cfg(feature = "sql")]
pub use transaction::TransactionRejection;
