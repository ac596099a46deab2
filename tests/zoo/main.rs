//! Every kind of handler that axum accepts, annotated, compiled, and called over HTTP.
//!
//! Each module is about one part of a handler. With [`support::exercise`], each test checks that the attribute changes
//! nothing without a key, and replays with one.

mod arguments;
mod crates;
mod names;
mod options;
mod other_attributes;
mod places;
mod returns;
mod routing;
mod shapes;
mod streams;
mod support;
