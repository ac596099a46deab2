//! The options in the parentheses of `#[idempotent(…)]`: one table lists their names, their types and how each is
//! read.
//!
//! 1. Options are separated by commas. Each is `name`, `name = value` or `name(…)`.
//! 2. Each is read on its own. A mistake is reported at its token and leaves the other options in force.
//! 3. No option is given twice. The error for an unknown one suggests the nearest name, or lists all names.
//!
//! A new option needs a line in the table, a setter in `expand/policy.rs`, a section in `reference.md` and a golden in
//! `tests/expand`; tests fail without the last two.
//!
//! Rules about two options, or about an option and the handler, are in [`check`](crate::check).

mod fingerprint;
mod setting;
mod synonyms;
mod table;
mod values;

use proc_macro2::TokenStream;
use syn::{Expr, LitStr, Path, Type};

use crate::errors::Errors;
pub(crate) use fingerprint::{Fingerprint, FingerprintBy, IgnoreQuery};
use setting::Setting;
pub(crate) use table::Given;
use table::{Entry, read_all, table};
pub(crate) use values::{Cache, Inner, OnCrash};
use values::{
    cache, duration, engine, header, header_names, inner, name, on_crash, scope, size, statuses,
};

table! {
    /// The options that were given, without those that have a mistake.
    OPTIONS: Options {
        "ttl" => ttl: u64 = |setting| duration(setting, "24h"),
        "wait" => wait: bool = Setting::flag,
        "wait_timeout" => wait_timeout: u64 = |setting| duration(setting, "30s"),
        "lease" => lease: u64 = |setting| duration(setting, "30s"),
        "max_lifetime" => max_lifetime: u64 = |setting| duration(setting, "15m"),
        "on_crash" => on_crash: OnCrash = on_crash,
        "transaction" => transaction: bool = Setting::flag,
        "required" => required: bool = Setting::flag,
        "header" => header: String = header,
        "strict" => strict: bool = Setting::flag,
        "uuid" => uuid: bool = Setting::flag,
        "key" => key: Path = |setting| setting.parsed("the path of a function, as in `key = event_id`"),
        "when" => when: Path = |setting| setting.parsed("the path of a function, as in `when = is_payment`"),
        "name" => name: String = name,
        "caller" => caller: Type = |setting| {
            setting.parsed("the type of an extractor that says who calls, as in `caller = CurrentUser`")
        },
        "scope" => scope: Expr = scope,
        "require_caller" => require_caller: bool = Setting::flag,
        "fingerprint" => fingerprint: FingerprintBy = fingerprint::fingerprint,
        "cache" => cache: Cache = cache,
        "release" => release: Vec<u16> = statuses,
        "keep_headers" => keep_headers: Vec<LitStr> = |setting| {
            header_names(setting, "header names, as in `keep_headers(\"location\")`")
        },
        "drop_headers" => drop_headers: Vec<LitStr> = |setting| {
            header_names(setting, "header names, as in `drop_headers(\"x-served-by\")`")
        },
        "max_body" => max_body: u32 = size,
        "max_response" => max_response: u32 = size,
        "engine" => engine: Type = engine,
        "state" => state: Type = |setting| setting.parsed("the type of the router's state, as in `state = App`"),
        "inner" => inner: Inner = inner,
        "crate" => krate: Path = |setting| {
            setting.parsed("the path of the runtime, as in `crate = my_facade::idempotent_runtime`")
        },
    }
}

impl Options {
    /// Reads the attribute's arguments.
    pub(crate) fn parse(tokens: TokenStream, errors: &mut Errors) -> Self {
        read_all(OPTIONS, tokens, "option", errors)
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
