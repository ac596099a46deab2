//! Questions to a type that its tokens can answer.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{GenericArgument, Path, PathArguments, Type, TypeParamBound, TypeTraitObject};

/// A type without the invisible groups and parentheses around it.
pub(crate) fn plain(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => plain(&group.elem),
        Type::Paren(paren) => plain(&paren.elem),
        ty => ty,
    }
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

/// `T` of `impl Future<Output = T>`, `Pin<Box<dyn Future<Output = T>>>`, `BoxFuture<'_, T>` and the like.
pub(crate) fn future_output(ty: &Type) -> Option<&Type> {
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

/// The `dyn Future` of a boxed future without the bound `Send`.
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
    // `Future<Output: IntoResponse>` does not name the type.
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

/// The first `impl …` in a type.
pub(crate) fn opaque(tokens: TokenStream) -> Option<TokenStream> {
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

#[cfg(test)]
mod tests {
    use quote::quote;
    use syn::{Type, parse_quote};

    use super::{boxed_without_send, opaque};

    #[test]
    fn finds_the_opaque_type_alone() {
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
    fn finds_a_boxed_future_without_send() {
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
}
