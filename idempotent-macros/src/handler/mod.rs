//! The annotated function. Only its signature is parsed: the body stays tokens, so that the compiler alone reports what
//! is wrong or unfinished in it.

mod conditional;
mod other_items;

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{
    Attribute, Error, FnArg, ReturnType, Signature, Type, Visibility,
    parse::{ParseStream, Parser},
};

use crate::{
    tokens::mentions,
    types::{future_output, plain},
};
pub(crate) use conditional::is_conditional;
use conditional::plain_cfgs;
use other_items::not_a_function;

/// A function with a body.
#[derive(Clone)]
pub(crate) struct Handler {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    pub(crate) body: Group,
    /// The first `Self` in it that means the type of an impl block: a function inside a function cannot name that.
    pub(crate) names_self: Option<Ident>,
}

/// What the handler's future resolves to.
pub(crate) enum Output<'a> {
    /// `()`, because no type is written.
    Nothing,
    /// `!`
    Never(&'a Type),
    /// The type that becomes the response, or the whole future if its output is not visible.
    Type(&'a Type),
}

impl Handler {
    /// Reads a function.
    ///
    /// # Errors
    ///
    /// The error points to the keyword of an item that is not a function.
    pub(crate) fn parse(item: TokenStream) -> syn::Result<Self> {
        Self::read.parse2(item)
    }

    fn read(input: ParseStream<'_>) -> syn::Result<Self> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let ahead = input.fork();
        let mut sig: Signature = match input.parse() {
            Ok(sig) => sig,
            Err(error) => return Err(not_a_function(&ahead).unwrap_or(error)),
        };
        plain_cfgs(&mut sig);
        let body: TokenTree = input.parse()?;
        let at = body.span();
        match block(body) {
            Some(body) => Ok(Self {
                names_self: names_self(&sig, &body),
                attrs,
                vis,
                sig,
                body,
            }),
            None => Err(Error::new(
                at,
                "`#[idempotent]` goes on a function with a body, and this one has none: annotate a function that calls it",
            )),
        }
    }

    /// The types of the arguments, without a receiver.
    pub(crate) fn arguments(&self) -> impl DoubleEndedIterator<Item = &Type> {
        self.sig.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(argument) => Some(argument.ty.as_ref()),
            FnArg::Receiver(_) => None,
        })
    }

    /// What the future resolves to, or nothing if the function does not return a future.
    pub(crate) fn output(&self) -> Option<Output<'_>> {
        let ty = match &self.sig.output {
            ReturnType::Default => return self.sig.asyncness.map(|_| Output::Nothing),
            ReturnType::Type(_, ty) if self.sig.asyncness.is_some() => ty,
            ReturnType::Type(_, ty) => future_output(ty)?,
        };
        Some(if matches!(plain(ty), Type::Never(_)) {
            Output::Never(ty)
        } else {
            Output::Type(ty)
        })
    }

    /// Whether `self` or an `#[async_trait]` fixes its signature.
    pub(crate) fn is_method(&self) -> bool {
        self.sig.receiver().is_some() || self.is_async_trait()
    }

    /// Whether `#[async_trait]` has expanded it: that adds a lifetime of this name.
    pub(crate) fn is_async_trait(&self) -> bool {
        self.sig
            .generics
            .lifetimes()
            .any(|param| param.lifetime.ident == "async_trait")
    }

    /// The handler for each combination of its `#[cfg]` arguments, and the attributes that choose between them.
    pub(crate) fn variants(self) -> Vec<(Vec<Attribute>, Self)> {
        conditional::variants(self.sig.clone())
            .into_iter()
            .map(|(cfgs, sig)| {
                let handler = Self {
                    sig,
                    ..self.clone()
                };
                (cfgs, handler)
            })
            .collect()
    }
}

/// The first `Self` in the signature, or in a body that defines no types. In a body that does, `Self` may be theirs:
/// whether it is wrong, only the compiler can say.
fn names_self(sig: &Signature, body: &Group) -> Option<Ident> {
    let mut signature = sig.generics.to_token_stream();
    sig.inputs.to_tokens(&mut signature);
    sig.output.to_tokens(&mut signature);
    sig.generics.where_clause.to_tokens(&mut signature);
    let defines = || {
        let items = [
            "impl",
            "trait",
            "struct",
            "enum",
            "union",
            "quote",
            "macro_rules",
        ];
        items
            .iter()
            .any(|word| mentions(body.stream(), word).is_some())
    };
    mentions(signature, "Self").or_else(|| mentions(body.stream(), "Self").filter(|_| !defines()))
}

/// The braces, without the invisible group that `$body:block` of a `macro_rules!` puts around them.
fn block(token: TokenTree) -> Option<Group> {
    let TokenTree::Group(group) = token else {
        return None;
    };
    match group.delimiter() {
        Delimiter::Brace => Some(group),
        Delimiter::None => block(group.stream().into_iter().next()?),
        Delimiter::Parenthesis | Delimiter::Bracket => None,
    }
}

#[cfg(test)]
mod tests {
    use proc_macro2::TokenStream;
    use quote::quote;

    use super::Handler;

    #[test]
    fn finds_the_self_of_the_impl() {
        let names_self = |item: TokenStream| {
            Handler::parse(item)
                .expect("a function")
                .names_self
                .is_some()
        };
        for item in [
            quote!(
                async fn handler(a: State<Self>) {}
            ),
            quote!(
                async fn handler() -> Self {}
            ),
            quote!(
                async fn handler<T: From<Self>>() {}
            ),
            quote!(
                async fn handler()
                where
                    Self: Sized,
                {
                }
            ),
            quote!(
                async fn handler() {
                    Self::new()
                }
            ),
            quote!(
                async fn handler() {
                    async { [Self::new()] }
                }
            ),
        ] {
            assert!(names_self(item.clone()), "{item}");
        }
        for item in [
            quote!(
                async fn handler() {
                    self_of_another()
                }
            ),
            quote!(
                async fn handler() {
                    impl Payment {
                        fn new() -> Self {}
                    }
                }
            ),
            quote!(
                async fn handler() {
                    macro_rules! new {
                        () => {
                            Self::new()
                        };
                    }
                }
            ),
        ] {
            assert!(!names_self(item.clone()), "{item}");
        }
    }
}
