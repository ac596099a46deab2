//! Rules about several options, and about the handler. What needs types, such as whether an argument is an extractor,
//! is checked by the compiler (`idempotent-runtime/src/axum/hints.rs`).

mod arguments;
mod attributes;
mod qualifiers;
mod transaction;

use syn::{Error, ext::IdentExt};

use crate::{
    errors::Errors,
    handler::Handler,
    options::{FingerprintBy, Given, Inner, Options},
};
use arguments::{arguments, body_extractors};
pub(crate) use attributes::misplaced;
use qualifiers::qualifiers;

/// The shortest lease in milliseconds, as the runtime's `Policy::lease` takes it.
const SHORTEST_LEASE: u64 = 100;

/// Checks options against each other.
pub(crate) fn options(options: &Options, errors: &mut Errors) {
    if let (Some(wait), Some(timeout)) = (&options.wait, &options.wait_timeout)
        && !wait.value
    {
        errors.push(Error::new(
            timeout.name,
            "`wait_timeout` has no effect with `wait = false`: drop one of them",
        ));
    }
    if let (Some(_), Some(scope)) = (&options.caller, &options.scope) {
        errors.push(Error::new(
            scope.name,
            "`scope` contradicts `caller`, which says the scope as well: drop one of them",
        ));
    }
    if let Some(lease) = &options.lease
        && lease.value < SHORTEST_LEASE
    {
        let message = "`lease` is too short to be renewed in time: write at least \"100ms\"";
        errors.push(Error::new(lease.at, message));
    }
    if let (Some(lease), Some(lifetime)) = (&options.lease, &options.max_lifetime)
        && lease.value > lifetime.value
    {
        let message = "`lease` is longer than `max_lifetime`: make it shorter, since a lease is renewed many times within a lifetime";
        errors.push(Error::new(lease.at, message));
    }
    key(options, errors);
    if let (Some(_), Some(dropped)) = (&options.keep_headers, &options.drop_headers) {
        let message = "`drop_headers` and `keep_headers` contradict each other: `keep_headers` lists all that is stored, so drop one of them";
        errors.push(Error::new(dropped.name, message));
    }
    if let Some(Given {
        value: FingerprintBy::Rules(rules),
        ..
    }) = &options.fingerprint
    {
        let on = |flag: &Option<Given<bool>>| {
            flag.as_ref()
                .filter(|flag| flag.value)
                .map(|flag| flag.name)
        };
        let ignore = rules.ignore.as_ref().map(|ignore| ignore.name);
        if on(&rules.ignore_body).is_some() {
            let of_body = [
                ("json", on(&rules.json)),
                ("ignore", ignore),
                ("form", on(&rules.form)),
            ];
            for (name, at) in of_body {
                if let Some(at) = at {
                    let message =
                        format!("`{name}` has no effect with `ignore_body`: drop one of them");
                    errors.push(Error::new(at, message));
                }
            }
        }
        if let (Some(json), Some(_)) = (&rules.json, ignore)
            && !json.value
        {
            let message = "`ignore` compares bodies as JSON: drop `json = false`";
            errors.push(Error::new(json.at, message));
        }
    }
}

/// Checks `key` against the options that say how a header carries it.
fn key(options: &Options, errors: &mut Errors) {
    if options.key.is_none() {
        return;
    }
    if let Some(header) = &options.header {
        let message =
            "`header` has no effect with `key`, whose function finds the key: drop one of them";
        errors.push(Error::new(header.name, message));
    }
    if let Some(strict) = options.strict.as_ref().filter(|strict| strict.value) {
        let message =
            "`strict` has no effect with `key`: it is about the form of a key in a header";
        errors.push(Error::new(strict.name, message));
    }
}

/// Checks the handler, and the options against it. Returns whether its signature can be expanded.
pub(crate) fn handler(handler: &Handler, options: &Options, errors: &mut Errors) -> bool {
    attributes::attributes(&handler.attrs, errors);
    let mut shape = Errors::default();
    qualifiers(handler, &mut shape);
    arguments(&handler.sig, &mut shape);
    body_extractors(handler, &mut shape);
    let sound = shape.is_empty();
    errors.append(shape);
    inner(handler, options, errors);
    transaction::transaction(handler, options, errors);
    sound
}

/// Checks `inner` against the handler, and `Self` without `inner = Self::…`.
fn inner(handler: &Handler, options: &Options, errors: &mut Errors) {
    if let Some(given) = &options.inner {
        let (Inner::Beside(name) | Inner::Associated(name)) = &given.value;
        if name.unraw() == handler.sig.ident.unraw() {
            let message = format!(
                "`{name}` is the handler itself: give the plain function a name of its own"
            );
            errors.push(Error::new_spanned(name, message));
        }
        if matches!(given.value, Inner::Associated(_)) {
            return;
        }
    }
    if let Some(this) = handler.names_self.as_ref().filter(|_| !handler.is_method()) {
        let message = format!(
            "a handler that names `Self` needs `#[idempotent(inner = Self::{}_inner)]`: the plain function is then an associated function, which can name `Self`",
            handler.sig.ident
        );
        errors.push(Error::new_spanned(this, message));
    }
}
