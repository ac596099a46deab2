//! What stands between the parentheses of `#[idempotent(…)]`: one table says which options there are, what
//! each takes and where it goes.
//!
//! 1. Options are separated by commas. Each is `name`, `name = value` or `name(…)`.
//! 2. Each is read on its own: a mistake in one leaves the others in force and is reported at its token.
//! 3. No option is given twice. An unknown one is answered with the nearest name, or with all of them.
//!
//! Rules about two options, or about an option and the handler, are in [`check`](crate::check).

use proc_macro2::{Ident, Span, TokenStream};
use syn::{Error, Path, Type};

use crate::{
    duration,
    errors::Errors,
    handler::{plain, type_arguments},
    setting::{Choices, Setting, settings},
    size, suggest,
};

/// The options that were given and understood.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) ttl: Option<Given<u64>>,
    pub(crate) wait: Option<Given<bool>>,
    pub(crate) wait_timeout: Option<Given<u64>>,
    pub(crate) lease: Option<Given<u64>>,
    pub(crate) max_lifetime: Option<Given<u64>>,
    pub(crate) on_crash: Option<Given<OnCrash>>,
    pub(crate) required: Option<Given<bool>>,
    pub(crate) header: Option<Given<String>>,
    pub(crate) strict: Option<Given<bool>>,
    pub(crate) uuid: Option<Given<bool>>,
    pub(crate) name: Option<Given<String>>,
    pub(crate) scope: Option<Given<Path>>,
    pub(crate) fingerprint: Option<Given<Fingerprint>>,
    pub(crate) cache: Option<Given<Cache>>,
    pub(crate) max_body: Option<Given<u32>>,
    pub(crate) max_response: Option<Given<u32>>,
    pub(crate) engine: Option<Given<Type>>,
    pub(crate) state: Option<Given<Type>>,
    pub(crate) inner: Option<Given<Inner>>,
    pub(crate) krate: Option<Given<Path>>,
}

/// A value and where it was given.
pub(crate) struct Given<T> {
    pub(crate) value: T,
    /// The option's name.
    pub(crate) name: Span,
    /// The value, or the name where there is none.
    pub(crate) at: Span,
}

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

/// `fingerprint(…)`.
#[derive(Default)]
pub(crate) struct Fingerprint {
    pub(crate) headers: Option<Given<Vec<String>>>,
    pub(crate) json: Option<Given<bool>>,
    pub(crate) ignore_query: Option<Given<bool>>,
    pub(crate) ignore_body: Option<Given<bool>>,
    pub(crate) ignore_content_type: Option<Given<bool>>,
}

/// `inner`.
pub(crate) enum Inner {
    /// A function beside the handler.
    Beside(Ident),
    /// An associated function of the same type: `Self::name`.
    Associated(Ident),
}

/// One option: its name, what it takes, and where what was given goes.
struct Entry<O> {
    name: &'static str,
    read: fn(&mut O, &Setting) -> syn::Result<()>,
}

/// Puts what was read into its field. The table keeps duplicates away.
macro_rules! entries {
    ($($name:literal => $field:ident: $read:expr),* $(,)?) => {
        &[$(Entry {
            name: $name,
            read: |options, setting| {
                let read: fn(&Setting) -> syn::Result<_> = $read;
                options.$field = Some(Given { value: read(setting)?, name: setting.name.span(), at: setting.at() });
                Ok(())
            },
        }),*]
    };
}

/// Every option of the attribute.
const OPTIONS: &[Entry<Options>] = entries! {
    "ttl" => ttl: |setting| duration(setting, "24h"),
    "wait" => wait: Setting::flag,
    "wait_timeout" => wait_timeout: |setting| duration(setting, "30s"),
    "lease" => lease: |setting| duration(setting, "30s"),
    "max_lifetime" => max_lifetime: |setting| duration(setting, "15m"),
    "on_crash" => on_crash: on_crash,
    "required" => required: Setting::flag,
    "header" => header: header,
    "strict" => strict: Setting::flag,
    "uuid" => uuid: Setting::flag,
    "name" => name: name,
    "scope" => scope: |setting| setting.parsed("a function's path, as in `scope = tenant_of`"),
    "fingerprint" => fingerprint: fingerprint,
    "cache" => cache: |setting| setting.choice(CACHE, ""),
    "max_body" => max_body: size,
    "max_response" => max_response: size,
    "engine" => engine: engine,
    "state" => state: |setting| setting.parsed("the type of the router's state, as in `state = App`"),
    "inner" => inner: inner,
    "crate" => krate: |setting| setting.parsed("where the runtime is, as in `crate = my_facade::idempotent_runtime`"),
};

/// The rules inside `fingerprint(…)`.
const FINGERPRINT: &[Entry<Fingerprint>] = entries! {
    "headers" => headers: headers,
    "json" => json: Setting::flag,
    "ignore_query" => ignore_query: Setting::flag,
    "ignore_body" => ignore_body: Setting::flag,
    "ignore_content_type" => ignore_content_type: Setting::flag,
};

const CACHE: Choices<Cache> = &[
    ("all", Cache::All),
    ("no-server-errors", Cache::NoServerErrors),
    ("success", Cache::Success),
];

/// The words `on_crash` knows; it also takes a path.
const ON_CRASH: Choices<fn() -> OnCrash> =
    &[("refuse", || OnCrash::Refuse), ("retry", || OnCrash::Retry)];

impl Options {
    /// Reads the attribute's arguments.
    pub(crate) fn parse(tokens: TokenStream, errors: &mut Errors) -> Self {
        read_all(OPTIONS, tokens, "option", errors)
    }
}

