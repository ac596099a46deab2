//! What is emitted on errors.
//!
//! 1. An item that cannot be parsed is emitted as it is, with an error. Only where no edition of Rust can parse the
//!    signature there is no error: the compiler has reported it before it called the attribute. Everything else must be
//!    an error, or a handler in a syntax that is new to this crate would silently run without protection.
//! 2. After a mistake in the signature, a function of that name is emitted that fits every route, so that the routes
//!    report nothing. The user's function stands inside or beside it, and its body is checked as usual.
//! 3. A method stays as it is.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::quote;
use syn::Error;

use super::{
    attrs::outer_attrs, expansion::Expansion, inner::beside, outer::outer, private::Private,
};
use crate::{check, errors::Errors, handler::Handler, tokens::split};

/// For an item that is not a function, or one that cannot be parsed.
pub(crate) fn unreadable(item: TokenStream, error: Error, errors: &mut Errors) -> TokenStream {
    if !is_reported(item.clone()) {
        errors.push(error);
    }
    item
}

/// For a method with a mistake in its signature: the method as it is. It can neither stand inside a function nor take
/// other arguments, and no route names it.
pub(super) fn method(handler: &Handler) -> TokenStream {
    let Handler {
        attrs,
        vis,
        sig,
        body,
        ..
    } = handler;
    let attrs = attrs.iter().filter(|attr| check::misplaced(attr).is_none());
    quote!(#(#attrs)* #vis #sig #body)
}

/// For a handler with a mistake in its signature: a function that fits every route.
pub(super) fn refused(expansion: &Expansion<'_>) -> TokenStream {
    let Expansion {
        handler,
        cfgs,
        options,
        ..
    } = expansion;
    let private = Private::of(options);
    let outer_attrs = outer_attrs(handler);
    let call = private.ty(&quote!(FromRouter<()>));
    let call = quote!(_: #call);
    let outer = outer(expansion, &private, &call, &private.never());
    let beside = beside(expansion);
    quote! {
        #(#outer_attrs)* #(#cfgs)*
        #outer
        #beside
    }
}

/// Whether the compiler has reported the signature: the function has no parentheses, an argument without a type, or an
/// arrow without one.
fn is_reported(item: TokenStream) -> bool {
    let mut tokens = item
        .into_iter()
        .skip_while(|token| !matches!(token, TokenTree::Ident(word) if word == "fn"));
    if tokens.next().is_none() {
        return false;
    }
    // These are not the parentheses of a bound, as in `fn handler<F: Fn(u32) -> u32>(f: F)`.
    let (mut nested, mut arrow) = (0_usize, false);
    let Some(arguments) = tokens.find_map(|token| {
        match &token {
            TokenTree::Punct(punct) if punct.as_char() == '<' => nested += 1,
            TokenTree::Punct(punct) if punct.as_char() == '>' && !arrow => {
                nested = nested.saturating_sub(1);
            }
            TokenTree::Group(_) if nested == 0 => return group(token),
            _ => {}
        }
        arrow = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '-');
        None
    }) else {
        return true;
    };
    if arguments.delimiter() != Delimiter::Parenthesis {
        return arguments.delimiter() == Delimiter::Brace;
    }
    let output: Vec<_> = tokens.take(3).map(|token| token.to_string()).collect();
    let no_output = matches!(output.as_slice(), [dash, head, next] if dash == "-" && head == ">" && next.starts_with('{'));
    no_output
        || split(arguments.stream())
            .iter()
            .any(|argument| lacks_type(argument))
}

fn group(token: TokenTree) -> Option<Group> {
    if let TokenTree::Group(group) = token {
        Some(group)
    } else {
        None
    }
}

/// Whether an argument is neither `self` nor `pattern: type`.
fn lacks_type(argument: &[TokenTree]) -> bool {
    let is = |token: Option<&TokenTree>, wanted: char| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted);
    let is_self = |token: &TokenTree| matches!(token, TokenTree::Ident(word) if word == "self");
    let colon = (0..argument.len()).find(|&at| {
        is(argument.get(at), ':')
            && !is(argument.get(at + 1), ':')
            && !(at > 0 && is(argument.get(at - 1), ':'))
    });
    let variadic = argument.iter().all(|token| is(Some(token), '.'));
    match colon {
        Some(colon) => colon + 1 == argument.len(),
        None => !variadic && !argument.iter().any(is_self),
    }
}

#[cfg(test)]
mod tests {
    use proc_macro2::TokenStream;

    use super::is_reported;

    #[test]
    fn adds_nothing_to_an_error_of_the_compiler() {
        for item in [
            "async fn handler {}",
            "async fn handler(a: ) {}",
            "async fn handler(a u32) {}",
            "async fn handler(a: u32, b) {}",
            "async fn handler(a::b) {}",
            "async fn handler() -> {}",
        ] {
            let item: TokenStream = item.parse().expect("tokens");
            assert!(is_reported(item.clone()), "{item}");
            assert!(
                crate::handler::Handler::parse(item.clone()).is_err(),
                "{item}"
            );
        }
    }

    #[test]
    fn reports_what_may_be_new_syntax() {
        for item in [
            "async fn handler() {}",
            "async fn handler(self, a: b::C<D, E>, (f, g): (H, I)) -> J {}",
            "async fn handler(&mut self, #[cfg(x)] a: B) where C: D {}",
            "async fn handler(a: B is C) {}",
            "async fn handler<F: Fn(u32) -> Vec<u8>>(a: B is C) {}",
            "unsafe extern \"C\" fn handler(a: B, ...) {}",
            "struct Handler;",
        ] {
            let item: TokenStream = item.parse().expect("tokens");
            assert!(!is_reported(item.clone()), "{item}");
        }
    }
}
