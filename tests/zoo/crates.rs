//! Handlers of other crates, with other editions, lints and names for the runtime.
