//! Rules that need more than one option, or the handler. What only the type system knows, such as whether an
//! argument is an extractor, is the compiler's to say.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Error, FnArg, Meta, ReturnType, Safety, Signature, Type, ext::IdentExt};

use crate::{
    errors::Errors,
    handler::{Handler, attributes, boxed_without_send, is_named, plain, written},
    options::{Inner, Options},
};

/// As many as axum takes.
const MOST_ARGUMENTS: usize = 16;

/// As many `#[cfg]` arguments as one handler may have: each doubles the expansion.
const MOST_CFGS: usize = 4;

/// Extractors that use up the body. Only by these names or under these crates: a type of the user's own that
/// happens to be called so can be written with a path, as in `self::Form`.
const BODY_EXTRACTORS: [&str; 8] = [
    "Json",
    "Form",
    "Bytes",
    "String",
    "Multipart",
    "RawForm",
    "Request",
    "Body",
];
const CRATES: [&str; 6] = ["axum", "axum_extra", "axum_core", "bytes", "std", "http"];

/// Types that are certainly no alias of a future.
const RESPONSES: [&str; 5] = ["String", "Response", "StatusCode", "Redirect", "Bytes"];

/// Options against options.
pub(crate) fn options(options: &Options, errors: &mut Errors) {
    if let (Some(wait), Some(timeout)) = (&options.wait, &options.wait_timeout)
        && !wait.value
    {
        errors.push(Error::new(
            timeout.name,
            "`wait_timeout` has no effect with `wait = false`: drop one of them",
        ));
    }
    if let (Some(lease), Some(lifetime)) = (&options.lease, &options.max_lifetime)
        && lease.value > lifetime.value
    {
        let message = "`lease` is longer than `max_lifetime`: a lease is renewed many times in a lifetime, so make it shorter";
        errors.push(Error::new(lease.at, message));
    }
    if let Some(fingerprint) = &options.fingerprint {
        let on = |flag: &Option<crate::options::Given<bool>>| {
            flag.as_ref()
                .filter(|flag| flag.value)
                .map(|flag| flag.name)
        };
        let rules = &fingerprint.value;
        if let (Some(json), Some(_)) = (on(&rules.json), on(&rules.ignore_body)) {
            errors.push(Error::new(
                json,
                "`json` has no effect with `ignore_body`: drop one of them",
            ));
        }
    }
}

/// The handler, and options against the handler. Says whether its shape can be expanded.
pub(crate) fn handler(handler: &Handler, options: &Options, errors: &mut Errors) -> bool {
    attributes_around(&handler.attrs, errors);
    let mut shape = Errors::default();
    qualifiers(handler, &mut shape);
    arguments(&handler.sig, &mut shape);
    body_extractors(handler, &mut shape);
    let sound = shape.is_empty();
    errors.append(shape);
    inner(handler, options, errors);
    sound
}

/// Attributes that stand below ours.
fn attributes_around(attrs: &[Attribute], errors: &mut Errors) {
    for attr in attrs {
        if let Some(message) = misplaced(attr) {
            errors.push(Error::new_spanned(attr, message));
        }
    }
}

/// Why an attribute cannot stand below ours.
pub(crate) fn misplaced(attr: &Attribute) -> Option<&'static str> {
    if is_named(attr, "idempotent") {
        Some("`#[idempotent]` is given twice: keep one")
    } else if is_utoipa(attr) {
        Some(
            "`#[utoipa::path]` belongs above `#[idempotent]`: it reads the handler's own arguments and puts an item beside it",
        )
    } else {
        None
    }
}

/// `async`, and no other qualifier.
fn qualifiers(handler: &Handler, errors: &mut Errors) {
    let sig = &handler.sig;
    if let Some(word) = sig.constness {
        errors.push(Error::new_spanned(
            word,
            "a handler cannot be `const`: it runs when a request arrives",
        ));
    }
    if let Safety::Unsafe(word) = sig.safety {
        errors.push(Error::new_spanned(
            word,
            "a handler cannot be `unsafe`: axum calls it as safe code",
        ));
    }
    if let Some(abi) = &sig.abi {
        errors.push(Error::new_spanned(
            abi,
            "a handler cannot be `extern`: axum calls it as a Rust function",
        ));
    }
    if handler.answer().is_none() {
        errors.push(Error::new_spanned(sig.fn_token, no_future(sig)));
    }
    if let (None, ReturnType::Type(_, ty)) = (sig.asyncness, &sig.output)
        && let Some(object) = boxed_without_send(ty)
    {
        let message = "a boxed handler's future must be `Send`: write `Pin<Box<dyn Future<Output = …> + Send>>`";
        errors.push(Error::new_spanned(object, message));
    }
    if handler.is_async_trait() {
        let message = "a handler cannot be a method of an `#[async_trait]`: the trait fixes its signature; write a function that calls it";
        errors.push(Error::new_spanned(&sig.ident, message));
    }
}

