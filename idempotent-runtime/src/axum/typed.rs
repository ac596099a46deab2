//! Typed paths of `axum-extra` (feature `typed-routing`).
//!
//! `typed_post(handler)` takes the route from the type of the handler's first argument. In an annotated handler that is
//! a placeholder, which has the route of the argument that it stands for.

use std::fmt;

use axum_extra::routing::TypedPath;

use super::{
    call::{FromRouter, Placeholder},
    hints::OnlyInARouterWithState,
};

impl<P: TypedPath> TypedPath for Placeholder<P> {
    const PATH: &'static str = P::PATH;
}

impl<P: TypedPath, E, C> TypedPath for FromRouter<(P,), E, C> {
    const PATH: &'static str = P::PATH;
}

impl<S, P: TypedPath> TypedPath for OnlyInARouterWithState<S, (P,)> {
    const PATH: &'static str = P::PATH;
}

// The trait requires it, to write links. No code has a placeholder to write one with.
impl<P: TypedPath> fmt::Display for Placeholder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(P::PATH)
    }
}

impl<P: TypedPath, E, C> fmt::Display for FromRouter<(P,), E, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(P::PATH)
    }
}

impl<S, P: TypedPath> fmt::Display for OnlyInARouterWithState<S, (P,)> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(P::PATH)
    }
}
