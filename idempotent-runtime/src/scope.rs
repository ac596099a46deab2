//! Whose key it is: the caller's namespace, and the record's identity made from it.
//!
//! A key is unique within its *scope*: the endpoint (method and route template without the names of its parameters,
//! or the policy's name) plus the caller. The same key on another route or by another caller is another key.
//!
//! 1. Only the application knows its callers. Its [`Caller`] finds and authenticates them before anything else:
//!    `#[idempotent(caller = …)]`, or [`Builder::caller`](crate::Builder::caller) with [`extractor`]. Or a scope function
//!    takes the request's parts, after the authentication layer saw them, and returns a [`Scope`]: [`extension`] reads
//!    what that layer inserted, [`header`] reads a header, and any other function of the parts will do.
//! 2. `None` means that nobody was found. It fails safe: the request's [`Credentials`] count then, as where no scope is
//!    set, and another caller's key is neither replayed nor executed. The keys of nobody are a namespace of their own,
//!    which differs from every `Some`, even from an empty one.
//! 3. Endpoint, scope and key become one [`StoreKey`], the only identity that stores, logs and metrics see:
//!    HMAC-SHA256 when a secret is set, else SHA-256.
//!
//! # Caveats
//!
//! * A scope authenticates nobody, and a client can send any header. Scope by a header only if something in front of the
//!   service replaces what clients send in it, and refuses strangers. See [whose key it is](crate::guide::callers).
//! * Without a secret, anyone who can read the store can test guesses at a key: random keys (UUIDs) cannot be
//!   guessed, `order-42` can. Set a secret if clients choose such keys.
//! * Another secret gives other store keys. Changing it at once orphans the stored records: a retry after the change
//!   executes again. [Rotate it](crate::guide::secrets) instead.

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit};
use http::{HeaderName, header::HOST, request::Parts};
use sha2::Sha256;

use crate::{
    credentials::CallerId,
    digest::{Framed, debug_secret},
    endpoint,
    hex::Hex,
    key::IdempotencyKey,
};

#[cfg(feature = "axum")]
pub use crate::axum::extractor;
pub use crate::{caller::Caller, credentials::Credentials};

/// A caller's namespace for keys, such as a tenant or account id. Any bytes; longer ones cost only hashing.
///
/// `Debug` shows a short digest, because scopes are made of account numbers and credentials.
#[derive(Clone)]
pub struct Scope(Box<[u8]>);

/// The identity of a record: a digest of version, endpoint, scope and key.
///
/// `Debug` and `Display` show the first eight bytes in hexadecimal, enough to find a request in a log. Stores use all
/// 32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKey([u8; 32]);

/// Returns the caller's scope.
#[derive(Clone)]
pub(crate) enum ScopeFn {
    Static(fn(&Parts) -> Option<Scope>),
    Shared(Arc<SharedScopeFn>),
}

type SharedScopeFn = dyn Fn(&Parts) -> Option<Scope> + Send + Sync;

/// Computes the digests that are keyed if a secret is set.
#[derive(Clone)]
pub(crate) struct Digester {
    /// Prepared once: to hash the secret again would cost each request two more blocks.
    keyed: Option<Hmac<Sha256>>,
}

/// Scopes keys by a request header; several lines of it count together, in their order.
///
/// A request without the header has no caller. A request over HTTP/2 has the authority of its target for `host`.
///
/// **A header authenticates nobody.** A client can send any value, and gets the stored answers of the caller whose name
/// it sends. Use it only where something in front of the service, such as a gateway, replaces what clients send, and
/// refuses whoever is not authenticated, replays included.
///
/// # Panics
///
/// If it is not the name of a header.
pub fn header<N>(name: N) -> impl Fn(&Parts) -> Option<Scope> + Send + Sync + 'static
where
    N: TryInto<HeaderName, Error: fmt::Display>,
{
    let name: HeaderName = match name.try_into() {
        Ok(name) => name,
        Err(error) => panic!("`scope::header` takes the name of a header: {error}"),
    };
    move |parts| of_lines(parts, &name)
}

