//! Every kind of handler that axum accepts, annotated, compiled, and called over HTTP.
//!
//! The modules are about one part of a handler each. What each test says with [`support::exercise`] is that
//! the attribute changes nothing without a key, and replays with one.

mod arguments;
mod companions;
mod crates;
mod names;
mod options;
mod places;
mod returns;
mod routing;
mod shapes;
mod streams;
mod support;
