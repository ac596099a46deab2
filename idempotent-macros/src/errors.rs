//! Every mistake is collected, so that one compilation reports them all.
//!
//! A collection that is dropped unread loses its mistakes, and a handler with a lost mistake silently gets a policy that
//! its author did not write. That would be a bug of this crate, so it panics in debug builds.

use proc_macro2::TokenStream;
use syn::Error;

/// The mistakes found so far. Must end in [`append`](Self::append), [`into_result`](Self::into_result) or
/// [`into_tokens`](Self::into_tokens), even if it is empty.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    collected: Option<Error>,
    /// Whether the mistakes have been passed on to be reported.
    read: bool,
}

impl Errors {
    /// Adds one.
    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.collected {
            Some(errors) => errors.combine(error),
            none => *none = Some(error),
        }
    }

    /// Adds all of another collection.
    pub(crate) fn append(&mut self, other: Self) {
        if let Some(error) = other.read() {
            self.push(error);
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.collected.is_none()
    }

    /// The value, or nothing and one more mistake.
    pub(crate) fn ok<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// The value, unless there are mistakes.
    pub(crate) fn into_result<T>(self, value: T) -> Result<T, Error> {
        self.read().map_or(Ok(value), Err)
    }

    /// One `compile_error!` for each.
    pub(crate) fn into_tokens(self) -> TokenStream {
        self.read()
            .map(Error::into_compile_error)
            .unwrap_or_default()
    }

    fn read(mut self) -> Option<Error> {
        self.read = true;
        self.collected.take()
    }
}

impl Drop for Errors {
    fn drop(&mut self) {
        // A second panic would abort the compiler and hide the first.
        debug_assert!(
            self.read || std::thread::panicking(),
            "a collection of errors was dropped unread: {self:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use proc_macro2::Span;
    use syn::Error;

    use super::Errors;

    fn mistake() -> Error {
        Error::new(Span::call_site(), "a mistake")
    }

    fn with_a_mistake() -> Errors {
        let mut errors = Errors::default();
        errors.push(mistake());
        errors
    }

    #[test]
    #[cfg(debug_assertions)]
    fn a_collection_that_is_dropped_unread_panics() {
        for errors in [Errors::default, with_a_mistake] {
            let dropped = catch_unwind(|| drop(errors()));
            let message = dropped.expect_err("a panic");
            let message = message.downcast_ref::<String>().expect("text");
            assert!(message.contains("dropped unread"), "{message}");
        }
    }

    #[test]
    fn a_collection_that_is_read_does_not_panic() {
        assert!(Errors::default().into_result(()).is_ok());
        assert!(with_a_mistake().into_result(()).is_err());
        assert!(Errors::default().into_tokens().is_empty());
        assert!(!with_a_mistake().into_tokens().is_empty());
        let mut errors = Errors::default();
        errors.append(with_a_mistake());
        errors.append(with_a_mistake());
        let messages = errors.into_result(()).expect_err("mistakes").into_iter();
        assert_eq!(messages.count(), 2);
    }

    /// Otherwise the compiler would abort and show neither panic.
    #[test]
    fn a_panic_elsewhere_is_not_hidden_by_a_second_one() {
        let unwound = catch_unwind(|| {
            let _errors = with_a_mistake();
            panic!("elsewhere");
        });
        let message = unwound.expect_err("a panic");
        assert_eq!(message.downcast_ref::<&str>(), Some(&"elsewhere"));
    }
}