/// The scope that all lines of a header are together.
pub(crate) fn of_lines(head: &Parts, name: &HeaderName) -> Option<Scope> {
    // Over HTTP/2 the authority of the target stands for it (RFC 9113, section 8.3.1).
    if *name == HOST && !head.headers.contains_key(name) {
        let authority = head.uri.authority();
        return authority.map(|authority| Scope::new(authority.as_str()));
    }
    let lines = head.headers.get_all(name);
    // A header without a value names nobody.
    if lines
        .iter()
        .all(|line| line.as_bytes().trim_ascii().is_empty())
    {
        return None;
    }
    let mut lines = lines.iter();
    let mut scope = lines.next()?.as_bytes().to_vec();
    for line in lines {
        // A line feed cannot occur in a header value, so two lines never look like one.
        scope.push(b'\n');
        scope.extend_from_slice(line.as_bytes());
    }
    Some(Scope::new(scope))
}

/// Scopes keys by a request extension, as an authentication layer inserts it.
///
/// A request without the extension has no caller. So has every request if the authentication layer is inside of an
/// [`IdempotencyLayer`](crate::IdempotencyLayer); the log says so once for each route.
///
/// For a type that cannot implement [`Caller`], write the function:
/// `|parts: &Parts| Some(Scope::new(&parts.extensions.get::<Claims>()?.subject))`.
pub fn extension<T: Caller + Send + Sync + 'static>()
-> impl Fn(&Parts) -> Option<Scope> + Send + Sync + 'static {
    |parts| parts.extensions.get::<T>().map(T::scope)
}

impl Scope {
    /// A namespace of this name. Different bytes are different namespaces; nothing is folded or trimmed.
    #[must_use]
    pub fn new(name: impl AsRef<[u8]>) -> Self {
        Self(name.as_ref().into())
    }

    /// Several namespaces as one: each counts, and their order.
    pub(crate) fn of_several<const N: usize>(scopes: [Self; N]) -> Self {
        let mut all = vec![];
        for Self(name) in scopes {
            all.extend_from_slice(&(name.len() as u64).to_be_bytes());
            all.extend_from_slice(&name);
        }
        Self(all.into())
    }

