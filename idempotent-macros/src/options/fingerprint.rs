//! The rules inside `fingerprint(…)`.

use syn::Error;

use super::{
    setting::Setting,
    table::{Entry, Given, read_all, table},
    values::header_name,
};
use crate::errors::Errors;

table! {
    /// The rules that were given.
    pub(super) FINGERPRINT: Fingerprint {
        "headers" => headers: Vec<String> = headers,
        "json" => json: bool = Setting::flag,
        "ignore_query" => ignore_query: bool = Setting::flag,
        "ignore_body" => ignore_body: bool = Setting::flag,
        "ignore_content_type" => ignore_content_type: bool = Setting::flag,
    }
}

fn headers(setting: &Setting) -> syn::Result<Vec<String>> {
    let texts = setting.texts("header names, as in `headers(\"x-currency\")`")?;
    let mut errors = Errors::default();
    let mut names = Vec::new();
    for text in texts {
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

pub(super) fn fingerprint(setting: &Setting) -> syn::Result<Fingerprint> {
    let takes = "rules in parentheses, as in `fingerprint(headers(\"x-currency\"), json)`";
    let rules = setting.list(takes)?;
    let mut errors = Errors::default();
    let rules = read_all(FINGERPRINT, rules, "fingerprint rule", &mut errors);
    errors.into_result(rules)
}
