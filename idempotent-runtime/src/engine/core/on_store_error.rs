//! What happens to a request when the store cannot be asked.

/// What a request gets when the store cannot say whether its key is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnStoreError {
    /// 503; the handler does not start.
    #[default]
    Refuse,
    /// The handler runs **without any protection**: a retry may execute it again. Each time a warning is logged.
    Execute,
}
