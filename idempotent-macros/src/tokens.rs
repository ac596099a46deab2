//! Tokens that are searched or split before they are parsed, or instead of it.

use proc_macro2::{Ident, TokenStream, TokenTree};

/// Whether a word stands anywhere in the tokens.
pub(crate) fn mentions(tokens: TokenStream, word: &str) -> Option<Ident> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) => (ident == word).then_some(ident),
        TokenTree::Group(group) => mentions(group.stream(), word),
        _ => None,
    })
}

/// What stands between the commas, none of it empty: where nothing is, the comma stands for it, so that the
/// mistake has a place. A trailing comma adds nothing.
pub(crate) fn split(tokens: TokenStream) -> Vec<Vec<TokenTree>> {
    let mut runs = Vec::new();
    let mut run = Vec::new();
    let mut depth = 0_usize;
    for token in tokens {
        if let TokenTree::Punct(punct) = &token {
            match punct.as_char() {
                '<' => depth += 1,
                '>' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    if run.is_empty() {
                        run.push(token);
                    }
                    runs.push(std::mem::take(&mut run));
                    continue;
                }
                _ => {}
            }
        }
        run.push(token);
    }
    if !run.is_empty() {
        runs.push(run);
    }
    runs
}
