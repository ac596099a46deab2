//! How generated code names the runtime's hidden module.
//!
//! By its path, if the runtime is `::idempotent_runtime`. With `crate = path`, by macros of that module: a wrong path is
//! then one error, at the path, instead of one for each type and function that is named and one more at every route.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::Path;

use super::spans::{at, ends};
use crate::options::{Given, Options};

/// The hidden module, at the path of `crate = path` if that was given.
pub(super) struct Private<'a>(Option<&'a Path>);

impl<'a> Private<'a> {
    pub(super) fn of(options: &'a Options) -> Self {
        Self(options.krate.as_ref().map(|Given { value, .. }| value))
    }

    /// One of its types.
    pub(super) fn ty(&self, ty: &TokenStream) -> TokenStream {
        self.0.map_or_else(
            || {
                let here = ends(ty).0;
                quote_spanned!(here=> ::idempotent_runtime::__private::#ty)
            },
            |path| invoke(path, "ty", ty),
        )
    }

    /// The type that a handler returns. The compiler takes the type of an unresolved macro for `()`, so with `crate` the
    /// type is written such that the handler fits its route in both cases.
    pub(super) fn future(&self) -> TokenStream {
        if self.0.is_none() {
            return self.ty(&quote!(HandlerFuture));
        }
        let response = self.ty(&quote!(Response));
        quote!(impl ::core::future::Future<Output = #response> + ::core::marker::Send)
    }

    /// The body of a handler that is never called.
    pub(super) fn never(&self) -> TokenStream {
        if self.0.is_none() {
            return quote!(::core::unreachable!());
        }
        quote!(::core::future::pending())
    }

    /// The expression that `expression` makes from a name for the module.
    pub(super) fn within(
        &self,
        expression: impl FnOnce(&TokenStream) -> TokenStream,
    ) -> TokenStream {
        let Some(path) = self.0 else {
            let here = Span::mixed_site();
            return expression(&quote_spanned!(here=> ::idempotent_runtime::__private));
        };
        let name = Ident::new("__private", Span::mixed_site()).to_token_stream();
        let expression = expression(&name);
        invoke(path, "within", &quote!(#name, #expression))
    }
}

/// `path::__private::name!(…)`, located at the end of the path.
fn invoke(path: &Path, name: &str, arguments: &TokenStream) -> TokenStream {
    let last = path.segments.last().map(|last| &last.ident);
    let end = last.map_or_else(|| ends(path).1, |last| at(last.span()));
    let name = Ident::new(name, end);
    quote_spanned!(end=> #path::__private::#name!(#arguments))
}
