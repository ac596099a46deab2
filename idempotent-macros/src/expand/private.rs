//! How generated code names the runtime's hidden module.
//!
//! By its path, where the runtime is `::idempotent_runtime`. Where the attribute was told another path
//! (`crate = path`), by macros of that module: a wrong path is then one error, at the path, instead of one for
//! each type and function that is named and one more at every route.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::Path;

use super::spans::{at, ends};
use crate::options::{Given, Options};

/// The module.
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

    /// What a handler returns. A type that is made by a macro must be `()` or what it is meant to be, and be a
    /// response in both cases.
    pub(super) fn running(&self) -> TokenStream {
        if self.0.is_none() {
            return self.ty(&quote!(HandlerFuture));
        }
        let response = self.ty(&quote!(Response));
        quote!(impl ::core::future::Future<Output = #response> + ::core::marker::Send)
    }

    /// What a handler returns that is never called.
    pub(super) fn never(&self) -> TokenStream {
        if self.0.is_none() {
            return quote!(::core::unreachable!());
        }
        quote!(::core::future::pending())
    }

    /// An expression that names the module, made by `expression` out of that name.
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

/// `path::__private::name!(…)`, wherever it stands located at the end of the path.
fn invoke(path: &Path, name: &str, arguments: &TokenStream) -> TokenStream {
    let last = path.segments.last().map(|last| &last.ident);
    let end = last.map_or_else(|| ends(path).1, |last| at(last.span()));
    let name = Ident::new(name, end);
    quote_spanned!(end=> #path::__private::#name!(#arguments))
}
