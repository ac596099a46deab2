//! Goldens: what each shape of handler expands to, `tests/expand/<shape>.expanded.rs` for `<shape>.rs`.
//!
//! `EXPAND=overwrite cargo test -p idempotent-macros` writes them anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

use quote::ToTokens;
use syn::{Item, Meta};

use super::idempotent;

/// Lines that the attribute adds to a handler.
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
        _ => proc_macro2::TokenStream::new(),
    };
    let expanded = idempotent(arguments, handler.to_token_stream());
    let expanded =
        syn::parse2(expanded.clone()).unwrap_or_else(|error| panic!("{error}: {expanded}"));
    (file, expanded)
}

#[test]
fn every_shape_expands_as_it_did() {
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

/// Not counting options, each of which adds one setter, nor the signature that only documentation sees.
#[test]
fn few_lines_are_generated() {
    for path in shapes() {
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name.starts_with("mistake") || name == "every_option" || name == "conditional_argument" {
            continue;
        }
        let (plain, mut expanded) = expand(&path);
        expanded.items.retain(|item| !for_documentation(item));
        let lines = |file| prettyplease::unparse(file).lines().count();
        let generated = lines(&expanded).saturating_sub(lines(&plain));
        assert!(generated <= MOST_LINES, "{name}: {generated}");
    }
}

fn for_documentation(item: &Item) -> bool {
    let cfg = |attr: &syn::Attribute| {
        attr.to_token_stream().to_string().replace(' ', "") == "#[cfg(doc)]"
    };
    matches!(item, Item::Fn(handler) if handler.attrs.iter().any(cfg))
}
