//! What generated code for axum handlers names, beside what is [common](crate::__private) to all adapters.

pub use ::axum::response::Response;

pub use super::{
    call::{FromRouter, Placeholder},
    caller::CallerIs,
    checks::{
        caller, caller_in, check_kept, engine, fingerprint, into_response, key, last, part,
        recovery, recovery_in, scope, scope_by, when,
    },
    hints::{
        AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly, AnyState, LazyScope,
        OnlyInARouterWithState, UseInnerToCallDirectlyOrPutDebugHandlerBelow,
    },
    run::{HandlerFuture, respond, run_handler},
};
