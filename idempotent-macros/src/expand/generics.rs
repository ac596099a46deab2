//! The generics of the handler that axum sees: the user's, with `'static` in the place of lifetimes.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote_spanned};
use syn::{GenericParam, Generics, TypeParamBound, WherePredicate, parse_quote};

use crate::tokens::mentions;

/// The user's generics without lifetimes, and with `Send + 'static` on each type parameter, because an execution may
/// outlive the connection. The bounds go where the parameter's other bounds are: clippy objects to two places.
pub(super) fn outliving(generics: &Generics) -> Generics {
    let mut generics = generics.clone();
    generics.params = generics
        .params
        .into_iter()
        .filter(|param| !matches!(param, GenericParam::Lifetime(_)))
        .collect();
    if let Some(clause) = &mut generics.where_clause {
        clause.predicates = std::mem::take(&mut clause.predicates)
            .into_iter()
            .filter(|predicate| !matches!(predicate, WherePredicate::Lifetime(_)))
            .collect();
    }
    let clause = generics.where_clause.to_token_stream();
    let mut more: Vec<WherePredicate> = Vec::new();
    for param in generics.type_params_mut() {
        let ident = &param.ident;
        if mentions(clause.clone(), &ident.to_string()).is_some() {
            more.push(parse_quote!(#ident: ::core::marker::Send + 'static));
        } else {
            param.bounds.extend::<[TypeParamBound; 2]>([
                parse_quote!(::core::marker::Send),
                parse_quote!('static),
            ]);
        }
    }
    if !more.is_empty() {
        generics.make_where_clause().predicates.extend(more);
    }
    generics
}

/// The same type with `'static` for the handler's own lifetimes: what may outlive the connection cannot borrow.
pub(super) fn owned(tokens: TokenStream, generics: &Generics) -> TokenStream {
    let own = |name: &Ident| {
        *name == "_"
            || generics
                .lifetimes()
                .any(|param| param.lifetime.ident == *name)
    };
    let mut tick = false;
    tokens
        .into_iter()
        .map(|token| {
            let after_tick = std::mem::replace(
                &mut tick,
                matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '\''),
            );
            match token {
                TokenTree::Ident(name) if after_tick && own(&name) => {
                    Ident::new("static", name.span()).into()
                }
                TokenTree::Group(group) => {
                    let mut inside = Group::new(group.delimiter(), owned(group.stream(), generics));
                    inside.set_span(group.span());
                    inside.into()
                }
                token => token,
            }
        })
        .collect()
}

/// `::<T, N>`, without lifetimes: a late bound one cannot be named, and none needs to be.
pub(super) fn turbofish<'a>(
    params: impl Iterator<Item = &'a GenericParam>,
    here: Span,
) -> Option<TokenStream> {
    let names: Vec<_> = params
        .filter_map(|param| match param {
            GenericParam::Type(param) => Some(&param.ident),
            GenericParam::Const(param) => Some(&param.ident),
            GenericParam::Lifetime(_) => None,
        })
        .collect();
    (!names.is_empty()).then(|| quote_spanned!(here=> ::<#(#names),*>))
}