    /// The namespace of this account within another one, or within that of nobody.
    pub(crate) fn of_account(within: Option<Self>, account: Self) -> Self {
        let known = Self::new([u8::from(within.is_some())]);
        let within = within.unwrap_or_else(|| Self::new([]));
        Self::of_several([known, within, account])
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl ScopeFn {
    pub(crate) fn shared(scope: impl Fn(&Parts) -> Option<Scope> + Send + Sync + 'static) -> Self {
        Self::Shared(Arc::new(scope))
    }

    pub(crate) fn of(&self, head: &Parts) -> Option<Scope> {
        match self {
            Self::Static(scope) => scope(head),
            Self::Shared(scope) => scope(head),
        }
    }
}

impl StoreKey {
    /// A store key as a store kept it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to keep.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Digester {
    /// Digests keyed with `secret`, of any length, or plain ones.
    pub(crate) fn new(secret: Option<&[u8]>) -> Self {
        // An HMAC key may have any length: longer ones are hashed, shorter ones padded (RFC 2104).
        let keyed = secret
            .map(|secret| Hmac::new_from_slice(secret).expect("HMAC takes a key of any length"));
        Self { keyed }
    }

    /// Whether both make the same digests, as those of two secrets do of which one ends with more zero bytes (RFC 2104).
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        let probe = StoreKey([0; 32]);
        self.downstream_key(probe, "") == other.downstream_key(probe, "")
    }

    /// The record's identity.
    pub(crate) fn store_key(
        &self,
        endpoint: &str,
        scope: Option<&Scope>,
        key: &IdempotencyKey,
    ) -> StoreKey {
        Self::store_key_at(self.endpoint(endpoint), scope, key)
    }

    /// What the identities of all records of one endpoint begin with.
    pub(crate) fn endpoint(&self, endpoint: &str) -> Framed {
        let mut parts = self.framed("idempotent/store-key/v2");
        endpoint::write(&mut parts, endpoint);
        parts
    }

    /// The record's identity, at the endpoint that [began](Self::endpoint) it.
    pub(crate) fn store_key_at(
        mut endpoint: Framed,
        scope: Option<&Scope>,
        key: &IdempotencyKey,
    ) -> StoreKey {
        endpoint.optional(scope.map(|scope| &*scope.0));
        endpoint.part(key.as_bytes());
        StoreKey(endpoint.finish())
    }

    /// A key to pass on to the next service, whose name or purpose is `label`.
    ///
    /// It has the form of a UUID of version 8 (RFC 9562): 36 characters that every provider's key rules
    /// accept, with 122 bits of digest in them. It depends on the record and the label only, so every
    /// attempt sends the same one, and it reveals nothing about the client's key.
    pub(crate) fn downstream_key(&self, key: StoreKey, label: &str) -> String {
        self.downstream("idempotent/downstream-key/v1", key, label)
    }

    /// The same for the service that a step calls, whatever labels the handler uses beside it.
    pub(crate) fn step_key(&self, key: StoreKey, step: &str) -> String {
        self.downstream("idempotent/step-key/v1", key, step)
    }

    /// The same for a message that the handler puts into the outbox, by its number among them.
    #[cfg(feature = "sql")]
    pub(crate) fn message_id(&self, key: StoreKey, number: u32) -> String {
        self.downstream("idempotent/message-id/v1", key, &number.to_string())
    }

    fn downstream(&self, domain: &str, key: StoreKey, label: &str) -> String {
        let digest = self.digest(domain, |parts| {
            parts.part(&key.0);
            parts.part(label.as_bytes());
        });
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        id[6] = id[6] & 0x0f | 0x80;
        id[8] = id[8] & 0x3f | 0x80;
        let [time, mid, version, variant, node] =
            [&id[..4], &id[4..6], &id[6..8], &id[8..10], &id[10..]].map(Hex);
        format!("{time}-{mid}-{version}-{variant}-{node}")
    }

    /// The caller's part of the fingerprint if no scope says who calls.
    ///
    /// A fingerprint is stored, and credentials can be guessed: this digest is keyed if a secret is set. It is another
    /// one for each record, so that what is stored does not show which records are of one caller.
    pub(crate) fn caller(&self, key: &StoreKey, credentials: &CallerId) -> [u8; 32] {
        self.digest("idempotent/caller/v2", |parts| {
            parts.part(&key.0);
            parts.part(credentials.as_bytes());
        })
    }

    fn digest(&self, domain: &str, write: impl FnOnce(&mut Framed)) -> [u8; 32] {
        let mut framed = self.framed(domain);
        write(&mut framed);
        framed.finish()
    }

    fn framed(&self, domain: &str) -> Framed {
        match &self.keyed {
            Some(keyed) => Framed::hmac(keyed.clone(), domain),
            None => Framed::sha256(domain),
        }
    }
}

impl fmt::Debug for ScopeFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeFn(_)")
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug_secret(f, "Scope", &self.0)
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0[..8]).fmt(f)
    }
}

