//! The qualifiers before `fn`, and whether a handler returns a future.

use syn::{Error, ReturnType, Safety, Signature, Type};

use crate::{
    errors::Errors,
    handler::Handler,
    types::{boxed_without_send, plain},
};

/// Types that are certainly not an alias of a future.
const RESPONSES: [&str; 5] = ["String", "Response", "StatusCode", "Redirect", "Bytes"];

/// Reports every qualifier but `async`, and a function that does not return a `Send` future.
pub(super) fn qualifiers(handler: &Handler, errors: &mut Errors) {
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
    if handler.output().is_none() {
        errors.push(Error::new_spanned(sig.fn_token, no_future(sig)));
    }
    if let (None, ReturnType::Type(_, ty)) = (sig.asyncness, &sig.output)
        && let Some(object) = boxed_without_send(ty)
    {
        let message = "the boxed future of a handler must be `Send`: write `Pin<Box<dyn Future<Output = …> + Send>>`";
        errors.push(Error::new_spanned(object, message));
    }
    if handler.is_async_trait() {
        let message = "a handler cannot be a method of an `#[async_trait]`: the trait fixes its signature; write a function that calls it";
        errors.push(Error::new_spanned(&sig.ident, message));
    }
}

/// The message for a function that is not `async` and whose return type does not look like a future.
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
            "; if `{alias}` is an alias of a future, rename it to `{alias}Future`, or write out its type"
        );
        message.push_str(&hint);
    }
    message
}
