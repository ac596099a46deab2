//! Goldens: what each shape of handler expands to, `tests/expand/<shape>.expanded.rs` for `<shape>.rs`.
//!
//! `EXPAND=overwrite cargo test -p idempotent-macros` rewrites them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Item, Meta};

use super::annotate;

/// Lines that the attribute adds to a handler, or to each variant of one with `#[cfg]` arguments.
const MOST_LINES: usize = 25;

fn shapes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expand");
    let files = fs::read_dir(folder)
        .expect("a folder")
        .map(|file| file.expect("readable").path());
    let mut shapes: Vec<_> = files
        .filter(|path| !path.to_string_lossy().ends_with(".expanded.rs"))
        .collect();
    shapes.sort();
    shapes
}

/// The function without the attribute, and what the attribute makes of it.
fn expand(path: &Path) -> (syn::File, syn::File) {
    let source = fs::read_to_string(path).expect("readable");
    let mut file: syn::File = syn::parse_str(&source).expect("valid");
    let [Item::Fn(handler)] = file.items.as_mut_slice() else {
        panic!("{}", path.display())
    };
    let attribute = handler
        .attrs
        .iter()
        .position(|attr| attr.path().is_ident("idempotent"));
    let attribute = handler.attrs.remove(attribute.expect("annotated"));
    let arguments = match attribute.meta {
        Meta::List(list) => list.tokens,
        _ => TokenStream::new(),
    };
    let expanded = annotate(arguments, handler.to_token_stream());
    let expanded =
        syn::parse2(expanded.clone()).unwrap_or_else(|error| panic!("{error}: {expanded}"));
    (file, expanded)
}

#[test]
fn every_shape_expands_to_its_golden() {
    for path in shapes() {
        let golden = path.with_extension("expanded.rs");
        let expanded = prettyplease::unparse(&expand(&path).1);
        if std::env::var_os("EXPAND").is_some_and(|value| value == "overwrite") {
            fs::write(&golden, expanded).expect("writable");
        } else {
            let golden = fs::read_to_string(&golden).expect("a golden beside it");
            assert_eq!(golden, expanded, "{}", path.display());
        }
    }
}

/// What stands below each `#[idempotent…]` in these tokens, up to its body, and the attribute's arguments.
fn annotated(tokens: TokenStream) -> Vec<(TokenStream, Vec<TokenTree>)> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else {
            continue;
        };
        found.extend(annotated(group.stream()));
        let mut inside = group.stream().into_iter();
        if !matches!(inside.next(), Some(TokenTree::Ident(name)) if name == "idempotent") {
            continue;
        }
        let arguments = match inside.next() {
            Some(TokenTree::Group(arguments)) => arguments.stream(),
            _ => TokenStream::new(),
        };
        let ends = |token: &TokenTree| match token {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Punct(punct) => punct.as_char() == ';',
            _ => false,
        };
        let rest = &tokens[at + 1..];
        let end = rest.iter().position(ends).expect("a body, or a semicolon");
        found.push((arguments, rest[..=end].to_vec()));
    }
    found
}

/// Whatever is wrong with the handler or the options, every token of the body is in the expansion, once and in its
/// order, so that an editor goes on helping inside it.
#[test]
fn the_body_stays_in_its_place_on_every_mistake() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/ui")];
    let mut bodies = 0;
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(folder).expect("a folder") {
            let path = file.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = fs::read_to_string(&path).expect("readable");
            let rust = path.extension().is_some_and(|extension| extension == "rs");
            let Some(tokens) = rust.then(|| source.parse().ok()).flatten() else {
                continue;
            };
            for (arguments, item) in annotated(tokens) {
                let Some(TokenTree::Group(body)) = item.last() else {
                    continue;
                };
                let expanded = annotate(arguments, item.iter().cloned().collect()).to_string();
                let times = expanded.matches(&body.to_string()).count();
                // An empty body occurs elsewhere, too.
                let empty = body.stream().is_empty();
                assert!(
                    times == 1 || (empty && times > 1),
                    "{}: {times} in {expanded}",
                    path.display()
                );
                bodies += 1;
            }
        }
    }
    assert!(bodies > 100, "only {bodies} bodies were found");
}

/// Not counting options, each of which adds one setter or, for an expression, a cell, nor the signature that only
/// documentation sees.
#[test]
fn few_lines_are_generated() {
    for path in shapes() {
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        // One setter each, in many lines.
        let in_many_lines = name == "fingerprint_by_a_function" || name == "scope_by_expression";
        if name.starts_with("mistake") || name == "every_option" || in_many_lines {
            continue;
        }
        let (plain, mut expanded) = expand(&path);
        expanded.items.retain(|item| !for_documentation(item));
        let lines = |file| prettyplease::unparse(file).lines().count();
        let variants = if name.starts_with("conditional") {
            expanded.items.len()
        } else {
            1
        };
        let generated = lines(&expanded).saturating_sub(variants * lines(&plain));
        assert!(generated <= variants * MOST_LINES, "{name}: {generated}");
    }
}

fn for_documentation(item: &Item) -> bool {
    let cfg = |attr: &syn::Attribute| {
        attr.to_token_stream().to_string().replace(' ', "") == "#[cfg(doc)]"
    };
    matches!(item, Item::Fn(handler) if handler.attrs.iter().any(cfg))
}
