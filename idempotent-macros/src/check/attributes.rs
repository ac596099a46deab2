//! Attributes that cannot stand below ours.

use syn::{Attribute, Error, Meta};

use crate::errors::Errors;

/// Reports each attribute that cannot stand below ours.
pub(super) fn attributes(attrs: &[Attribute], errors: &mut Errors) {
    for attr in attrs {
        if let Some(message) = misplaced(attr) {
            errors.push(Error::new_spanned(attr, message));
        }
    }
}

/// Why an attribute cannot stand below ours, if so.
pub(crate) fn misplaced(attr: &Attribute) -> Option<&'static str> {
    if is_named(attr, "idempotent") {
        Some("`#[idempotent]` is given twice: keep one")
    } else if is_utoipa(attr) {
        Some(
            "`#[utoipa::path]` belongs above `#[idempotent]`: it reads the handler's own arguments and adds an item beside it",
        )
    } else {
        None
    }
}

/// Whether an attribute's path ends in this name.
fn is_named(attr: &Attribute, name: &str) -> bool {
    attr.path()
        .segments
        .last()
        .is_some_and(|last| last.ident == name)
}

/// Whether it is `utoipa::path`, or the same imported as `path`. The latter must begin with an HTTP method, as
/// utoipa's does, because other crates have attributes of that name, too.
fn is_utoipa(attr: &Attribute) -> bool {
    const METHODS: [&str; 8] = [
        "get", "post", "put", "delete", "head", "options", "patch", "trace",
    ];
    let mut segments = attr.path().segments.iter().rev();
    if segments.next().is_none_or(|last| last.ident != "path") {
        return false;
    }
    let Some(before) = segments.next() else {
        let Meta::List(list) = &attr.meta else {
            return false;
        };
        let first = list.tokens.clone().into_iter().next();
        let first = first.map(|token| token.to_string());
        return first.is_some_and(|first| first == "method" || METHODS.contains(&first.as_str()));
    };
    before.ident == "utoipa"
}

#[cfg(test)]
mod tests {
    use syn::{Attribute, parse_quote};

    use super::misplaced;

    #[test]
    fn tells_utoipas_path_from_other_attributes() {
        let utoipas: [Attribute; 5] = [
            parse_quote!(#[utoipa::path(post, path = "/")]),
            parse_quote!(#[::utoipa::path(responses())]),
            parse_quote!(#[path(get, path = "/")]),
            parse_quote!(#[path(method(get, head), path = "/")]),
            parse_quote!(#[path(post)]),
        ];
        for attr in &utoipas {
            assert!(misplaced(attr).is_some_and(|message| message.contains("belongs above")));
        }
        let others: [Attribute; 5] = [
            parse_quote!(#[path = "handlers.rs"]),
            parse_quote!(#[path]),
            parse_quote!(#[path("/orders")]),
            parse_quote!(#[path(name = "orders")]),
            parse_quote!(#[rocket::path(get)]),
        ];
        for attr in &others {
            assert!(misplaced(attr).is_none());
        }
    }
}