/// What to say of a function that is not `async` and returns nothing that looks like a future.
fn no_future(sig: &Signature) -> String {
    let name = &sig.ident;
    let mut message =
        format!("`{name}` is neither `async` nor returns a future: write `async fn {name}`");
    if let ReturnType::Type(_, ty) = &sig.output
        && let Type::Path(path) = plain(ty)
        && let Some(alias) = path.path.get_ident()
        && alias.to_string().starts_with(char::is_uppercase)
        && !RESPONSES.iter().any(|response| alias == response)
    {
        let hint = format!(
            "; if `{alias}` is an alias of a future, rename it to `{alias}Future`, or write its type out"
        );
        message.push_str(&hint);
    }
    message
}

/// Arguments that no extractor can be, and too many of them.
fn arguments(sig: &Signature, errors: &mut Errors) {
    for (index, input) in sig.inputs.iter().enumerate() {
        match input {
            FnArg::Receiver(this) => {
                let message = "a handler takes no `self`: take the value as `State(…)`, or annotate a function that calls the method";
                errors.push(Error::new_spanned(this, message));
            }
            FnArg::Typed(argument) if index == MOST_ARGUMENTS => {
                let message = "axum handlers take at most 16 arguments: put several extractors into a tuple, or into one type that derives `FromRequestParts`";
                errors.push(Error::new_spanned(argument, message));
            }
            FnArg::Typed(argument) => argument_type(&argument.ty, errors),
        }
    }
    if let Some(variadic) = &sig.variadic {
        errors.push(Error::new_spanned(
            variadic,
            "a handler takes a fixed number of arguments",
        ));
    }
    let mut cfgs = sig.inputs.iter().filter(|input| {
        attributes(input)
            .iter()
            .any(|attr| attr.path().is_ident("cfg"))
    });
    if let Some(input) = cfgs.nth(MOST_CFGS) {
        errors.push(Error::new_spanned(
            input,
            "`#[idempotent]` takes at most 4 arguments with `#[cfg]`, though axum takes more: put some into one extractor",
        ));
    }
}

fn argument_type(ty: &Type, errors: &mut Errors) {
    if let Type::Reference(_) = plain(ty) {
        let message = format!(
            "`{}` borrows from nobody: a handler owns what its extractors give it, as in `String` or `State<Arc<T>>`",
            written(ty)
        );
        errors.push(Error::new_spanned(ty, message));
    } else if let Some(opaque) = opaque(ty.to_token_stream()) {
        let message = "an argument of a handler has a nameable type: write the extractor, or a type parameter `fn handler<T: Trait>(…)`";
        errors.push(Error::new_spanned(opaque, message));
    }
}

/// The first `impl …` in a type.
fn opaque(tokens: TokenStream) -> Option<TokenStream> {
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(word) if word == "impl" => {
                let (mut depth, mut before) = (0_usize, ' ');
                let inside = tokens.take_while(|token| {
                    let punct = match token {
                        TokenTree::Punct(punct) => punct.as_char(),
                        _ => ' ',
                    };
                    let arrow = std::mem::replace(&mut before, punct) == '-';
                    match punct {
                        ',' | ';' | '>' if depth == 0 && !arrow => return false,
                        '<' => depth += 1,
                        '>' if !arrow => depth -= 1,
                        _ => {}
                    }
                    true
                });
                return Some(std::iter::once(word.into()).chain(inside).collect());
            }
            TokenTree::Group(group) => {
                let found = opaque(group.stream());
                if found.is_some() {
                    return found;
                }
            }
            _ => {}
        }
    }
    None
}

/// Only one argument uses up the body, and it is the last.
fn body_extractors(handler: &Handler, errors: &mut Errors) {
    // Of arguments with `#[cfg]` nobody here knows which there are.
    let conditional = |input: &FnArg| {
        attributes(input)
            .iter()
            .any(|attr| attr.path().is_ident("cfg"))
    };
    if handler.sig.inputs.iter().any(conditional) {
        return;
    }
    let mut arguments: Vec<_> = handler.arguments().collect();
    let last = arguments.pop().is_some_and(takes_body);
    arguments.retain(|ty| takes_body(ty));
    let count = match arguments.len() + usize::from(last) {
        2 => "two".to_owned(),
        3 => "three".to_owned(),
        many => many.to_string(),
    };
    for ty in arguments {
        let name = written(ty);
        let message = if last {
            format!(
                "{count} arguments use up the request's body, and `{name}` is not the last: keep one, or take `Bytes` and read from it what each needs"
            )
        } else {
            format!("`{name}` uses up the request's body, so it must be the last argument")
        };
        errors.push(Error::new_spanned(ty, message));
    }
}

