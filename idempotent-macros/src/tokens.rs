//! Searching and splitting tokens that are not parsed.

use proc_macro2::{Ident, Spacing, TokenStream, TokenTree};

/// The first occurrence of a word in the tokens.
pub(crate) fn mentions(tokens: TokenStream, word: &str) -> Option<Ident> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) => (ident == word).then_some(ident),
        TokenTree::Group(group) => mentions(group.stream(), word),
        _ => None,
    })
}

/// The runs of tokens between commas. A comma inside angle brackets belongs to a type, as in `engine = Of<A, B>`. No run
/// is empty: between two commas that follow each other stands the second one, so that the mistake has a place. A
/// trailing comma adds nothing.
pub(crate) fn split(tokens: TokenStream) -> Vec<Vec<TokenTree>> {
    let mut runs = Vec::new();
    let mut run = Vec::new();
    let mut depth = 0_usize;
    // The `>` of `->` closes nothing.
    let mut arrow = false;
    for token in tokens {
        let after_minus = std::mem::take(&mut arrow);
        if let TokenTree::Punct(punct) = &token {
            match punct.as_char() {
                '<' => depth += 1,
                '-' => arrow = punct.spacing() == Spacing::Joint,
                '>' if after_minus => {}
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
