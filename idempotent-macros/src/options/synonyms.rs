//! What is meant by options that this attribute does not have, but others do, or users expect.

/// What to say about a name.
pub(super) enum Meant {
    /// It is called otherwise here.
    Option(&'static str),
    /// It is done elsewhere.
    Elsewhere(&'static str),
}

use Meant::{Elsewhere, Option as Called};

/// Names, and what they mean.
pub(super) const SYNONYMS: &[(&[&str], Meant)] = &[
    (
        &[
            "expires",
            "expire",
            "expires_in",
            "expiry",
            "expiration",
            "ttl_seconds",
            "ttl_secs",
            "retention",
            "cache_ttl",
        ],
        Called("ttl"),
    ),
    (
        &["lock", "lock_ttl", "lock_timeout", "heartbeat"],
        Called("lease"),
    ),
    (
        &["retry", "retries", "recover", "recovery"],
        Called("on_crash"),
    ),
    (
        &["mandatory", "require_key", "optional"],
        Called("required"),
    ),
    (&["header_name", "key_header"], Called("header")),
    (
        &["key_fn", "key_from", "extract_key", "key_extractor"],
        Called("key"),
    ),
    (
        &["skip", "skip_if", "only_if", "condition", "enabled"],
        Called("when"),
    ),
    (
        &["hash", "hash_body", "body_hash", "digest"],
        Called("fingerprint"),
    ),
    (
        &["endpoint", "route", "prefix", "operation"],
        Called("name"),
    ),
    (&["tenant", "namespace", "account", "user"], Called("scope")),
    (
        &["ignore_headers", "exclude_headers"],
        Called("drop_headers"),
    ),
    (
        &["include_headers", "store_headers"],
        Called("keep_headers"),
    ),
    (
        &["body_limit", "max_size", "max_body_bytes", "max_request"],
        Called("max_body"),
    ),
    (
        &["status", "statuses", "status_codes", "cache_status"],
        Called("cache"),
    ),
    (
        &["timeout", "execution_timeout", "execution_timeout_seconds"],
        Elsewhere(
            "write `wait_timeout` for how long a duplicate waits, or `lease` for how long an execution may stay \
                   silent; the time of the handler itself is for a time-out layer",
        ),
    ),
    (
        &[
            "store", "storage", "backend", "database", "db", "redis", "postgres", "url",
        ],
        Elsewhere(
            "the store belongs to the engine: `Idempotency::builder().store(…).install()?` makes one for all \
                   routes, and `engine = State<…>` takes another from the router's state",
        ),
    ),
    (
        &["method", "methods", "enabled_methods"],
        Elsewhere(
            "the attribute covers the routes of this handler; `IdempotencyLayer::methods` says which methods a \
                   layer covers",
        ),
    ),
    (
        &[
            "profile",
            "secret",
            "encrypt",
            "compress",
            "replay_header",
            "mismatch_status",
            "on_store_error",
            "problem_type",
            "problem_type_base",
            "store_timeout",
        ],
        Elsewhere("it belongs to the engine: see `Idempotency::builder()`"),
    ),
    (
        &["policy"],
        Elsewhere(
            "the options here are the route's policy; `Idempotency::builder().policy(…)` sets what routes \
                   without an option of their own get",
        ),
    ),
];

/// What is meant by this name, if it is a known one.
pub(super) fn meant(name: &str) -> Option<&'static Meant> {
    let (_, meant) = SYNONYMS.iter().find(|(names, _)| names.contains(&name))?;
    Some(meant)
}
