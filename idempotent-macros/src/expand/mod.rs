//! Generates the code. No other folder uses `quote!`.
//!
//! ```text
//! pub fn create_payment(_: Placeholder<State<App>>, call: FromRouter<(State<App>, Json<NewPayment>)>) -> HandlerFuture {
//!     async fn create_payment(State(app): State<App>, Json(p): Json<NewPayment>) -> Out { …untouched… }
//!     run_handler(call, &Policy::new().ttl(…), |a| respond(create_payment, a, into_response))
//! }
//! ```
//!
//! 1. The handler stays a plain `fn` with its generics and its number of arguments, so that turbofish, routing
//!    and other attributes treat it as before. Each argument becomes a placeholder, the last one the whole
//!    request; the arguments are extracted when the engine decides to execute. A handler without arguments gets one,
//!    for the request. (`outer`, `generics`)
//! 2. The user's function stands inside, once and unchanged, or beside the handler where `inner` names it. If it calls
//!    itself by its name, it calls itself, not the handler. (`inner`, `attrs`)
//! 3. The handler is one call of the runtime. The policy in it is a constant expression, not an item: the user's body
//!    sees no name that it did not write. (`run`, `policy`, `private`)
//! 4. Generated tokens resolve at [`mixed_site`](proc_macro2::Span::mixed_site). Where a type error should point at the
//!    user's code they are *located* there, which keeps their resolution: a handler may come out of a `macro_rules!`.
//!    (`spans`)
//! 5. The `fn` token, the name and the braces are the user's: otherwise rustc takes the function for generated code
//!    and drops its `dead_code` lint. For the same reason no `allow` is put on it.
//! 6. Under `cfg(doc)` the handler has the signature that the user wrote, if it is visible or documented.
//! 7. After a mistake there is still a function of that name that fits every route, with the body in its place: the
//!    compiler reports the mistake alone, and an editor goes on helping inside the body. (`fallback`)

mod attrs;
mod expansion;
mod fallback;
mod generics;
mod inner;
mod outer;
mod policy;
mod private;
mod run;
mod spans;

use proc_macro2::TokenStream;
use quote::quote;
use syn::Visibility;

use crate::{handler::Handler, options::Options};
use attrs::handler_attrs;
use expansion::{Expansion, Place};
pub(crate) use fallback::unreadable;
use inner::beside;
use outer::{outer, parameters};
use private::Private;
use run::run;

/// The handler and the user's function, or the fallback if the signature is not `sound`.
pub(crate) fn handler(handler: Handler, options: &Options, sound: bool) -> TokenStream {
    if !sound && handler.is_method() {
        return fallback::method(&handler);
    }
    let expand = if sound { annotated } else { fallback::refused };
    let place = Place::of(&handler, options);
    let variants = handler.variants().into_iter();
    variants
        .map(|(cfgs, handler)| {
            expand(&Expansion {
                handler,
                cfgs,
                options,
                place: &place,
            })
        })
        .collect()
}

/// The handler as axum sees it, and the user's function.
fn annotated(expansion: &Expansion<'_>) -> TokenStream {
    let Expansion {
        handler,
        cfgs,
        options,
        ..
    } = expansion;
    let private = Private::of(options);
    let outer_attrs = handler_attrs(expansion);
    let outer = outer(
        expansion,
        &private,
        &parameters(expansion, &private),
        &private.within(|private| run(expansion, private)),
    );
    let beside = beside(expansion);
    let Handler { vis, sig, .. } = handler;
    // A second signature adds a tenth to what the compiler checks, and a private function is not documented.
    let shown = !matches!(vis, Visibility::Inherited)
        || handler.attrs.iter().any(|attr| attr.path().is_ident("doc"));
    let attrs = quote!(#(#outer_attrs)* #(#cfgs)*);
    if !shown {
        return quote!(#attrs #outer #beside);
    }
    quote! {
        #attrs #[cfg(doc)]
        #vis #sig { ::core::unreachable!() }
        #attrs #[cfg(not(doc))]
        #outer
        #beside
    }
}
