//! The rules inside `fingerprint(…)`.

use syn::{LitStr, Path};

use super::{
    setting::Setting,
    table::{Entry, Given, read_all, table},
    values::header_names,
};
use crate::errors::Errors;

table! {
    /// The rules that were given.
    pub(super) FINGERPRINT: Fingerprint {
        "headers" => headers: Vec<LitStr> = headers,
        "json" => json: bool = Setting::flag,
        "ignore_query" => ignore_query: bool = Setting::flag,
        "ignore_body" => ignore_body: bool = Setting::flag,
        "ignore_content_type" => ignore_content_type: bool = Setting::flag,
    }
}

fn headers(setting: &Setting) -> syn::Result<Vec<LitStr>> {
    header_names(setting, "header names, as in `headers(\"x-currency\")`")
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
