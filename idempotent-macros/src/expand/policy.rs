//! The route's policy: one constant expression, a setter for each option that was given.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::Path;

use super::spans::{ends, located};
use crate::options::{Cache, Fingerprint, Given, OnCrash, Options};

/// `Policy::new().ttl(…)`
pub(super) fn policy(options: &Options, private: &TokenStream) -> TokenStream {
    let mut policy = quote!(#private::Policy::new());
    let mut set = |setter: &str, value: Option<TokenStream>| {
        if let Some(value) = value {
            let setter = Ident::new(setter, Span::mixed_site());
            policy.extend(quote!(.#setter(#value)));
        }
    };
    let duration = |given: &Option<Given<u64>>| {
        given
            .as_ref()
            .map(|given| given.value)
            .map(|millis| quote!(#private::Duration::from_millis(#millis)))
    };
    let flag =
        |given: &Option<Given<bool>>| given.as_ref().map(|given| given.value.to_token_stream());
    let text =
        |given: &Option<Given<String>>| given.as_ref().map(|given| given.value.to_token_stream());
    let size = |given: &Option<Given<u32>>| {
        given
            .as_ref()
            .map(|given| given.value as usize)
            .map(ToTokens::into_token_stream)
    };
    set("name", text(&options.name));
    set("ttl", duration(&options.ttl));
    set("wait", flag(&options.wait));
    set("wait_timeout", duration(&options.wait_timeout));
    set("lease", duration(&options.lease));
    set("max_lifetime", duration(&options.max_lifetime));
    set(
        "on_crash",
        options
            .on_crash
            .as_ref()
            .map(|given| on_crash(&given.value, private)),
    );
    set("required", flag(&options.required));
    set("header", text(&options.header));
    set("strict", flag(&options.strict));
    set("uuid", flag(&options.uuid));
    set(
        "scope",
        options
            .scope
            .as_ref()
            .map(|given| scope(&given.value, private)),
    );
    set(
        "fingerprint",
        options
            .fingerprint
            .as_ref()
            .map(|given| fingerprint(&given.value, private)),
    );
    set(
        "cache",
        options
            .cache
            .as_ref()
            .map(|given| cache(given.value, private)),
    );
    set("max_body", size(&options.max_body));
    set("max_response", size(&options.max_response));
    policy
}

fn on_crash(on_crash: &OnCrash, private: &TokenStream) -> TokenStream {
    match on_crash {
        OnCrash::Refuse => quote!(#private::OnCrash::Refuse),
        OnCrash::Retry => quote!(#private::OnCrash::Retry),
        OnCrash::Recover(path) => {
            let (start, _) = ends(path);
            let private = located(private.clone(), start);
            quote_spanned!(start=> #private::OnCrash::Recover(|crash| #private::recovery(#path, crash)))
        }
    }
}

/// In a closure, so that a function of another type is one error, at its path.
fn scope(path: &Path, private: &TokenStream) -> TokenStream {
    let (start, _) = ends(path);
    let private = located(private.clone(), start);
    quote_spanned!(start=> |parts| #private::scope(#path, parts))
}

fn cache(cache: Cache, private: &TokenStream) -> TokenStream {
    match cache {
        Cache::All => quote!(#private::Cache::All),
        Cache::NoServerErrors => quote!(#private::Cache::NoServerErrors),
        Cache::Success => quote!(#private::Cache::Success),
    }
}

fn fingerprint(fingerprint: &Fingerprint, private: &TokenStream) -> TokenStream {
    let mut rule = quote!(#private::FingerprintRule::new());
    if let Some(headers) = &fingerprint.headers {
        let headers = &headers.value;
        rule.extend(quote!(.headers(&[#(#headers),*])));
    }
    let flags = [
        ("json", &fingerprint.json),
        ("ignore_query", &fingerprint.ignore_query),
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
