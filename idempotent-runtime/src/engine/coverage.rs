//! Whether the engine handles a request, and where its key comes from.
//!
//! The functions of a route, `when` and `key`, are called here, by the adapter and before the engine: a request that they
//! leave out reaches the handler as if the engine were absent. A panic of theirs is answered by the engine.

use std::mem;

use http::{Request, request::Parts};

use crate::{
    catch_unwind::{Panicked, catch_unwind},
    execution::Execution,
    key::{IdempotencyKey, KeyError, KeyRules},
    policy::{KeySource, Policy},
    route::Routing,
};

/// What an engine has to do with a request.
pub(crate) enum Coverage {
    /// Nothing: the handler runs as if the engine were absent.
    Unprotected,
    /// Nothing: an execution around the request, of a layer or a handler, has claimed its key already.
    Claimed,
    /// It handles the request.
    Protected(FoundKey),
}

/// Where the key of a request is.
pub(crate) enum FoundKey {
    /// Nowhere, and the route requires one.
    Missing,
    /// In the route's header.
    InHeader,
    /// The route's function returned it.
    ByFunction(Result<IdempotencyKey, KeyError>),
    /// One of the route's functions panicked.
    Panicked,
}

/// What an engine with these defaults has to do with a request to a route with this policy.
pub(crate) fn coverage<B>(
    route: &Policy,
    engine: &Policy,
    request: &mut Request<B>,
    routing: &Routing,
) -> Coverage {
    if let Some(when) = route.when.or(engine.when) {
        match with_parts(request, when) {
            Ok(true) => {}
            Ok(false) => return Coverage::Unprotected,
            Err(Panicked) => return Coverage::Protected(FoundKey::Panicked),
        }
    }
    let source = route.key_source(engine);
    let found = match source {
        KeySource::Header(header) if header.is_in(request.headers()) => Some(FoundKey::InHeader),
        KeySource::Header(_) => None,
        KeySource::Function(find) => match with_parts(request, find) {
            Ok(found) => found.map(FoundKey::ByFunction),
            Err(Panicked) => Some(FoundKey::Panicked),
        },
    };
    if is_claimed(source, found.as_ref(), request, routing) {
        return Coverage::Claimed;
    }
    let required = route.required.or(engine.required).unwrap_or(false);
    match found {
        Some(found) => Coverage::Protected(found),
        None if required => Coverage::Protected(FoundKey::Missing),
        None => Coverage::Unprotected,
    }
}

/// Whether an execution around this request serves it: it has the same key, or none of its own.
fn is_claimed<B>(
    source: KeySource<'_>,
    found: Option<&FoundKey>,
    request: &Request<B>,
    routing: &Routing,
) -> bool {
    // Not `Execution::from_extensions`: this look is not the handler's.
    let Some(execution) = request.extensions().get::<Execution>() else {
        return false;
    };
    let serves = |key: Option<&IdempotencyKey>| execution.serves(request, routing, key);
    match (found, source) {
        (None, _) => serves(None),
        // The engine outside may read the header in the other way.
        (Some(FoundKey::InHeader), KeySource::Header(header)) => {
            [false, true].iter().any(|&opaque| {
                let rules = KeyRules {
                    opaque,
                    ..KeyRules::default()
                };
                let key = IdempotencyKey::parse(header.lines(request.headers()).iter(), rules);
                key.is_ok_and(|key| serves(Some(&key)))
            })
        }
        (Some(FoundKey::ByFunction(Ok(key))), _) => serves(Some(key)),
        _ => false,
    }
}

/// Calls a function of the request's parts, which stay in the request.
fn with_parts<B, T>(
    request: &mut Request<B>,
    call: impl FnOnce(&Parts) -> T,
) -> Result<T, Panicked> {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.version = request.version();
    swap(request, &mut parts);
    let called = catch_unwind(|| call(&parts));
    swap(request, &mut parts);
    called
}

fn swap<B>(request: &mut Request<B>, parts: &mut Parts) {
    mem::swap(request.method_mut(), &mut parts.method);
    mem::swap(request.uri_mut(), &mut parts.uri);
    mem::swap(request.headers_mut(), &mut parts.headers);
    mem::swap(request.extensions_mut(), &mut parts.extensions);
}