/// Reads each setting by its entry in the table.
fn read_all<O: Default>(
    table: &[Entry<O>],
    tokens: TokenStream,
    kind: &str,
    errors: &mut Errors,
) -> O {
    let mut options = O::default();
    let mut seen = Vec::new();
    for setting in settings(tokens, errors) {
        let name = setting.name.to_string();
        let Some(entry) = table.iter().find(|entry| entry.name == name) else {
            errors.push(unknown(table, &setting, kind));
            continue;
        };
        if seen.contains(&entry.name) {
            errors.push(Error::new(
                setting.name.span(),
                format!("`{name}` is given twice: keep one"),
            ));
            continue;
        }
        seen.push(entry.name);
        errors.ok((entry.read)(&mut options, &setting));
    }
    options
}

/// What to say about a name that the table does not have.
fn unknown<O>(table: &[Entry<O>], setting: &Setting, kind: &str) -> Error {
    let name = setting.name.to_string();
    if name == "transaction" {
        let message = "`transaction` is not available: no store commits your rows and the record together. Write \
                       `Execution::downstream_key` into your transaction, under a unique index, and let \
                       `on_crash = path` look whether that row is there";
        return Error::new(setting.name.span(), message);
    }
    let names = || table.iter().map(|entry| entry.name);
    let message = match suggest::nearest(&name, names()) {
        Some(meant) => format!("unknown {kind} `{name}`: did you mean `{meant}`?"),
        None => format!(
            "unknown {kind} `{name}`: expected {}",
            suggest::one_of(names())
        ),
    };
    Error::new(setting.name.span(), message)
}

fn duration(setting: &Setting, example: &str) -> syn::Result<u64> {
    let text = setting.text(&format!(
        "a duration, as in `{} = \"{example}\"`",
        setting.name
    ))?;
    duration::parse(&text.value()).map_err(|message| Error::new(text.span(), message))
}

fn size(setting: &Setting) -> syn::Result<u32> {
    let text = setting.text(&format!("a size, as in `{} = \"1MiB\"`", setting.name))?;
    size::parse(&text.value()).map_err(|message| Error::new(text.span(), message))
}

fn on_crash(setting: &Setting) -> syn::Result<OnCrash> {
    if setting.is_text() {
        let or = ", or a function's path without quotes, as in `on_crash = find_out`";
        return setting.choice(ON_CRASH, or).map(|word| word());
    }
    let takes = "`\"refuse\"`, `\"retry\"` or the path of a function, as in `on_crash = find_out`";
    setting.parsed(takes).map(OnCrash::Recover)
}

fn header(setting: &Setting) -> syn::Result<String> {
    let text = setting.text("a header's name, as in `header = \"Idempotency-Key\"`")?;
    header_name(&text)
}

fn name(setting: &Setting) -> syn::Result<String> {
    let text = setting.text("the endpoint's name, as in `name = \"create-payment\"`")?;
    match text.value() {
        name if name.trim().is_empty() => Err(Error::new(
            text.span(),
            "an empty name: name the endpoint, or leave `name` out",
        )),
        name => Ok(name),
    }
}

fn headers(setting: &Setting) -> syn::Result<Vec<String>> {
    let mut errors = Errors::default();
    let mut names = Vec::new();
    for text in setting.texts("header names, as in `headers(\"x-currency\")`")? {
        match header_name(&text) {
            Ok(name) if names.contains(&name) => {
                errors.push(Error::new(
                    text.span(),
                    format!("`{name}` is listed twice: keep one"),
                ));
            }
            Ok(name) => names.push(name),
            Err(error) => errors.push(error),
        }
    }
    errors.into_result(names)
}

fn fingerprint(setting: &Setting) -> syn::Result<Fingerprint> {
    let takes = "rules in parentheses, as in `fingerprint(headers(\"x-currency\"), json)`";
    let mut errors = Errors::default();
    let rules = read_all(
        FINGERPRINT,
        setting.list(takes)?,
        "fingerprint rule",
        &mut errors,
    );
    errors.into_result(rules)
}

/// `State<…>`, or whatever it is called here: what it is and what is inside is the type system's to check.
fn engine(setting: &Setting) -> syn::Result<Type> {
    let takes = "where the router's state has the engine, as in `engine = State<Idempotency>`";
    let ty: Type = setting.parsed(takes)?;
    let named = if let Type::Path(path) = plain(&ty) {
        path.path.segments.last()
    } else {
        None
    };
    match named {
        Some(last) if last.ident == "Extension" => Err(setting.wrong(&format!(
            "{takes}; an `Extension<Idempotency>` is found without the option: leave it out"
        ))),
        Some(last) if type_arguments(&last.arguments).count() == 1 => Ok(ty),
        _ => Err(setting.wrong(takes)),
    }
}

fn inner(setting: &Setting) -> syn::Result<Inner> {
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

/// A header name in lower case, as HTTP/2 sends it.
fn header_name(text: &syn::LitStr) -> syn::Result<String> {
    let name = text.value().to_ascii_lowercase();
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let wrong = match name.chars().find(|c| !token(*c)) {
        Some(c) => format!("a header name cannot contain {c:?}"),
        None if name.is_empty() => "an empty header name".to_owned(),
        None => return Ok(name),
    };
    let advice = "write letters, digits and hyphens, as in `Idempotency-Key`";
    Err(Error::new(text.span(), format!("{wrong}: {advice}")))
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
