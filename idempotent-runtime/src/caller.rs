//! Who calls, as the application finds out: the trait for its own types, and the step that runs before all others.

use std::{fmt, future::Future, sync::Arc};

use bytes::Bytes;
use http::{Response, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};

use crate::{
    boxes::{BoxError, BoxFuture},
    scope::Scope,
};

/// Somebody who calls: a user, a tenant, an account.
///
/// It says in which [`Scope`] this caller's keys are unique. Take what does not change from one token to the next: the
/// user's id, not the token. Otherwise a retry with a renewed token is another caller's request, and executes.
///
/// An extractor of request parts that implements it can be the route's `caller`
/// ([`#[idempotent(caller = …)]`](macro@crate::idempotent#caller)). It then authenticates every request that carries a
/// key, replays included, before anything else happens. An extension that an authentication layer inserts can be the
/// scope ([`scope::extension`](crate::scope::extension)).
///
/// ```
/// use idempotent_runtime::{Caller, Scope};
///
/// struct CurrentUser {
///     tenant: u64,
///     id: u64,
/// }
///
/// impl Caller for CurrentUser {
///     fn scope(&self) -> Scope {
///         Scope::new(format!("{}/{}", self.tenant, self.id))
///     }
/// }
/// ```
///
/// It is implemented for [`Scope`] itself, for pairs and triples of callers, `Arc` and axum's `Extension`. Not for the
/// typed headers of `axum-extra`: a header alone proves nothing, and changes with each token.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say who calls",
    label = "expected a type that implements `Caller`",
    note = "implement it: `impl idempotent_runtime::Caller for {Self} {{ fn scope(&self) -> Scope {{ Scope::new(self.id) }} }}`"
)]
pub trait Caller {
    /// The namespace of this caller's keys.
    fn scope(&self) -> Scope;
}

/// The head of a request and its caller, or the answer to a request that is not let in.
pub(crate) type Authenticated = Result<(Parts, Scope), Response<RejectionBody>>;

/// The body of the answer to a request that is not let in.
pub(crate) type RejectionBody = UnsyncBoxBody<Bytes, BoxError>;

/// Finds out who calls.
#[allow(
    clippy::large_enum_variant,
    reason = "moved once for each request, and never kept"
)]
pub(crate) enum Authentication {
    /// Nobody is asked.
    None(Parts),
    Pending(BoxFuture<Authenticated>),
}

/// A function of the application's that finds out who calls.
#[derive(Clone)]
pub(crate) struct CallerFn(Arc<dyn Fn(Parts) -> BoxFuture<Authenticated> + Send + Sync>);

impl CallerFn {
    pub(crate) fn new<F, R, B>(find: F) -> Self
    where
        F: Fn(Parts) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(Parts, Scope), Response<B>>> + Send + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self(Arc::new(move |head| {
            let found = find(head);
            Box::pin(async move { found.await.map_err(boxed) })
        }))
    }

    pub(crate) fn start(&self, head: Parts) -> Authentication {
        Authentication::Pending((self.0)(head))
    }
}

/// An answer with its type of body erased.
pub(crate) fn boxed<B>(response: Response<B>) -> Response<RejectionBody>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}

impl Caller for Scope {
    fn scope(&self) -> Scope {
        self.clone()
    }
}

impl<T: Caller + ?Sized> Caller for Arc<T> {
    fn scope(&self) -> Scope {
        (**self).scope()
    }
}

impl<A: Caller, B: Caller> Caller for (A, B) {
    fn scope(&self) -> Scope {
        Scope::of_several([self.0.scope(), self.1.scope()])
    }
}

impl<A: Caller, B: Caller, C: Caller> Caller for (A, B, C) {
    fn scope(&self) -> Scope {
        Scope::of_several([self.0.scope(), self.1.scope(), self.2.scope()])
    }
}

impl fmt::Debug for CallerFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerFn(_)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_callers_are_one_scope_in_which_each_counts() {
        let scope = |name: &str| Scope::new(name);
        let of = |caller: &dyn Caller| caller.scope().as_bytes().to_vec();
        let scopes = [
            of(&(scope("a"), scope("bc"))),
            of(&(scope("ab"), scope("c"))),
            of(&(scope("bc"), scope("a"))),
            of(&(scope("a"), scope("bc"), scope(""))),
            of(&((scope("a"), scope("bc")), scope(""))),
        ];
        for (at, one) in scopes.iter().enumerate() {
            assert!(!scopes[..at].contains(one), "{at}");
        }
        assert_eq!(of(&Arc::new(scope("a"))), b"a");
    }
}
