//! What a route chooses, and what it gets if it chooses nothing.
//!
//! ```text
//! options    what one route, or the engine for all, chooses: the setters and their checks
//! choices    the enums among them
//! settings   the route's options, then the engine's, then the defaults: without gaps
//! ```

mod choices;
mod options;
mod settings;

pub use choices::{Cache, OnCrash, RecoverFn};
pub(crate) use options::KeySource;
pub use options::Policy;
pub(crate) use settings::Settings;
