//! Typed paths of `axum-extra` (feature `typed-routing`).
//!
//! `typed_post(handler)` reads the route off the type of the handler's first argument, which in an annotated
//! handler is a placeholder: it has the route of the argument it stands for.

use std::fmt;

use axum_extra::routing::TypedPath;

use super::{
    call::{FromRouter, Placeholder},
    hints::OnlyInARouterWithState,
};

impl<P: TypedPath> TypedPath for Placeholder<P> {
    const PATH: &'static str = P::PATH;
}

impl<P: TypedPath, E> TypedPath for FromRouter<(P,), E> {
    const PATH: &'static str = P::PATH;
}

impl<S, P: TypedPath> TypedPath for OnlyInARouterWithState<S, (P,)> {
    const PATH: &'static str = P::PATH;
}

// Demanded by the trait, for links; nobody has a placeholder in hand to make one.
impl<P: TypedPath> fmt::Display for Placeholder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(P::PATH)
    }
}

impl<P: TypedPath, E> fmt::Display for FromRouter<(P,), E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(P::PATH)
    }
}

impl<S, P: TypedPath> fmt::Display for OnlyInARouterWithState<S, (P,)> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(P::PATH)
    }
}
