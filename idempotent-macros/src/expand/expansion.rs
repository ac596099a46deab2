//! The input of an expansion, and where the user's function goes.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::{Attribute, Path, Type, ext::IdentExt};

use super::spans::at;
use crate::{
    handler::Handler,
    options::{Inner, OnCrash, Options},
};

/// One handler to expand.
pub(super) struct Expansion<'a> {
    pub(super) handler: Handler,
    /// Attributes that choose between the variants of a handler with `#[cfg]` arguments.
    pub(super) cfgs: Vec<Attribute>,
    pub(super) options: &'a Options,
    pub(super) place: &'a Place,
}

impl<'a> Expansion<'a> {
    /// The router's state, if the attribute named it and something is extracted from it.
    pub(super) fn state(&self) -> Option<&'a Type> {
        let state = self.options.state.as_ref().map(|given| &given.value)?;
        let Options { engine, caller, .. } = self.options;
        let uses_it = engine.is_some()
            || caller.is_some()
            || self.recovery().is_some()
            || self.handler.arguments().next().is_some();
        uses_it.then_some(state)
    }

    /// The recovery function, if the attribute named one.
    pub(super) fn recovery(&self) -> Option<&'a Path> {
        match &self.options.on_crash.as_ref()?.value {
            OnCrash::Recover(path) => Some(path),
            OnCrash::Refuse | OnCrash::Retry => None,
        }
    }

    /// The name of the parameter for the request. Parameters are hygienic, so no variable of the user's can collide
    /// with it. Functions are not, so the user's function inside could, and gets another one.
    pub(super) fn request_name(&self) -> Ident {
        let taken = self.handler.sig.ident == "__call";
        Ident::new(
            if taken { "__request" } else { "__call" },
            Span::mixed_site(),
        )
    }
}

/// Where the user's function stands, and by which name.
pub(super) enum Place {
    Inside,
    Beside(Ident),
    Associated(Ident),
}

impl Place {
    pub(super) fn of(handler: &Handler, options: &Options) -> Self {
        match options.inner.as_ref().map(|inner| &inner.value) {
            Some(Inner::Associated(name)) => Self::Associated(name.clone()),
            // This mistake is reported already. Inside the handler the compiler would report `Self` again.
            _ if handler.names_self.is_some() => {
                Self::Associated(format_ident!("{}_inner", handler.sig.ident.unraw()))
            }
            Some(Inner::Beside(name)) if name.unraw() != handler.sig.ident.unraw() => {
                Self::Beside(name.clone())
            }
            Some(Inner::Beside(_)) | None => Self::Inside,
        }
    }

    /// The path by which the handler calls it.
    pub(super) fn path(&self, handler: &Handler) -> TokenStream {
        let ident = &handler.sig.ident;
        match self {
            Self::Inside => quote!(#ident),
            Self::Beside(name) => {
                let mut name = name.clone();
                name.set_span(name.span().located_at(ident.span()));
                name.to_token_stream()
            }
            Self::Associated(name) => {
                let at = at(name.span());
                quote_spanned!(at=> Self::#name)
            }
        }
    }
}
