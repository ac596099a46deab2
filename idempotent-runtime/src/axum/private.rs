//! What generated code names. Not for people: it changes without notice, and the runtime pins the version of
//! the macro crate that goes with it.

pub use std::time::Duration;

pub use super::{
    call::{Call, FromExtensions, Slot, StatefulCall},
    diagnose::{Last, Part, answer},
    run::{Running, recovery, run_handler},
};
pub use crate::{Cache, FingerprintRule, OnCrash, Policy};
