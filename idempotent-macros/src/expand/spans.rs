//! Where generated tokens resolve, and where they point.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;

/// A span that resolves names where the macro is defined and points to the user's code.
pub(super) fn at(span: Span) -> Span {
    Span::mixed_site().located_at(span)
}

/// The places of the first and the last token.
pub(super) fn ends(tokens: impl ToTokens) -> (Span, Span) {
    let mut spans = tokens
        .into_token_stream()
        .into_iter()
        .map(|token| token.span());
    let start = spans.next().unwrap_or_else(Span::mixed_site);
    (at(start), at(spans.last().unwrap_or(start)))
}

/// The same tokens, pointing to another place.
pub(super) fn located(tokens: TokenStream, span: Span) -> TokenStream {
    tokens
        .into_iter()
        .map(|mut token| {
            token.set_span(token.span().located_at(span));
            token
        })
        .collect::<Vec<TokenTree>>()
        .into_iter()
        .collect()
}
