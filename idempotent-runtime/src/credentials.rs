//! Who calls, as far as the request's own headers tell: its credentials.
//!
//! Where no scope says who the caller is, a digest of the credentials is part of the request's identity. Another
//! caller's key then gets `caller_mismatch`: it is neither replayed nor executed again.
//!
//! Two mistakes are possible, and they are not equally bad. A cookie that names the caller and is left out leads to
//! one caller's answer for another. A cookie that changes by itself and counts leads to `caller_mismatch` for an honest
//! retry. So only names are left out that no session has.

use std::fmt;

use http::{
    HeaderMap, HeaderName,
    header::{AUTHORIZATION, COOKIE},
};

use crate::header_sketch::SketchedHeaders;

/// Which request headers say who calls, where no [scope](crate::scope) does.
///
/// 1. `Authorization`, `X-Api-Key`, `Api-Key` and `X-Auth-Token`: all of them that the request has, each with all its
///    lines. The scheme of `Authorization` is compared in any letter case (RFC 9110, section 11.1), everything else byte
///    for byte. A header without a value counts as absent.
/// 2. Only where the request has none of these, its cookies, sorted by name. Cookies that are known to change between
///    two requests of one client do not count: those of load balancers, of bot protection and of analytics, and every
///    cookie whose name contains `csrf` or `xsrf`.
///
/// The headers and the cookies can be chosen. Choose them, or better a scope, if callers differ by anything else, such
/// as a client certificate, or if all callers send the same API key and differ by their cookies.
///
/// ```
/// use http::HeaderName;
/// use idempotent_runtime::{Idempotency, scope::Credentials};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // The session cookie is the caller; `x-api-key` is the same for all browsers.
/// let credentials = Credentials::new()
///     .headers([http::header::AUTHORIZATION])
///     .only_cookies(["session"]);
/// let idempotency = Idempotency::builder().credentials(credentials).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Credentials {
    headers: Vec<HeaderName>,
    cookies: Cookies,
}

/// Which cookies count.
#[derive(Clone, Debug)]
enum Cookies {
    /// All but the known ones and these.
    AllBut(Vec<String>),
    Only(Vec<String>),
}

/// What a request's credentials are, without two different ones that are equal. A secret.
pub(crate) struct CallerId(Vec<u8>);

/// Cookies whose values change by themselves, by their full names. Sources: the vendors' pages on their cookies (AWS
/// "Sticky sessions", Google Cloud "Session affinity", Azure "Application Gateway affinity", Cloudflare "Cookies"), and
/// the Open Cookie Database (<https://github.com/jkwakman/Open-Cookie-Database>).
const CHANGING: [&str; 68] = [
    // Load balancers: the value is encrypted anew for each response, or names the server of the moment.
    "AWSALB",
    "AWSALBCORS",
    "AWSALBTG",
    "AWSALBTGCORS",
    "AWSELB",
    "AWSELBCORS",
    "GCLB",
    "GCILB",
    "ARRAffinity",
    "ARRAffinitySameSite",
    "ApplicationGatewayAffinity",
    "ApplicationGatewayAffinityCORS",
    "SERVERID",
    "INGRESSCOOKIE",
    "heroku-session-affinity",
    "__cflb",
    // Bot protection, renewed every few minutes.
    "__cf_bm",
    "__cfduid",
    "__cfruid",
    "__cfseq",
    "__cfwaitingroom",
    "_cfuvid",
    "cf_clearance",
    "cf_ob_info",
    "cf_use_ob",
    "ak_bmsc",
    "bm_mi",
    "bm_s",
    "bm_so",
    "bm_sv",
    "bm_sz",
    "_abck",
    "datadome",
    "reese84",
    "aws-waf-token",
    "_px",
    "_px2",
    "_px3",
    "_pxde",
    "_pxhd",
    "_pxvid",
    "pxcts",
    // Analytics, advertising and consent.
    "_ga",
    "_gid",
    "_gat",
    "_gali",
    "_gaexp",
    "_gaexp_rc",
    "_fbp",
    "_fbc",
    "_clck",
    "_clsk",
    "_uetsid",
    "_uetvid",
    "_ttp",
    "_scid",
    "_rdt_uuid",
    "_dd_s",
    "__hstc",
    "__hssc",
    "__hssrc",
    "hubspotutk",
    "s_cc",
    "s_sq",
    "CookieConsent",
    "OptanonConsent",
    "OptanonAlertBoxClosed",
    // A token against forged requests whose name does not say so.
    "__RequestVerificationToken",
];

/// The same, by what their names begin with.
const CHANGING_PREFIXES: [&str; 26] = [
    "AWSALBAPP-",
    "BIGipServer",
    "incap_ses_",
    "visid_incap_",
    "nlbi_",
    "cf_chl_",
    "__ddg",
    "sucuri_cloudproxy_uuid_",
    "_ga_",
    "_gat_",
    "_gac_",
    "_gcl_",
    "__utm",
    "_hj",
    "_pk_id",
    "_pk_ses",
    "_pk_ref",
    "_ym_",
    "_vwo_",
    "_vis_opt_",
    "_sp_id.",
    "_sp_ses.",
    "amplitude_id",
    "AMCV_",
    "AMCVS_",
    ".AspNetCore.Antiforgery.",
];

impl Credentials {
    /// The headers and cookies that the type's documentation lists.
    pub fn new() -> Self {
        let names = ["x-api-key", "api-key", "x-auth-token"].map(HeaderName::from_static);
        Self {
            headers: [AUTHORIZATION].into_iter().chain(names).collect(),
            cookies: Cookies::AllBut(Vec::new()),
        }
    }

