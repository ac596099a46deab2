//! The route's policy: one constant expression with a setter for each option that was given.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::{Expr, LitStr};

use super::{
    expansion::Expansion,
    spans::{ends, located},
};
use crate::options::{Cache, Fingerprint, FingerprintBy, Given, IgnoreQuery, OnCrash};

/// `Policy::new().ttl(…)`
pub(super) fn policy(expansion: &Expansion<'_>, private: &TokenStream) -> TokenStream {
    let options = expansion.options;
    let duration = |millis: &u64| quote!(#private::Duration::from_millis(#millis));
    let size = |bytes: &u32| (*bytes as usize).into_token_stream();
    let setters = [
        setter("name", options.name.as_ref(), ToTokens::to_token_stream),
        setter("ttl", options.ttl.as_ref(), duration),
        setter("wait", options.wait.as_ref(), ToTokens::to_token_stream),
        setter("wait_timeout", options.wait_timeout.as_ref(), duration),
        setter("lease", options.lease.as_ref(), duration),
        setter("max_lifetime", options.max_lifetime.as_ref(), duration),
        setter("on_crash", options.on_crash.as_ref(), |value| {
            on_crash(value, expansion.state().is_some(), private)
        }),
        setter(
            "transaction",
            options.transaction.as_ref(),
            ToTokens::to_token_stream,
        ),
        setter(
            "required",
            options.required.as_ref(),
            ToTokens::to_token_stream,
        ),
        setter("header", options.header.as_ref(), ToTokens::to_token_stream),
        setter("strict", options.strict.as_ref(), ToTokens::to_token_stream),
        setter("uuid", options.uuid.as_ref(), ToTokens::to_token_stream),
        setter("key", options.key.as_ref(), |path| {
            called("key", path, private)
        }),
        setter("when", options.when.as_ref(), |path| {
            called("when", path, private)
        }),
        setter("scope", options.scope.as_ref(), |value| {
            scope(value, private)
        }),
        setter(
            "require_caller",
            options.require_caller.as_ref(),
            ToTokens::to_token_stream,
        ),
        setter("fingerprint", options.fingerprint.as_ref(), |rules| {
            fingerprint_by(rules, private)
        }),
        setter("keep_headers", options.keep_headers.as_ref(), |names| {
            kept_headers(names, private)
        }),
        setter(
            "drop_headers",
            options.drop_headers.as_ref(),
            |names| quote!(&[#(#names),*]),
        ),
        setter("cache", options.cache.as_ref(), |value| {
            cache(*value, private)
        }),
        setter(
            "release",
            options.release.as_ref(),
            |statuses| quote!(&[#(#statuses),*]),
        ),
        setter("max_body", options.max_body.as_ref(), size),
        setter("max_response", options.max_response.as_ref(), size),
    ];
    quote!(#private::Policy::new() #(#setters)*)
}

/// `.name(value)`, if the option was given.
fn setter<T>(
    name: &str,
    given: Option<&Given<T>>,
    value: impl FnOnce(&T) -> TokenStream,
) -> Option<TokenStream> {
    let value = value(&given?.value);
    let name = Ident::new(name, Span::mixed_site());
    Some(quote!(.#name(#value)))
}

/// With the router's state the handler asks the recovery function, see `run`.
fn on_crash(on_crash: &OnCrash, state: bool, private: &TokenStream) -> TokenStream {
    match on_crash {
        OnCrash::Refuse => quote!(#private::OnCrash::Refuse),
        OnCrash::Retry => quote!(#private::OnCrash::Retry),
        OnCrash::Recover(_) if state => quote!(#private::RECOVERED_BY_THE_HANDLER),
        OnCrash::Recover(path) => {
            let (start, _) = ends(path);
            let private = located(private.clone(), start);
            quote_spanned!(start=> #private::OnCrash::Recover(|crash| #private::recovery(#path, crash)))
        }
    }
}

/// A closure around the call, so that a function of another type is one error, at its path.
fn called(check: &str, path: &impl ToTokens, private: &TokenStream) -> TokenStream {
    let (start, _) = ends(path);
    let private = located(private.clone(), start);
    let check = Ident::new(check, start);
    quote_spanned!(start=> |parts| #private::#check(#path, parts))
}

/// A list of headers to keep. The runtime knows which ones nobody can keep: a constant of its own for each makes the
/// compiler ask, at the place of the name.
fn kept_headers(names: &[LitStr], private: &TokenStream) -> TokenStream {
    let checks = names.iter().map(|name| {
        let (at, _) = ends(name);
        let private = located(private.clone(), at);
        quote_spanned!(at=> const _: () = #private::check_kept(#name);)
    });
    quote!({ #(#checks)* &[#(#names),*] })
}

/// For a path a closure around the call, so that a function of another type is one error, at its path. Any other
/// expression is evaluated once, when the first request needs it.
fn scope(value: &Expr, private: &TokenStream) -> TokenStream {
    let (start, _) = ends(value);
    let private = located(private.clone(), start);
    if let Expr::Path(path) = value {
        return called("scope", path, &private);
    }
    quote_spanned! {start=>
        |parts| {
            static __SCOPE: #private::LazyScope =
                #private::LazyScope::new(|| #private::scope_by(#value));
            (*__SCOPE)(parts)
        }
    }
}

fn cache(cache: Cache, private: &TokenStream) -> TokenStream {
    match cache {
        Cache::All => quote!(#private::Cache::All),
        Cache::NoServerErrors => quote!(#private::Cache::NoServerErrors),
        Cache::Success => quote!(#private::Cache::Success),
    }
}

fn fingerprint_by(fingerprint: &FingerprintBy, private: &TokenStream) -> TokenStream {
    match fingerprint {
        FingerprintBy::Rules(rules) => fingerprint_rules(rules, private),
        FingerprintBy::Function(path) => {
            let (start, _) = ends(path);
            let private = located(private.clone(), start);
            quote_spanned!(start=> #private::FingerprintRule::by(|parts, body| #private::fingerprint(#path, parts, body)))
        }
    }
}

fn fingerprint_rules(fingerprint: &Fingerprint, private: &TokenStream) -> TokenStream {
    let mut rule = quote!(#private::FingerprintRule::new());
    if let Some(headers) = &fingerprint.headers {
        let headers = &headers.value;
        rule.extend(quote!(.headers(&[#(#headers),*])));
    }
    if let Some(pointers) = &fingerprint.ignore {
        let pointers = &pointers.value;
        rule.extend(quote!(.ignore(&[#(#pointers),*])));
    }
    match fingerprint.ignore_query.as_ref().map(|query| &query.value) {
        Some(IgnoreQuery::All(true)) => rule.extend(quote!(.ignore_query())),
        Some(IgnoreQuery::Parameters(names)) => {
            rule.extend(quote!(.ignore_query_parameters(&[#(#names),*])));
        }
        Some(IgnoreQuery::All(false)) | None => {}
    }
    let flags = [
        ("json", &fingerprint.json),
        ("form", &fingerprint.form),
        ("ignore_body", &fingerprint.ignore_body),
        ("ignore_content_type", &fingerprint.ignore_content_type),
    ];
    for (name, _) in flags
        .into_iter()
        .filter(|(_, flag)| flag.as_ref().is_some_and(|flag| flag.value))
    {
        let setter = Ident::new(name, Span::mixed_site());
        rule.extend(quote!(.#setter()));
    }
    rule
}
