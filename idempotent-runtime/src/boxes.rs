//! Boxed errors and futures.

use std::{error::Error, future::Future, pin::Pin};

/// A boxed error, as `http-body` implementations carry it.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// A boxed future that may be handed to another task.
pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