    /// These headers instead of the four. Cookies count where a request has none of them.
    pub fn headers(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.headers = names.into_iter().collect();
        self
    }

    /// Of the cookies only these, in this letter case; without a name, none.
    pub fn only_cookies<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.cookies = Cookies::Only(names.into_iter().map(Into::into).collect());
        self
    }

    /// All cookies but the known ones and these, in this letter case.
    pub fn ignore_cookies<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.cookies = Cookies::AllBut(names.into_iter().map(Into::into).collect());
        self
    }

    /// The credentials of a request, if it has any.
    pub(crate) fn of(&self, headers: SketchedHeaders<'_>) -> Option<CallerId> {
        self.of_headers(headers)
            .or_else(|| self.of_cookies(headers))
    }

    fn of_headers(&self, headers: SketchedHeaders<'_>) -> Option<CallerId> {
        let mut found = None;
        for name in self.headers.iter().filter(|name| headers.may_have(name)) {
            let lines = headers.map.get_all(name);
            let lines = || {
                let values = lines.iter().map(|line| line.as_bytes().trim_ascii());
                values.filter(|value| !value.is_empty() && !is_scheme_only(value))
            };
            let count = lines().count();
            if count == 0 {
                continue;
            }
            let id = found.get_or_insert_with(|| CallerId::of_kind(b'h'));
            id.part(name.as_str().as_bytes());
            id.count(count);
            for value in lines() {
                let scheme = if name == AUTHORIZATION {
                    scheme_length(value)
                } else {
                    0
                };
                id.count(value.len());
                id.0.extend(value[..scheme].iter().map(u8::to_ascii_lowercase));
                id.0.extend_from_slice(&value[scheme..]);
            }
        }
        found
    }

    fn of_cookies(&self, headers: SketchedHeaders<'_>) -> Option<CallerId> {
        // HTTP/2 clients may send each cookie on a line of its own (RFC 9113, section 8.2.3).
        let pairs = headers
            .lines(&COOKIE)
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        let mut pairs: Vec<(&[u8], &[u8])> = pairs
            .map(|pair| split(pair.trim_ascii()))
            .filter(|(name, value)| !(name.is_empty() && value.is_empty()) && self.counts(name))
            .collect();
        if pairs.is_empty() {
            return None;
        }
        // Stable: cookies of one name, set for different paths, keep their order, which says which one applies.
        pairs.sort_by_key(|(name, _)| *name);
        let mut id = CallerId::of_kind(b'c');
        for (name, value) in pairs {
            id.part(name);
            id.part(value);
        }
        Some(id)
    }

    fn counts(&self, cookie: &[u8]) -> bool {
        let is_one_of = |names: &[String]| names.iter().any(|name| name.as_bytes() == cookie);
        match &self.cookies {
            Cookies::AllBut(names) => !changes(cookie) && !is_one_of(names),
            Cookies::Only(names) => is_one_of(names),
        }
    }
}

/// Whether this is a scheme without a token, as a client sends that has none to add: it names nobody.
fn is_scheme_only(value: &[u8]) -> bool {
    [&b"bearer"[..], b"basic", b"token"]
        .iter()
        .any(|scheme| value.eq_ignore_ascii_case(scheme))
}

/// The schemes of `Authorization` whose credentials are made anew for each request: they sign it, count it, or prove that
/// it is fresh.
const SIGNING: [&str; 14] = [
    "AWS",
    "AWS4-HMAC-SHA256",
    "AWS4-ECDSA-P256-SHA256",
    "Digest",
    "EG1-HMAC-SHA256",
    "GOOG4-HMAC-SHA256",
    "GOOG4-RSA-SHA256",
    "Hawk",
    "MAC",
    "Negotiate",
    "SharedKey",
    "SharedKeyLite",
    "Signature",
    "TC3-HMAC-SHA256",
];

/// The scheme of a request's `Authorization`, if it makes new credentials for each request.
pub(crate) fn signing_scheme(headers: &HeaderMap) -> Option<&'static str> {
    let value = headers.get(AUTHORIZATION)?.as_bytes().trim_ascii();
    let (scheme, rest) = value.split_at(scheme_length(value));
    // OAuth 1 signs; others call their tokens by the same name.
    if scheme.eq_ignore_ascii_case(b"OAuth") {
        let signature = b"oauth_signature";
        let signs = rest.windows(signature.len()).any(|part| part == signature);
        return signs.then_some("OAuth");
    }
    let mut known = SIGNING.into_iter();
    known.find(|known| scheme.eq_ignore_ascii_case(known.as_bytes()))
}

/// The length of the scheme, which ends at the first space.
fn scheme_length(authorization: &[u8]) -> usize {
    let end = authorization.iter().position(|byte| *byte == b' ');
    // Without a space it is no scheme but a token, which some clients send alone.
    end.unwrap_or(0)
}

/// A cookie's name and value.
fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()),
        None => (b"", pair),
    }
}

/// Whether a cookie of this name is known to change between two requests of one client.
fn changes(name: &[u8]) -> bool {
    let contains = |part: &[u8]| {
        name.windows(part.len())
            .any(|window| window.eq_ignore_ascii_case(part))
    };
    CHANGING.iter().any(|known| known.as_bytes() == name)
        || CHANGING_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix.as_bytes()))
        || contains(b"csrf")
        || contains(b"xsrf")
}

impl CallerId {
    fn of_kind(kind: u8) -> Self {
        Self(vec![kind])
    }

    /// Preceded by its length, so that no two lists of parts are equal bytes.
    fn part(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn count(&mut self, count: usize) {
        self.0.extend_from_slice(&(count as u64).to_be_bytes());
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Default for Credentials {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerId(…)")
    }
}

#[cfg(test)]
mod tests;
