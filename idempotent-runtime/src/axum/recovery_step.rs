//! The step that asks a handler's recovery function.

use crate::{engine::Recovering, execution::Crash};

/// The recovery step of a handler: asks its function, in a router with this state.
pub(super) type RecoveryStep<S> = for<'a> fn(Crash, &'a S) -> Recovering<'a>;
