//! The types of the options' values, and a reader for each.

use proc_macro2::Ident;
use syn::{Error, Expr, LitInt, LitStr, Path, Type};

use super::setting::{Choices, Setting};
use crate::{
    duration,
    errors::Errors,
    size,
    types::{plain, type_arguments},
};

/// `on_crash`.
pub(crate) enum OnCrash {
    Refuse,
    Retry,
    Recover(Path),
}

/// `cache`.
#[derive(Clone, Copy)]
pub(crate) enum Cache {
    All,
    NoServerErrors,
    Success,
}

/// `inner`.
pub(crate) enum Inner {
    /// A function beside the handler.
    Beside(Ident),
    /// An associated function of the same type: `Self::name`.
    Associated(Ident),
}

const CACHE: Choices<Cache> = &[
    ("all", Cache::All),
    ("no-server-errors", Cache::NoServerErrors),
    ("success", Cache::Success),
];

/// The words that `on_crash` takes. It also takes a path.
const ON_CRASH: Choices<fn() -> OnCrash> =
    &[("refuse", || OnCrash::Refuse), ("retry", || OnCrash::Retry)];

pub(super) fn duration(setting: &Setting, example: &str) -> syn::Result<u64> {
    let text = setting.text(&format!(
        "a duration, as in `{} = \"{example}\"`",
        setting.name
    ))?;
    duration::parse(&text.value()).map_err(|message| Error::new(text.span(), message))
}

pub(super) fn size(setting: &Setting) -> syn::Result<u32> {
    let text = setting.text(&format!("a size, as in `{} = \"1MiB\"`", setting.name))?;
    size::parse(&text.value()).map_err(|message| Error::new(text.span(), message))
}

pub(super) fn on_crash(setting: &Setting) -> syn::Result<OnCrash> {
    if setting.is_text() {
        let or = ", or a function's path without quotes, as in `on_crash = find_out`";
        return setting.choice(ON_CRASH, or).map(|word| word());
    }
    let takes = "`\"refuse\"`, `\"retry\"` or the path of a function, as in `on_crash = find_out`";
    setting.parsed(takes).map(OnCrash::Recover)
}

pub(super) fn header(setting: &Setting) -> syn::Result<String> {
    let text = setting.text("the name of a header, as in `header = \"Idempotency-Key\"`")?;
    header_name(&text)
}

pub(super) fn name(setting: &Setting) -> syn::Result<String> {
    let text = setting.text("the name of the endpoint, as in `name = \"create-payment\"`")?;
    match text.value() {
        name if name.trim().is_empty() => Err(Error::new(
            text.span(),
            "the name is empty: name the endpoint, or leave out `name`",
        )),
        name => Ok(name),
    }
}

/// A function, or an expression that makes one.
pub(super) fn scope(setting: &Setting) -> syn::Result<Expr> {
    let takes = "a function of the request's parts, as in `scope = tenant_of` or `scope = scope::header(\"x-account\")`";
    match setting.parsed(takes)? {
        Expr::Lit(_) => Err(setting.wrong(takes)),
        function => Ok(function),
    }
}

pub(super) fn cache(setting: &Setting) -> syn::Result<Cache> {
    setting.choice(CACHE, "")
}

/// `release(404, 503)`
pub(super) fn statuses(setting: &Setting) -> syn::Result<Vec<u16>> {
    let literals: Vec<LitInt> = setting.literals("statuses, as in `release(404, 503)`")?;
    let mut errors = Errors::default();
    let mut statuses = Vec::new();
    for literal in literals {
        match literal.base10_parse::<u16>() {
            Ok(status) if statuses.contains(&status) => {
                let message = format!("`{status}` is listed twice: keep one");
                errors.push(Error::new(literal.span(), message));
            }
            Ok(status) if (200..600).contains(&status) => statuses.push(status),
            Ok(status @ 100..200) => {
                let message = format!(
                    "`{status}` ends no request: write statuses from 200 to 599, as in `release(404, 503)`"
                );
                errors.push(Error::new(literal.span(), message));
            }
            _ => {
                let message = format!(
                    "`{literal}` is not a status: write statuses from 200 to 599, as in `release(404, 503)`"
                );
                errors.push(Error::new(literal.span(), message));
            }
        }
    }
    errors.into_result(statuses)
}

/// `State<…>`, under any name: only the compiler can check which type that is and what is inside.
pub(super) fn engine(setting: &Setting) -> syn::Result<Type> {
    let takes = "an extractor that finds the engine in the router's state, as in `engine = State<Idempotency>`";
    let ty: Type = setting.parsed(takes)?;
    let named = if let Type::Path(path) = plain(&ty) {
        path.path.segments.last()
    } else {
        None
    };
    match named {
        Some(last) if last.ident == "Extension" => Err(setting.wrong(&format!(
            "{takes}; for an engine in an `Extension<Idempotency>`, leave out the option"
        ))),
        Some(last) if type_arguments(&last.arguments).count() == 1 => Ok(ty),
        _ => Err(setting.wrong(takes)),
    }
}

pub(super) fn inner(setting: &Setting) -> syn::Result<Inner> {
    let takes = "a name for the plain function, as in `inner = create_payment_inner`; in an impl block `inner = Self::create_inner`";
    let path: Path = setting.parsed(takes)?;
    let mut idents = path
        .segments
        .iter()
        .map(|segment| (&segment.ident, segment.arguments.is_none()));
    match (
        path.leading_colon,
        idents.next(),
        idents.next(),
        idents.next(),
    ) {
        (None, Some((name, true)), None, None) => Ok(Inner::Beside(name.clone())),
        (None, Some((this, true)), Some((name, true)), None) if this == "Self" => {
            Ok(Inner::Associated(name.clone()))
        }
        _ => Err(setting.wrong(takes)),
    }
}

/// `name("…", "…")`: names in lower case, each once, at their places.
pub(super) fn header_names(setting: &Setting, takes: &str) -> syn::Result<Vec<LitStr>> {
    distinct(setting.literals(takes)?, header_name)
}

/// Reads each text; one that was read before is a mistake.
pub(super) fn distinct(
    texts: Vec<LitStr>,
    read: fn(&LitStr) -> syn::Result<String>,
) -> syn::Result<Vec<LitStr>> {
    let mut errors = Errors::default();
    let mut values: Vec<LitStr> = Vec::new();
    for text in texts {
        match read(&text) {
            Ok(value) if values.iter().any(|listed| listed.value() == value) => {
                let message = format!("`{value}` is listed twice: keep one");
                errors.push(Error::new(text.span(), message));
            }
            Ok(value) => values.push(LitStr::new(&value, text.span())),
            Err(error) => errors.push(error),
        }
    }
    errors.into_result(values)
}

/// A header name in lower case, as HTTP/2 sends it.
pub(super) fn header_name(text: &LitStr) -> syn::Result<String> {
    let name = text.value().to_ascii_lowercase();
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let wrong = match name.chars().find(|c| !token(*c)) {
        Some(c) => format!("a header name cannot contain {c:?}"),
        None if name.is_empty() => "the header name is empty".to_owned(),
        None => return Ok(name),
    };
    let advice = "write letters, digits and hyphens, as in `Idempotency-Key`";
    Err(Error::new(text.span(), format!("{wrong}: {advice}")))
}
