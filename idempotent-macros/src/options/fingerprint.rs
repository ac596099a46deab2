//! The rules inside `fingerprint(…)`.

use syn::{Error, LitStr, Path};

use super::{
    setting::Setting,
    table::{Entry, Given, read_all, table},
    values::{distinct, header_names},
};
use crate::errors::Errors;

table! {
    /// The rules that were given.
    pub(super) FINGERPRINT: Fingerprint {
        "headers" => headers: Vec<LitStr> = headers,
        "json" => json: bool = Setting::flag,
        "ignore" => ignore: Vec<LitStr> = ignore,
        "form" => form: bool = Setting::flag,
        "ignore_query" => ignore_query: IgnoreQuery = ignore_query,
        "ignore_body" => ignore_body: bool = Setting::flag,
        "ignore_content_type" => ignore_content_type: bool = Setting::flag,
    }
}

/// How much of the query does not count.
pub(crate) enum IgnoreQuery {
    /// `ignore_query`: all of it.
    All(bool),
    /// `ignore_query("…")`: these parameters.
    Parameters(Vec<LitStr>),
}

fn headers(setting: &Setting) -> syn::Result<Vec<LitStr>> {
    header_names(setting, "header names, as in `headers(\"x-currency\")`")
}

fn ignore(setting: &Setting) -> syn::Result<Vec<LitStr>> {
    let takes = "JSON pointers, as in `ignore(\"/meta/sent_at\")`";
    distinct(setting.literals(takes)?, pointer)
}

fn ignore_query(setting: &Setting) -> syn::Result<IgnoreQuery> {
    if !setting.is_list() {
        return setting.flag().map(IgnoreQuery::All);
    }
    let takes = "names of query parameters, as in `ignore_query(\"nonce\")`, or nothing for the whole query";
    distinct(setting.literals(takes)?, parameter).map(IgnoreQuery::Parameters)
}

/// A JSON pointer (RFC 6901) to a member or an element, as the runtime's `FingerprintRule::ignore` takes it.
fn pointer(text: &LitStr) -> syn::Result<String> {
    let pointer = text.value();
    let escaped = |after: &str| after.starts_with(['0', '1']);
    let wrong = if pointer.is_empty() {
        "the JSON pointer is empty, which is the whole body: write `ignore_body` instead".to_owned()
    } else if !pointer.starts_with('/') {
        format!("a JSON pointer begins with `/`: write `/{pointer}`")
    } else if !pointer.split('~').skip(1).all(escaped) {
        "in a JSON pointer, `~` is written `~0`, and `/` in a name `~1`".to_owned()
    } else {
        return Ok(pointer);
    };
    Err(Error::new(text.span(), wrong))
}

/// The name of a query parameter, as it is decoded.
fn parameter(text: &LitStr) -> syn::Result<String> {
    match text.value() {
        name if name.is_empty() => Err(Error::new(
            text.span(),
            "the parameter's name is empty: name it as in `?nonce=1`, or write `ignore_query` for the whole query",
        )),
        name => Ok(name),
    }
}

/// How a request is compared.
pub(crate) enum FingerprintBy {
    Rules(Fingerprint),
    Function(Path),
}

pub(super) fn fingerprint(setting: &Setting) -> syn::Result<FingerprintBy> {
    let takes = "rules in parentheses, as in `fingerprint(headers(\"x-currency\"), json)`, or the path of a function, as in `fingerprint = order_of`";
    if setting.has_value() {
        return setting.parsed(takes).map(FingerprintBy::Function);
    }
    let rules = setting.list(takes)?;
    let mut errors = Errors::default();
    let rules = read_all(FINGERPRINT, rules, "fingerprint rule", &mut errors);
    errors.into_result(FingerprintBy::Rules(rules))
}
