//! Which of the function's attributes go where.

use syn::{Attribute, Meta, parse_quote};

use super::{Expansion, Place};
use crate::handler::Handler;

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

/// The same, for the handler: where the user's function stands beside it, what is expected is found there only.
pub(super) fn handler_attrs(expansion: &Expansion<'_>) -> Vec<Attribute> {
    let beside = !matches!(expansion.place, Place::Inside);
    let lenient = |attr: &Attribute| {
        let mut attr = attr.clone();
        if let (true, Meta::List(list)) = (beside && attr.path().is_ident("expect"), &mut attr.meta)
        {
            list.path = parse_quote!(allow);
        }
        attr
    };
    outer_attrs(&expansion.handler)
        .into_iter()
        .map(lenient)
        .collect()
}

/// Whether it goes on the outer function.
pub(super) fn is_outer(attr: &Attribute) -> bool {
    attr.path()
        .get_ident()
        .is_some_and(|name| OUTER.iter().any(|outer| name == outer))
}
