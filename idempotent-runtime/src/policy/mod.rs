//! What a route chooses, and what it gets if it chooses nothing.
//!
//! ```text
//! options    what one route, or the engine for all, chooses: the setters and their checks
//! choices    the enums among them
//! statuses   the statuses that release
//! settings   the route's options, then the engine's, then the defaults: without gaps
//! ```

mod choices;
mod options;
mod settings;
mod statuses;

pub use choices::{Cache, OnCrash, RecoverFn};
pub use options::Policy;
pub(crate) use options::{KeySource, LONGEST};
#[cfg(any(test, not(feature = "axum")))]
pub(crate) use settings::DEFAULT_MAX_BODY;
pub(crate) use settings::Settings;
pub(crate) use statuses::Statuses;
