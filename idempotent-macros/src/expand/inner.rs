//! The user's function, inside or beside the handler.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::{Signature, Visibility};

use super::{
    attrs::{beside_attrs, is_outer},
    expansion::{Expansion, Place},
    spans::at,
};
use crate::{check, handler::Handler};

/// The user's function, beside the handler.
pub(super) fn beside(expansion: &Expansion<'_>) -> Option<TokenStream> {
    let Expansion {
        handler,
        cfgs,
        place,
        ..
    } = expansion;
    let (Place::Beside(name) | Place::Associated(name)) = place else {
        return None;
    };
    let attrs = beside_attrs(expansion);
    // `missing_docs` is reported at the handler, not a second time here.
    let documented = handler.attrs.iter().any(|attr| attr.path().is_ident("doc"));
    let doc =
        (!documented).then(|| quote!(#[doc = "The plain function of an `#[idempotent]` handler."]));
    let mut plain = handler.clone();
    plain.sig.fn_token.span = at(plain.sig.fn_token.span);
    plain.body.set_span(at(plain.body.span()));
    let inner = inner(&plain, &handler.vis, name);
    Some(quote!(#(#attrs)* #(#cfgs)* #doc #inner))
}

/// The user's function.
pub(super) fn inner(handler: &Handler, vis: &Visibility, name: &Ident) -> TokenStream {
    let Handler {
        attrs, sig, body, ..
    } = handler;
    let attrs = attrs
        .iter()
        .filter(|attr| !is_outer(attr) && check::misplaced(attr).is_none());
    // `const` is left out: it is reported already, and rustc would report `const async` too.
    let Signature {
        asyncness,
        safety,
        abi,
        fn_token,
        generics,
        inputs,
        variadic,
        output,
        ..
    } = sig;
    let clause = &generics.where_clause;
    let mut parens = TokenStream::new();
    sig.paren_token.surround(&mut parens, |tokens| {
        quote!(#inputs #variadic).to_tokens(tokens);
    });
    quote!(#(#attrs)* #vis #asyncness #safety #abi #fn_token #name #generics #parens #output #clause #body)
}