/// Whether a type is one of the known extractors that use up the body.
fn takes_body(ty: &Type) -> bool {
    let Type::Path(path) = plain(ty) else {
        return false;
    };
    let mut segments = path.path.segments.iter();
    let (Some(last), first) = (segments.next_back(), segments.next()) else {
        return false;
    };
    let known = first.is_none_or(|first| CRATES.iter().any(|name| first.ident == name));
    path.qself.is_none() && known && BODY_EXTRACTORS.iter().any(|name| last.ident == name)
}

/// `inner` against the handler, and `Self` without `inner = Self::…`.
fn inner(handler: &Handler, options: &Options, errors: &mut Errors) {
    if let Some(given) = &options.inner {
        let (Inner::Beside(name) | Inner::Associated(name)) = &given.value;
        if name.unraw() == handler.sig.ident.unraw() {
            let message = format!(
                "`{name}` is the handler itself: give the plain function a name of its own"
            );
            errors.push(Error::new_spanned(name, message));
        }
        if matches!(given.value, Inner::Associated(_)) {
            return;
        }
    }
    if let Some(this) = handler.names_self.as_ref().filter(|_| !handler.is_method()) {
        let message = format!(
            "a handler that names `Self` needs `#[idempotent(inner = Self::{}_inner)]`: the plain function then stands beside it",
            handler.sig.ident
        );
        errors.push(Error::new_spanned(this, message));
    }
}

/// `utoipa::path`, or the same imported as `path`: then only if it says an HTTP method first, as utoipa's does, since
/// others have attributes of that name, too.
fn is_utoipa(attr: &Attribute) -> bool {
    const METHODS: [&str; 8] = [
        "get", "post", "put", "delete", "head", "options", "patch", "trace",
    ];
    let mut segments = attr.path().segments.iter().rev();
    if segments.next().is_none_or(|last| last.ident != "path") {
        return false;
    }
    let Some(before) = segments.next() else {
        let Meta::List(list) = &attr.meta else {
            return false;
        };
        let first = list.tokens.clone().into_iter().next();
        let first = first.map(|token| token.to_string());
        return first.is_some_and(|first| first == "method" || METHODS.contains(&first.as_str()));
    };
    before.ident == "utoipa"
}

#[cfg(test)]
mod tests {
    use quote::quote;
    use syn::{Attribute, Type, parse_quote};

    use super::{boxed_without_send, misplaced, opaque};

    #[test]
    fn points_at_the_opaque_type_alone() {
        for (ty, found) in [
            (quote!(impl A), Some(quote!(impl A))),
            (
                quote!(Json<impl A<B, C> + D>),
                Some(quote!(impl A<B, C> + D)),
            ),
            (
                quote!(A<impl Fn(B) -> C<D>, E>),
                Some(quote!(impl Fn(B) -> C<D>)),
            ),
            (quote!((A, [impl B; 2])), Some(quote!(impl B))),
            (quote!(Json<implied::A>), None),
        ] {
            let opaque = opaque(ty).map(|found| found.to_string());
            assert_eq!(opaque, found.map(|found| found.to_string()));
        }
    }

    #[test]
    fn a_boxed_future_says_that_it_is_sendable() {
        let lacks_send: [Type; 3] = [
            parse_quote!(Pin<Box<dyn Future<Output = A>>>),
            parse_quote!(std::pin::Pin<Box<(dyn Future<Output = A> + 'static)>>),
            parse_quote!(Box<dyn core::future::Future<Output = A> + Unpin>),
        ];
        for ty in &lacks_send {
            assert!(boxed_without_send(ty).is_some());
        }
        let sound: [Type; 4] = [
            parse_quote!(Pin<Box<dyn Future<Output = A> + Send>>),
            parse_quote!(Pin<Box<dyn Future<Output = Box<dyn B>> + std::marker::Send + 'static>>),
            parse_quote!(BoxFuture<'static, Box<dyn Future<Output = A>>>),
            parse_quote!(impl Future<Output = A>),
        ];
        for ty in &sound {
            assert!(boxed_without_send(ty).is_none());
        }
    }

    #[test]
    fn knows_utoipas_path_from_others() {
        let utoipas: [Attribute; 5] = [
            parse_quote!(#[utoipa::path(post, path = "/")]),
            parse_quote!(#[::utoipa::path(responses())]),
            parse_quote!(#[path(get, path = "/")]),
            parse_quote!(#[path(method(get, head), path = "/")]),
            parse_quote!(#[path(post)]),
        ];
        for attr in &utoipas {
            assert!(misplaced(attr).is_some_and(|message| message.contains("belongs above")));
        }
        let others: [Attribute; 5] = [
            parse_quote!(#[path = "handlers.rs"]),
            parse_quote!(#[path]),
            parse_quote!(#[path("/orders")]),
            parse_quote!(#[path(name = "orders")]),
            parse_quote!(#[rocket::path(get)]),
        ];
        for attr in &others {
            assert!(misplaced(attr).is_none());
        }
    }
}
