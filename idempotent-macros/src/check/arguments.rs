//! The arguments of a handler, as far as the tokens of their types tell.

use quote::ToTokens;
use syn::{Error, FnArg, Signature, Type};

use crate::{
    errors::Errors,
    handler::{Handler, is_conditional},
    types::{opaque, plain, written},
};

/// The number of arguments that axum supports.
const MOST_ARGUMENTS: usize = 16;

/// The number of `#[cfg]` arguments that one handler may have. Each doubles the expansion.
const MOST_CFGS: usize = 4;

/// Extractors that use up the body, recognised by these names, alone or in a path that begins with one of these crates.
/// A user's own type of such a name can be written with another path, as in `self::Form`.
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

/// Types that cannot be extractors, and the number of arguments.
pub(super) fn arguments(sig: &Signature, errors: &mut Errors) {
    for (index, input) in sig.inputs.iter().enumerate() {
        match input {
            FnArg::Receiver(this) => {
                let message = "a handler cannot take `self`: take the value as `State(…)`, or annotate a function that calls the method";
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
            "a handler cannot be variadic: axum calls it with a fixed number of arguments",
        ));
    }
    let mut cfgs = sig.inputs.iter().filter(|input| is_conditional(input));
    if let Some(input) = cfgs.nth(MOST_CFGS) {
        errors.push(Error::new_spanned(
            input,
            "`#[idempotent]` supports at most 4 arguments with `#[cfg]`, although axum takes more: put some of them into one extractor",
        ));
    }
}

fn argument_type(ty: &Type, errors: &mut Errors) {
    if let Type::Reference(_) = plain(ty) {
        let message = format!(
            "a handler cannot take the reference `{}`: extractors return owned values, so take one, as in `String` or `State<Arc<T>>`",
            written(ty)
        );
        errors.push(Error::new_spanned(ty, message));
    } else if let Some(opaque) = opaque(ty.to_token_stream()) {
        let message = "a handler cannot take `impl Trait`: write the type of the extractor, or a type parameter, as in `fn handler<T: Trait>(…)`";
        errors.push(Error::new_spanned(opaque, message));
    }
}

/// Only one argument uses up the body, and it is the last.
pub(super) fn body_extractors(handler: &Handler, errors: &mut Errors) {
    // Which arguments with `#[cfg]` there are is not known here.
    if handler.sig.inputs.iter().any(is_conditional) {
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
                "{count} arguments use up the request's body, and `{name}` is not the last: keep one, or take `Bytes` and parse what each needs from it"
            )
        } else {
            format!("`{name}` uses up the request's body, so it must be the last argument")
        };
        errors.push(Error::new_spanned(ty, message));
    }
}

/// Whether a type is one of the [`BODY_EXTRACTORS`].
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
