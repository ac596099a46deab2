//! The handler that axum sees: its signature around whatever runs.

use proc_macro2::{Group, Ident, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Signature, Visibility};

use super::{
    expansion::{Expansion, Place},
    generics::{outliving, owned},
    inner::inner,
    private::Private,
    spans::ends,
};
use crate::handler::Handler;

/// `fn name(…) -> HandlerFuture { … }`
pub(super) fn outer(
    expansion: &Expansion<'_>,
    private: &Private<'_>,
    parameters: &TokenStream,
    run: &TokenStream,
) -> TokenStream {
    let Expansion { handler, place, .. } = expansion;
    let Handler { vis, sig, body, .. } = handler;
    let Signature {
        fn_token,
        ident,
        generics,
        ..
    } = sig;
    let inside = match place {
        Place::Inside => inner(handler, &Visibility::Inherited, ident),
        Place::Beside(_) | Place::Associated(_) => TokenStream::new(),
    };
    let mut parens = TokenStream::new();
    sig.paren_token
        .surround(&mut parens, |tokens| tokens.extend(parameters.clone()));
    let mut block = Group::new(body.delimiter(), quote!(#inside #run));
    block.set_span(body.span());
    let outer = outliving(generics);
    let clause = owned(outer.where_clause.to_token_stream(), generics);
    let generics = owned(outer.to_token_stream(), generics);
    let future = private.future();
    quote!(#vis #fn_token #ident #generics #parens -> #future #clause #block)
}

/// `_: Placeholder<A>, call: FromRouter<(A, B)>`
pub(super) fn parameters(expansion: &Expansion<'_>, private: &Private<'_>) -> TokenStream {
    let Handler { sig, .. } = &expansion.handler;
    let arguments: Vec<_> = expansion
        .handler
        .arguments()
        .map(|ty| owned(ty.to_token_stream(), &sig.generics))
        .collect();
    let (last, others) = match arguments.split_last() {
        Some((last, others)) => (last.clone(), others),
        None => (TokenStream::new(), [].as_slice()),
    };
    let placeholders = others.iter().map(|ty| {
        let start = ends(ty).0;
        let placeholder = parameter(ty, "Placeholder", ty, private);
        quote_spanned!(start=> _ #placeholder)
    });
    let request = request(expansion, &arguments, &last, private);
    let mut call = expansion.request_name();
    call.set_span(ends(&last).0);
    quote!(#(#placeholders,)* #call #request)
}

/// `: FromRouter<(A, B)>`
fn request(
    expansion: &Expansion<'_>,
    arguments: &[TokenStream],
    last: &TokenStream,
    private: &Private<'_>,
) -> TokenStream {
    let values = if arguments.is_empty() {
        private.ty(&quote!(UseInnerToCallDirectlyOrPutDebugHandlerBelow))
    } else {
        quote!((#(#arguments,)*))
    };
    if let Some(state) = expansion.state() {
        let inside = quote!(#state, #values);
        return parameter(last, "OnlyInARouterWithState", &inside, private);
    }
    let options = expansion.options;
    let generics = &expansion.handler.sig.generics;
    let engine = options
        .engine
        .as_ref()
        .map(|given| given.value.to_token_stream());
    let caller = options.caller.as_ref().map(|given| {
        let ty = owned(given.value.to_token_stream(), generics);
        private.ty(&quote!(CallerIs<#ty>))
    });
    let hint = || {
        private.ty(&quote!(
            AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly
        ))
    };
    let inside = match (engine, caller) {
        (None, None) if arguments.is_empty() => values,
        (engine, caller) => {
            let engine = engine.unwrap_or_else(hint);
            let caller = caller.map(|caller| quote!(, #caller));
            quote!(#values, #engine #caller)
        }
    };
    let name = "FromRouter";
    parameter(last, name, &inside, private)
}

/// `: name<inside>`, located at the argument that it stands for: a type that does not fit, as in the method of a
/// trait, is reported there.
fn parameter(
    argument: &TokenStream,
    name: &str,
    inside: &TokenStream,
    private: &Private<'_>,
) -> TokenStream {
    let (start, end) = ends(argument);
    let name = Ident::new(name, start);
    let end = quote_spanned!(end=> >);
    let ty = private.ty(&quote_spanned!(start=> #name<#inside #end));
    quote_spanned!(start=> : #ty)
}
