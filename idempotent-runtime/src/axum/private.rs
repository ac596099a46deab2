//! What generated code names. Not for people: it changes without notice, and the runtime pins the version of
//! the macro crate that goes with it.

pub use std::time::Duration;

pub use super::{
    answer::answer,
    arguments::{last, part},
    call::{Call, DebugHandlerBelongsBelow, Slot, StatefulCall},
    run::{Running, recovery, respond, run_handler},
};
pub use crate::{Cache, FingerprintRule, OnCrash, Policy};
