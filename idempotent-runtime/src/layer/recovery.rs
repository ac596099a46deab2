//! A recovery function that owns something.

use std::{fmt, future::Future, sync::Arc};

use crate::{
    engine::{BoxFuture, Recovering},
    execution::{Crash, Recovery},
};

/// Finds out what became of an execution that crashed.
#[derive(Clone)]
pub(super) struct RecoveryFn(Arc<dyn Fn(Crash) -> BoxFuture<Recovery> + Send + Sync>);

impl RecoveryFn {
    pub(super) fn new<F, R>(recover: F) -> Self
    where
        F: Fn(Crash) -> R + Send + Sync + 'static,
        R: Future<Output = Recovery> + Send + 'static,
    {
        Self(Arc::new(move |crash| Box::pin(recover(crash))))
    }

    pub(super) fn start(&self, crash: Crash) -> Recovering<'static> {
        (self.0)(crash)
    }
}

impl fmt::Debug for RecoveryFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryFn(_)")
    }
}
