//! Where the engine's background tasks run, and the store's.
//!
//! Nothing else in the engine asks for the current runtime or spawns a task, so that what the application chose holds for
//! all of them.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::runtime::{EnterGuard, Handle};

use crate::store::{StoreError, erased::Operation};

/// The runtime that the application chose, or else the one that is current where a task is needed.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskRuntime(Option<Handle>);

impl TaskRuntime {
    pub(crate) fn new(chosen: Option<Handle>) -> Self {
        Self(chosen)
    }

    /// `None` outside of a runtime, where none was chosen.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.0.clone().or_else(|| Handle::try_current().ok())
    }

    /// Starts a task.
    ///
    /// # Panics
    ///
    /// Outside of a runtime, where none was chosen.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match &self.0 {
            Some(chosen) => drop(chosen.spawn(task)),
            None => drop(tokio::spawn(task)),
        }
    }

    /// What a store does under this guard, such as opening a connection or spawning a task, belongs to the chosen runtime.
    pub(crate) fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Handle::enter)
    }

    /// Makes an operation of a store that runs under such a guard.
    pub(crate) fn within<'a, T: 'a>(
        &self,
        operation: impl FnOnce() -> Operation<'a, T>,
    ) -> Operation<'a, T> {
        let Some(chosen) = &self.0 else {
            return operation();
        };
        let entered = chosen.enter();
        let operation = Some(operation());
        drop(entered);
        Box::pin(Within {
            runtime: chosen.clone(),
            operation,
        })
    }
}

/// An operation that is polled and dropped within a runtime.
struct Within<'a, T> {
    runtime: Handle,
    /// `None` while it is dropped.
    operation: Option<Operation<'a, T>>,
}

impl<T> Future for Within<'_, T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let _entered = this.runtime.enter();
        match &mut this.operation {
            Some(operation) => operation.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Within<'_, T> {
    fn drop(&mut self) {
        let _entered = self.runtime.enter();
        self.operation = None;
    }
}
