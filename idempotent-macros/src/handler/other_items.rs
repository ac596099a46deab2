//! Items that are not functions.

use proc_macro2::{TokenStream, TokenTree};
use syn::{Error, parse::ParseStream};

/// The error for an item of another kind, at its keyword.
pub(super) fn not_a_function(input: ParseStream<'_>) -> Option<Error> {
    let words: TokenStream = input.parse().ok()?;
    let mut words = words
        .into_iter()
        .skip_while(|word| matches!(word, TokenTree::Ident(word) if word == "unsafe"));
    let Some(TokenTree::Ident(word)) = words.next() else {
        return None;
    };
    let mut what = format!("`{word}`");
    let (article, advice) = match word.to_string().as_str() {
        "impl" => ("an", "annotate the handler functions inside"),
        "trait" | "mod" => ("a", "annotate the handler functions inside"),
        "enum" => ("an", "a handler is an `async fn`"),
        "struct" | "union" | "type" => ("a", "a handler is an `async fn`"),
        "static" | "const" => ("a", "write the handler as an `async fn` instead"),
        "extern" => {
            what = match words.next() {
                Some(TokenTree::Ident(_)) => "`extern crate`".to_owned(),
                _ => "`extern` block".to_owned(),
            };
            ("an", "annotate the handler where it is defined")
        }
        "use" | "macro_rules" => ("a", "annotate the handler where it is defined"),
        _ => return None,
    };
    Some(Error::new_spanned(
        &word,
        format!("`#[idempotent]` goes on a handler function, not on {article} {what}: {advice}"),
    ))
}
