//! The annotated function, read only as far as its signature: the body stays the tokens it was, so that
//! whatever is wrong or unfinished in it is between the user and the compiler.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{
    Attribute, Error, FnArg, GenericArgument, Meta, Path, PathArguments, ReturnType, Signature,
    Token, Type, TypeParamBound, TypeTraitObject, Visibility,
    parse::{ParseStream, Parser},
    parse_quote,
    punctuated::Punctuated,
};

/// A function with a body.
#[derive(Clone)]
pub(crate) struct Handler {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    pub(crate) body: Group,
    /// Where it names the `Self` of an impl block, which no function inside a function can.
    pub(crate) names_self: Option<Ident>,
}

/// What the handler's future resolves to.
pub(crate) enum Answer<'a> {
    /// `()`, unwritten.
    Nothing,
    /// `!`
    Never(&'a Type),
    /// A type that becomes the response. Where it cannot be told apart, the whole future.
    Type(&'a Type),
}

impl Handler {
    /// Reads a function.
    ///
    /// # Errors
    ///
    /// At the keyword of any other item.
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
                "`#[idempotent]` goes on a function with a body; a trait's declaration has none: annotate a function that has one",
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

    /// What the future resolves to, or nothing where the function returns no future.
    pub(crate) fn answer(&self) -> Option<Answer<'_>> {
        let ty = match &self.sig.output {
            ReturnType::Default => return self.sig.asyncness.map(|_| Answer::Nothing),
            ReturnType::Type(_, ty) if self.sig.asyncness.is_some() => ty,
            ReturnType::Type(_, ty) => future_output(ty)?,
        };
        Some(if matches!(plain(ty), Type::Never(_)) {
            Answer::Never(ty)
        } else {
            Answer::Type(ty)
        })
    }

    /// Whether its signature is fixed by `self`, or by a trait that `#[async_trait]` has been at.
    pub(crate) fn is_method(&self) -> bool {
        self.sig.receiver().is_some() || self.is_async_trait()
    }

    /// `#[async_trait]` leaves a lifetime of its own behind.
    pub(crate) fn is_async_trait(&self) -> bool {
        self.sig
            .generics
            .lifetimes()
            .any(|param| param.lifetime.ident == "async_trait")
    }

    /// The handler as it is with and without each of its `#[cfg]` arguments, and the attributes that choose.
    ///
    /// The type of the outer function's last argument lists the others, and types take no attributes.
    pub(crate) fn variants(self) -> Vec<(Vec<Attribute>, Self)> {
        let Some((index, cfgs)) = self
            .sig
            .inputs
            .iter()
            .enumerate()
            .find_map(|(index, input)| {
                let cfgs: Vec<_> = attributes(input)
                    .iter()
                    .filter(|attr| attr.path().is_ident("cfg"))
                    .cloned()
                    .collect();
                (!cfgs.is_empty()).then_some((index, cfgs))
            })
        else {
            return vec![(Vec::new(), self)];
        };
        let predicates: Vec<_> = cfgs
            .iter()
            .filter_map(|cfg| cfg.meta.require_list().ok())
            .map(|list| &list.tokens)
            .collect();
        let without: Attribute = match predicates.as_slice() {
            [predicate] => syn::parse_quote!(#[cfg(not(#predicate))]),
            several => syn::parse_quote!(#[cfg(not(all(#(#several),*)))]),
        };

        let mut kept = self.clone();
        if let Some(FnArg::Typed(argument)) = kept.sig.inputs.get_mut(index) {
            argument.attrs.retain(|attr| !attr.path().is_ident("cfg"));
        }
        let mut left_out = self;
        left_out.sig.inputs = left_out
            .sig
            .inputs
            .into_iter()
            .enumerate()
            .filter(|(i, _)| *i != index)
            .map(|(_, input)| input)
            .collect();

        [(cfgs, kept), (vec![without], left_out)]
            .into_iter()
            .flat_map(|(cfgs, handler)| {
                handler.variants().into_iter().map(move |(more, handler)| {
                    (cfgs.iter().cloned().chain(more).collect(), handler)
                })
            })
            .collect()
    }
}

/// Makes `#[cfg(…)]` of every `cfg` that an argument has by way of `#[cfg_attr(…)]`. (Those of the function itself
/// are gone: the compiler looks at them first.)
fn plain_cfgs(sig: &mut Signature) {
    for input in &mut sig.inputs {
        let attrs = match input {
            FnArg::Typed(argument) => &mut argument.attrs,
            FnArg::Receiver(receiver) => &mut receiver.attrs,
        };
        *attrs = std::mem::take(attrs)
            .into_iter()
            .flat_map(plain_cfg)
            .collect();
    }
}

/// `cfg(any(not(a), b))` and `cfg_attr(a, rest)` of `cfg_attr(a, cfg(b), rest)`; any other attribute as it is.
fn plain_cfg(attr: Attribute) -> Vec<Attribute> {
    let parts = Punctuated::<Meta, Token![,]>::parse_terminated;
    let (true, Ok(list)) = (
        attr.path().is_ident("cfg_attr"),
        attr.parse_args_with(parts),
    ) else {
        return vec![attr];
    };
    let mut list = list.into_iter();
    let Some(condition) = list.next() else {
        return vec![attr];
    };
    list.flat_map(|meta| plain_cfg(parse_quote!(#[#meta])))
        .map(|attr| under(&condition, &attr))
        .collect()
}

/// An attribute where the condition holds.
fn under(condition: &Meta, attr: &Attribute) -> Attribute {
    match &attr.meta {
        Meta::List(cfg) if attr.path().is_ident("cfg") => {
            let predicate = &cfg.tokens;
            parse_quote!(#[cfg(any(not(#condition), #predicate))])
        }
        meta => parse_quote!(#[cfg_attr(#condition, #meta)]),
    }
}

/// A type without the invisible groups and parentheses around it.
pub(crate) fn plain(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => plain(&group.elem),
        Type::Paren(paren) => plain(&paren.elem),
        ty => ty,
    }
}

/// Whether a word stands anywhere in the tokens.
pub(crate) fn mentions(tokens: TokenStream, word: &str) -> Option<Ident> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) => (ident == word).then_some(ident),
        TokenTree::Group(group) => mentions(group.stream(), word),
        _ => None,
    })
}

/// The attributes of an argument.
pub(crate) fn attributes(input: &FnArg) -> &[Attribute] {
    match input {
        FnArg::Typed(argument) => &argument.attrs,
        FnArg::Receiver(receiver) => &receiver.attrs,
    }
}

/// `T` of `impl Future<Output = T>`, `Pin<Box<dyn Future<Output = T>>>`, `BoxFuture<'_, T>` and their like.
fn future_output(ty: &Type) -> Option<&Type> {
    match plain(ty) {
        whole @ Type::ImplTrait(opaque) => bound_output(opaque.bounds.iter(), whole),
        whole @ Type::TraitObject(object) => bound_output(object.bounds.iter(), whole),
        whole @ Type::Path(path) => {
            let last = path.path.segments.last()?;
            let mut types = type_arguments(&last.arguments);
            match last.ident.to_string().as_str() {
                "Pin" | "Box" => future_output(types.next()?),
                name if name.ends_with("Future") || name == "Ready" => {
                    Some(types.next().unwrap_or(whole))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// The `dyn Future` of a boxed future that does not say `Send`.
pub(crate) fn boxed_without_send(ty: &Type) -> Option<&TypeTraitObject> {
    match plain(ty) {
        Type::TraitObject(object) => {
            let named = |name| {
                let mut paths = object.bounds.iter().filter_map(bound_path);
                paths.any(|path| path.segments.last().is_some_and(|last| last.ident == name))
            };
            (named("Future") && !named("Send")).then_some(object)
        }
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            let boxes = last.ident == "Pin" || last.ident == "Box";
            let inside = type_arguments(&last.arguments).next()?;
            boxes.then(|| boxed_without_send(inside)).flatten()
        }
        _ => None,
    }
}

/// `T` of the bound `Future<Output = T>`.
fn bound_output<'a>(
    bounds: impl Iterator<Item = &'a TypeParamBound>,
    whole: &'a Type,
) -> Option<&'a Type> {
    let future = |path: &'a Path| path.segments.last().filter(|last| last.ident == "Future");
    let last = bounds.filter_map(bound_path).find_map(future)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    let output = arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::AssocType(output) if output.ident == "Output" => Some(&output.ty),
        _ => None,
    });
    // `Output: IntoResponse` names no type.
    Some(output.unwrap_or(whole))
}

fn bound_path(bound: &TypeParamBound) -> Option<&Path> {
    if let TypeParamBound::Trait(bound) = bound {
        Some(&bound.path)
    } else {
        None
    }
}

/// The types between the angle brackets.
pub(crate) fn type_arguments(arguments: &PathArguments) -> impl Iterator<Item = &Type> {
    let arguments = if let PathArguments::AngleBracketed(arguments) = arguments {
        Some(&arguments.args)
    } else {
        None
    };
    arguments.into_iter().flatten().filter_map(|argument| {
        if let GenericArgument::Type(ty) = argument {
            Some(ty)
        } else {
            None
        }
    })
}

/// A body that defines types or implements traits may name their `Self`: what is wrong there is the compiler's
/// to say.
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

/// What to say about an item of another kind, at its keyword.
fn not_a_function(input: ParseStream<'_>) -> Option<Error> {
    let words: TokenStream = input.parse().ok()?;
    let mut words = words
        .into_iter()
        .skip_while(|word| matches!(word, TokenTree::Ident(word) if word == "unsafe"));
    let Some(TokenTree::Ident(word)) = words.next() else {
        return None;
    };
    let mut what = format!("`{word}`");
    let (article, advice) = match word.to_string().as_str() {
        "impl" => ("an", "annotate the handler functions inside"),
        "trait" | "mod" => ("a", "annotate the handler functions inside"),
        "enum" => ("an", "a handler is an `async fn`"),
        "struct" | "union" | "type" => ("a", "a handler is an `async fn`"),
        "static" | "const" => ("a", "write the handler as an `async fn` instead"),
        "extern" => {
            what = match words.next() {
                Some(TokenTree::Ident(_)) => "`extern crate`".to_owned(),
                _ => "`extern` block".to_owned(),
            };
            ("an", "annotate the handler where it is defined")
        }
        "use" | "macro_rules" => ("a", "annotate the handler where it is defined"),
        _ => return None,
    };
    Some(Error::new_spanned(
        &word,
        format!("`#[idempotent]` goes on a handler function, not on {article} {what}: {advice}"),
    ))
}

/// Whether an attribute's path ends in this name, whatever it was imported through.
pub(crate) fn is_named(attr: &Attribute, name: &str) -> bool {
    attr.path()
        .segments
        .last()
        .is_some_and(|last| last.ident == name)
}

/// A type as it is written, for messages.
pub(crate) fn written(ty: &Type) -> String {
    let text = plain(ty).to_token_stream().to_string();
    text.replace(" :: ", "::")
        .replace(" < ", "<")
        .replace(" >", ">")
        .replace(" ,", ",")
        .replace("& ", "&")
}

#[cfg(test)]
mod tests {
    use proc_macro2::TokenStream;
    use quote::{ToTokens, quote};
    use syn::Signature;

    use super::{Handler, plain_cfgs};

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

    #[test]
    fn a_cfg_behind_a_cfg_attr_is_a_cfg() {
        for (written, read) in [
            (quote!(#[cfg(a)] x: X), quote!(#[cfg(a)] x: X)),
            (
                quote!(#[cfg_attr(a, cfg(b))] x: X),
                quote!(#[cfg(any(not(a), b))] x: X),
            ),
            (
                quote!(#[cfg_attr(a, allow(b), cfg(c), cfg(d))] x: X),
                quote!(#[cfg_attr(a, allow(b))] #[cfg(any(not(a), c))] #[cfg(any(not(a), d))] x: X),
            ),
            (
                quote!(#[cfg_attr(a, cfg_attr(b, cfg(c)))] x: X),
                quote!(#[cfg(any(not(a), any(not(b), c)))] x: X),
            ),
            (
                quote!(#[cfg_attr(a, doc = "b")] x: X),
                quote!(#[cfg_attr(a, doc = "b")] x: X),
            ),
        ] {
            let mut sig: Signature = syn::parse_quote!(fn handler(#written));
            plain_cfgs(&mut sig);
            assert_eq!(sig.inputs.to_token_stream().to_string(), read.to_string());
        }
    }
}
