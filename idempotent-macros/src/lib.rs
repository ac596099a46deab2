//! The `#[idempotent]` attribute. Depend on `idempotent-runtime`, which re-exports it.

mod broken;
mod check;
mod duration;
mod errors;
mod expand;
mod handler;
mod options;
mod setting;
mod size;
mod suggest;

use proc_macro::TokenStream;

#[doc = include_str!("reference.md")]
#[proc_macro_attribute]
pub fn idempotent(options: TokenStream, handler: TokenStream) -> TokenStream {
    expand::idempotent(options.into(), handler.into()).into()
}
