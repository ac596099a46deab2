//! Which attributes of the function go on the handler, and which on the user's function.

use syn::{Attribute, Meta, parse_quote};

use super::expansion::{Expansion, Place};
use crate::{handler::Handler, tokens::mentions};

/// Lint levels and documentation go on the handler. Everything else was written for the function that runs. `cfg` and
/// `cfg_attr` are gone: the compiler applies them before it calls the attribute.
const OUTER: [&str; 7] = [
    "doc",
    "deprecated",
    "allow",
    "expect",
    "warn",
    "deny",
    "forbid",
];

/// The attributes for a handler whose signature has a mistake.
pub(super) fn outer_attrs(handler: &Handler) -> Vec<&Attribute> {
    handler.attrs.iter().filter(|attr| is_outer(attr)).collect()
}

/// The attributes for the handler. Where the user's function stands beside it, an `expect` is fulfilled by one of the
/// two only, and becomes `allow` on the other: `dead_code` concerns the handler, every other lint the user's function.
pub(super) fn handler_attrs(expansion: &Expansion<'_>) -> Vec<Attribute> {
    attrs_of_two(expansion, false)
}

/// The attributes for the user's function beside the handler.
pub(super) fn beside_attrs(expansion: &Expansion<'_>) -> Vec<Attribute> {
    attrs_of_two(expansion, true)
}

fn attrs_of_two(expansion: &Expansion<'_>, beside: bool) -> Vec<Attribute> {
    let alone = matches!(expansion.place, Place::Inside);
    let shared = |attr: &Attribute| {
        let mut attr = attr.clone();
        if let (false, true, Meta::List(list)) =
            (alone, attr.path().is_ident("expect"), &mut attr.meta)
        {
            let of_the_handler = mentions(list.tokens.clone(), "dead_code").is_some();
            if of_the_handler == beside {
                list.path = parse_quote!(allow);
            }
        }
        attr
    };
    let attrs = outer_attrs(&expansion.handler);
    attrs.into_iter().map(shared).collect()
}

/// Whether it goes on the handler.
pub(super) fn is_outer(attr: &Attribute) -> bool {
    attr.path()
        .get_ident()
        .is_some_and(|name| OUTER.iter().any(|outer| name == outer))
}