impl fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreKey({self}…)")
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digester")
            .field("keyed", &self.keyed.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::Request;

    use super::*;
    use crate::header_sketch::SketchedHeaders;

    fn key(text: &str) -> IdempotencyKey {
        IdempotencyKey::new(text).unwrap()
    }

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn hex(bytes: &[u8]) -> String {
        Hex(bytes).to_string()
    }

    // A changed digest orphans every stored record. If one of these fails, the change needs a new version
    // in its domain and a note on migration; correcting the value here is not enough.
    #[test]
    fn golden_digests() {
        let scope = Scope::new("tenant-1");
        let (plain, keyed) = (Digester::new(None), Digester::new(Some(b"secret")));
        let endpoint = "POST /payments";
        let store_key = plain.store_key(endpoint, Some(&scope), &key("k"));
        assert_eq!(
            hex(store_key.as_bytes()),
            "d5f59136335e536359d9ade518edfbce0e6b07ef1413d565f109a6ecec279010"
        );
        assert_eq!(
            hex(plain.store_key(endpoint, None, &key("k")).as_bytes()),
            "de576dbc625c3fc40054af9444bfc7913438ccaf61f013cf76fbaa25b0883bd0"
        );
        let template = "POST /p/{id}/f/{*rest}";
        assert_eq!(
            hex(plain.store_key(template, None, &key("k")).as_bytes()),
            "8ed5cf747a22efbd1b211e4ac7ed8c3f033f773fab2da3536dee4515726fb15b"
        );
        let keyed_store_key = keyed.store_key(endpoint, Some(&scope), &key("k"));
        assert_eq!(
            hex(keyed_store_key.as_bytes()),
            "52e7ca1b50db05121f5351e487651d110991765a2037718a4cccb7d2728767ac"
        );
        assert_eq!(
            plain.downstream_key(store_key, "stripe"),
            "79e99d0f-a5e3-8d51-908d-8daa2fd9dac0"
        );
        assert_eq!(
            keyed.downstream_key(store_key, "stripe"),
            "835bf52d-7ad5-8ce8-b472-c1dd997ea697"
        );
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", "Bearer t".parse().unwrap());
        let credentials = Credentials::new()
            .of(SketchedHeaders::of(&headers))
            .unwrap();
        assert_eq!(
            hex(&plain.caller(&store_key, &credentials)),
            "e2a8fab93c7186eb53bb7b9f4919324ae7c828cf04e0a7f4db0e4f97ff9391f1"
        );
    }

    #[test]
    fn every_part_of_a_store_key_counts() {
        let scopes = [
            None,
            Some(Scope::new("")),
            Some(Scope::new("a")),
            Some(Scope::new("A")),
        ];
        let mut seen = HashSet::new();
        let mut made = 0;
        for digester in [None, Some("s"), Some(""), Some("t")] {
            let digester = Digester::new(digester.map(str::as_bytes));
            for endpoint in ["POST /a", "POST /ab", "PUT /a"] {
                for scope in &scopes {
                    for text in ["k", "K", "bk"] {
                        made += 1;
                        seen.insert(digester.store_key(endpoint, scope.as_ref(), &key(text)));
                    }
                }
            }
        }
        assert_eq!(seen.len(), made);
    }

    #[test]
    fn downstream_keys_are_stable_uuids_that_differ_by_record_and_label() {
        let digester = Digester::new(None);
        let record = |text| digester.store_key("POST /a", None, &key(text));
        let made = digester.downstream_key(record("k"), "stripe");
        assert_eq!(made, digester.downstream_key(record("k"), "stripe"));
        assert_ne!(made, digester.downstream_key(record("k"), "mail"));
        assert_ne!(made, digester.downstream_key(record("l"), "stripe"));
        let bytes = made.as_bytes();
        assert_eq!(bytes.len(), 36);
        assert_eq!(bytes[14], b'8', "the version");
        assert!(
            matches!(bytes[19], b'8' | b'9' | b'a' | b'b'),
            "the variant"
        );
        // The next service may use this library and require UUIDs.
        let rules = crate::key::KeyRules {
            strict: false,
            uuid: true,
            ..crate::key::KeyRules::default()
        };
        let line = http::HeaderValue::from_str(&made).unwrap();
        assert!(IdempotencyKey::parse([&line], rules).is_ok());
    }

    #[test]
    fn a_header_scopes_by_all_of_its_lines_in_order() {
        let scope = header("X-Tenant");
        let of = |values: &[&str]| {
            let request = values
                .iter()
                .fold(Request::builder(), |r, v| r.header("X-Tenant", *v));
            scope(&parts(request)).map(|scope| scope.0)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[""]), None, "a header without a value names nobody");
        assert_eq!(of(&["", " "]), None);
        assert_eq!(of(&["a"]).as_deref(), Some(&b"a"[..]));
        assert_ne!(of(&["a"]), of(&["a", "b"]));
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
        assert_ne!(of(&["ab"]), of(&["a", "b"]));
    }

    #[test]
    fn an_extension_scopes_by_the_caller_that_it_is() {
        #[derive(Clone)]
        struct Account(u64);
        impl Caller for Account {
            fn scope(&self) -> Scope {
                Scope::new(self.0.to_be_bytes())
            }
        }
        let scope = extension::<Account>();
        assert!(scope(&parts(Request::builder())).is_none());
        let found = scope(&parts(Request::builder().extension(Account(7)))).unwrap();
        assert_eq!(*found.0, 7_u64.to_be_bytes());
    }

    #[test]
    fn nothing_secret_is_shown() {
        let digester = Digester::new(Some(b"hunter2"));
        let scope = Scope::new("acct-4711");
        let store_key = digester.store_key("POST /a", Some(&scope), &key("sk-1"));
        let shown = format!("{digester:?} {scope:?} {store_key:?} {store_key}");
        for secret in ["hunter2", "4711", "sk-1"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(store_key.to_string(), hex(&store_key.as_bytes()[..8]));
        assert_eq!(StoreKey::from_bytes(*store_key.as_bytes()), store_key);
    }
}
