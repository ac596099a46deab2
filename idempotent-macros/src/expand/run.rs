//! The call of the runtime in the handler.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Signature, Type};

use super::{
    expansion::Expansion,
    generics::{owned, turbofish},
    policy::policy,
    spans::{at, ends, located},
};
use crate::{
    handler::{Handler, Output},
    options::Given,
};

/// `run_handler(…)`
pub(super) fn run(expansion: &Expansion<'_>, private: &TokenStream) -> TokenStream {
    let Expansion { handler, place, .. } = expansion;
    let Signature {
        ident, generics, ..
    } = &handler.sig;
    let here = at(ident.span());
    let call = call(expansion, private);
    let policy = policy(expansion, private);
    let path = place.path(handler);
    let arguments = Ident::new("__arguments", Span::mixed_site());
    let turbofish = turbofish(generics.params.iter(), here);
    let converter = converter(handler, private);
    quote! {
        #private::run_handler(
            #call,
            const { &#policy },
            |#arguments| #private::respond(#path #turbofish, #arguments, #converter),
        )
    }
}

/// The request and how to extract the arguments from it. With `state`, each argument and the engine are checked at
/// their own places.
fn call(expansion: &Expansion<'_>, private: &TokenStream) -> TokenStream {
    let Expansion {
        handler, options, ..
    } = expansion;
    let call = expansion.request_name();
    let generics = &handler.sig.generics;
    let caller = options.caller.as_ref().map(|given| &given.value);
    let Some(state) = expansion.state() else {
        let Some(ty) = caller else {
            return call.to_token_stream();
        };
        let start = ends(ty).0;
        let private = located(private.clone(), start);
        let ty = owned(ty.to_token_stream(), generics);
        return quote_spanned!(start=> #private::caller::<#ty, _>(#call));
    };
    let checked = |ty: &Type, check: &str| {
        let (start, end) = ends(ty);
        let private = located(private.clone(), start);
        let check = Ident::new(check, start);
        (quote_spanned!(start=> #private::#check), end)
    };
    let engine = options.engine.as_ref().map(|Given { value: ty, .. }| {
        let (engine, end) = checked(ty, "engine");
        quote_spanned!(end=> .engine(#engine::<#state, #ty>))
    });
    let caller = caller.map(|ty| {
        let (caller, end) = checked(ty, "caller_in");
        let ty = owned(ty.to_token_stream(), generics);
        quote_spanned!(end=> .caller(#caller::<#state, #ty, _>()))
    });
    let recovery = expansion.recovery().map(|path| {
        let (start, end) = ends(path);
        let private = located(private.clone(), start);
        let ask = quote_spanned!(start=> |crash, state| #private::recovery_in(state, #path, crash));
        quote_spanned!(end=> .recovering(#ask))
    });
    let arguments: Vec<_> = handler.arguments().collect();
    let of_last = arguments.len().saturating_sub(1);
    let arguments = arguments.into_iter().enumerate().map(|(index, ty)| {
        let (check, end) = checked(ty, if index == of_last { "last" } else { "part" });
        let parens = quote_spanned!(end=> ());
        let ty = owned(ty.to_token_stream(), generics);
        quote_spanned!(end=> #check::<#state, #ty, _>#parens)
    });
    quote!(#call #engine #caller #recovery.extracting((#(#arguments,)*)))
}

/// The function that makes the response, located at the return type: a type that is not a response is one error there.
fn converter(handler: &Handler, private: &TokenStream) -> TokenStream {
    let (start, end) = match handler.output() {
        Some(Output::Never(ty)) => {
            let (start, _) = ends(ty);
            return quote_spanned!(start=> |never| never);
        }
        Some(Output::Type(ty)) => ends(ty),
        Some(Output::Nothing) | None => {
            (at(handler.sig.ident.span()), at(handler.sig.ident.span()))
        }
    };
    let private = located(private.clone(), start);
    let converter = Ident::new("into_response", end);
    quote_spanned!(start=> #private::#converter)
}
