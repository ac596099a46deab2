//! The `#[idempotent]` attribute. Depend on `idempotent-runtime`, which re-exports it.

mod check;
mod duration;
mod errors;
mod expand;
mod handler;
mod options;
mod size;
mod suggest;
mod tokens;
mod types;

use errors::Errors;
use handler::Handler;
use options::Options;

#[doc = include_str!("reference.md")]
#[proc_macro_attribute]
pub fn idempotent(
    options: proc_macro::TokenStream,
    handler: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    annotate(options.into(), handler.into()).into()
}

/// Reads, checks and expands. Every step adds its mistakes to one collection.
fn annotate(
    options: proc_macro2::TokenStream,
    item: proc_macro2::TokenStream,
) -> proc_macro2::TokenStream {
    let mut errors = Errors::default();
    let options = Options::parse(options, &mut errors);
    check::options(&options, &mut errors);
    let mut tokens = match Handler::parse(item.clone()) {
        Ok(handler) => {
            let sound = check::handler(&handler, &options, &mut errors);
            expand::handler(handler, &options, sound)
        }
        Err(error) => expand::unreadable(item, error, &mut errors),
    };
    tokens.extend(errors.into_tokens());
    tokens
}

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
#[path = "expansion_tests.rs"]
mod tests;
