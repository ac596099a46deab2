//! Which of the function's attributes go where.

use syn::{Attribute, Meta, parse_quote};

use super::expansion::{Expansion, Place};
use crate::{handler::Handler, tokens::mentions};

/// Lint levels and what documents the function: they go on the outer one. Everything else was written for the
/// function that runs. `cfg` and `cfg_attr` are gone: the compiler looks at them first.
const OUTER: [&str; 7] = [
    "doc",
    "deprecated",
    "allow",
    "expect",
    "warn",
    "deny",
    "forbid",
];

/// What documents the handler and sets lint levels for it.
pub(super) fn outer_attrs(handler: &Handler) -> Vec<&Attribute> {
    handler.attrs.iter().filter(|attr| is_outer(attr)).collect()
}

/// The same, for the handler. Where the user's function stands beside it, what is expected is found there only,
/// except that the one which may never be used is the handler.
pub(super) fn handler_attrs(expansion: &Expansion<'_>) -> Vec<Attribute> {
    attrs_of_two(expansion, false)
}

/// The same, for the user's function beside the handler.
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

/// Whether it goes on the outer function.
pub(super) fn is_outer(attr: &Attribute) -> bool {
    attr.path()
        .get_ident()
        .is_some_and(|name| OUTER.iter().any(|outer| name == outer))
}
