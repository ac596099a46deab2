//! Everything before the store: the key is parsed, the body is read, the request is identified. Nothing is claimed yet.

use std::{borrow::Cow, mem};

use bytes::Bytes;
use http::{Response, request::Parts};
use http_body::Body;

use super::state::{Elsewhere, Exchange, Identified, KeyedRequest};
use crate::{
    boxes::BoxFuture,
    caller::{Authenticated, Authentication, RejectionBody},
    credentials::CallerId,
    engine::{
        FoundKey,
        body::collect::{Begun, CollectError, collect},
        handler::{BoxError, Handler},
    },
    fingerprint::{Fingerprint, fingerprint, fingerprint_by_function},
    header_sketch::HeaderSketch,
    key::{IdempotencyKey, KeyError},
    observe,
    problem::{Problem, ProblemCode},
    scope::{Digester, Scope, of_lines},
};

/// Why a request goes no further.
pub(super) enum Refusal {
    Problem(Problem),
    /// The answer of what finds out who calls.
    Rejected(Box<Response<RejectionBody>>),
}

/// Who calls.
struct Identity {
    /// The namespace of the key.
    scope: Option<Scope>,
    /// Only where no scope says it.
    credentials: Option<CallerId>,
}

/// How far a request was received.
#[expect(
    clippy::large_enum_variant,
    reason = "moved once for each request that waits"
)]
pub(super) enum Received<B> {
    /// Who calls is being found out.
    Authenticating(BoxFuture<Authenticated>, B),
    /// Its head was read.
    Head(Parts, Result<Reached<B>, Refusal>),
}

/// How far a request was read.
pub(super) enum Reached<B> {
    /// It is identified.
    End(Identified),
    /// Its body is not here yet.
    Body(Opened, Begun<B>),
}

/// What the head of a request says.
pub(super) struct Opened {
    key: IdempotencyKey,
    identity: Identity,
}

impl Exchange {
    /// Starts to find out who calls: as the route says or, if it does not, as the engine does. This comes first: a request
    /// that is not let in touches nothing.
    pub(super) fn authenticate<H, B>(&mut self, handler: &H, head: Parts, body: B) -> Received<B>
    where
        H: Handler,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        // The application is given the head, and may change it.
        self.uri = Some(self.routing.uri_as_sent(&head).into_owned());
        let authentication = match (handler.authenticate(head), &self.core.caller) {
            (Authentication::None(head), Some(caller)) => caller.start(head),
            (authentication, _) => authentication,
        };
        match authentication {
            Authentication::None(head) => {
                let reached = self.read_now(&head, None, body);
                Received::Head(head, reached)
            }
            Authentication::Pending(found) => Received::Authenticating(found, body),
        }
    }

    /// Receives the rest.
    pub(super) async fn receive<B>(
        &mut self,
        received: Received<B>,
    ) -> Result<KeyedRequest, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        let (head, reached) = match received {
            Received::Authenticating(found, body) => match found.await {
                Ok((head, scope)) => {
                    self.has_caller = true;
                    let reached = self.read_now(&head, Some(scope), body);
                    (head, reached)
                }
                Err(rejection) => return Err(Refusal::Rejected(Box::new(rejection))),
            },
            Received::Head(head, reached) => (head, reached),
        };
        let identified = match reached? {
            Reached::End(identified) => identified,
            Reached::Body(opened, body) => {
                let body = read(body, self.max_body).await?;
                self.identified(opened, &head, body)
            }
        };
        Ok(KeyedRequest { identified, head })
    }

    /// Reads the head, and the body if that is here already.
    pub(super) fn read_now<B>(
        &mut self,
        head: &Parts,
        found: Option<Scope>,
        body: B,
    ) -> Result<Reached<B>, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
    {
        let opened = self.open(head, found)?;
        if body.size_hint().lower() > self.max_body as u64 {
            return Err(Problem::request_too_large(self.max_body).into());
        }
        Ok(match Begun::read(body, self.max_body) {
            Ok(body) => Reached::End(self.identified(opened, head, body)),
            Err(body) => Reached::Body(opened, body),
        })
    }

    /// Everything that the head of a request says.
    fn open(&mut self, head: &Parts, found: Option<Scope>) -> Result<Opened, Problem> {
        self.sketch = HeaderSketch::of(&head.headers);
        let identity = self.identify(head, found)?;
        let key = self.key(head)?;
        if self.core.in_flight.is_closing() {
            return Err(ProblemCode::Overloaded.into());
        }
        Ok(Opened { key, identity })
    }

    /// The request, whose body was read.
    fn identified(&mut self, opened: Opened, head: &Parts, body: Bytes) -> Identified {
        let Opened { key, identity } = opened;
        self.waiting_bytes = body.len();
        self.share_room(&identity);
        let name = |digester: &Digester, store_key| {
            let credentials = identity.credentials.as_ref();
            let credentials = credentials.map(|id| digester.caller(&store_key, id));
            (
                store_key,
                self.fingerprint(head, credentials.as_ref(), &body),
            )
        };
        let scope = identity.scope.as_ref();
        let own = Digester::store_key_at(self.plan.store_key.clone(), scope, &key);
        let (store_key, fingerprint) = name(&self.core.digester, own);
        let elsewhere = self.core.other_digester.as_ref().map(|digester| {
            let other = digester.store_key(self.plan.endpoint(), scope, &key);
            let (key, fingerprint) = name(digester, other);
            Box::new(Elsewhere {
                key,
                fingerprint,
                is_own: false,
            })
        });
        observe::record_key(&store_key);
        Identified {
            key,
            store_key,
            fingerprint,
            elsewhere,
            body,
        }
    }

    fn key(&mut self, head: &Parts) -> Result<IdempotencyKey, Problem> {
        let (header, rules) = (&self.plan.settings.header, self.plan.settings.key_rules);
        let in_header = |error| Problem::key(error, header.as_str());
        match mem::replace(&mut self.found, FoundKey::InHeader) {
            FoundKey::InHeader => {
                let lines = head.headers.get_all(&self.plan.key_header);
                IdempotencyKey::parse(lines.iter(), rules).map_err(in_header)
            }
            FoundKey::ByFunction(key) => key
                .and_then(|key| key.checked(rules))
                .map_err(Problem::key_of_the_request),
            FoundKey::Missing if self.settings().key_by_function => {
                Err(Problem::key_of_the_request(KeyError::Missing))
            }
            FoundKey::Missing => Err(in_header(KeyError::Missing)),
            FoundKey::Panicked => {
                tracing::error!("the function of `key` or `when` panicked; nothing was executed");
                Err(Problem::panicked_before_the_handler())
            }
        }
    }

    /// Who calls: whom the caller step found, within the scope by the route's function; else by the engine's function.
    /// Where they find nobody, the credentials count as if there were no scope.
    fn identify(&self, head: &Parts, found: Option<Scope>) -> Result<Identity, Problem> {
        let (of_route, of_engine) = (&self.settings().scope, &self.core.scope);
        let scope = match (of_route, found) {
            // A caller that was found stays one: a header alone cannot make another of it.
            (Some(scope), Some(found)) => Some(match scope.of(head) {
                Some(scope) => Scope::of_several([found, scope]),
                None => found,
            }),
            (Some(scope), None) => scope.of(head),
            (None, Some(found)) => Some(found),
            (None, None) => of_engine.as_ref().and_then(|scope| scope.of(head)),
        };
        let mut credentials = None;
        if scope.is_none() {
            if self.settings().require_caller {
                return Err(ProblemCode::CallerUnknown.into());
            }
            let headers = self.sketch.beside(&head.headers);
            credentials = self.core.credentials.of(headers);
            if of_route.is_some() || of_engine.is_some() {
                self.core.warnings.nobody_found(self.plan.label());
            } else if credentials.is_some() {
                self.core.warnings.no_scope();
            }
        }
        let scope = self.within_account(head, scope);
        Ok(Identity { scope, credentials })
    }

    /// The scope within the account that the request names, if the profile has headers for that.
    fn within_account(&self, head: &Parts, scope: Option<Scope>) -> Option<Scope> {
        let names = self.core.account_headers.iter();
        names.fold(scope, |scope, name| match of_lines(head, name) {
            Some(account) => Some(Scope::of_account(
                scope,
                Scope::of_several([Scope::new(name.as_str()), account]),
            )),
            None => scope,
        })
    }

    /// Remembers who calls, for the share of one caller in the room for detached executions.
    fn share_room(&mut self, identity: &Identity) {
        let credentials = identity.credentials.as_ref().map(CallerId::as_bytes);
        let bytes = credentials.or(identity.scope.as_ref().map(Scope::as_bytes));
        if let Some(bytes) = bytes {
            let caller = self.core.room.caller(bytes);
            self.set_caller(caller);
        }
    }

    fn fingerprint(&self, head: &Parts, caller: Option<&[u8; 32]>, body: &[u8]) -> Fingerprint {
        let uri = match &self.uri {
            Some(uri) => Cow::Borrowed(uri),
            None => self.routing.uri_as_sent(head),
        };
        let begun = self.plan.fingerprint.clone();
        if let Some(function) = &self.settings().fingerprint.function {
            let asked = function.call(head, body);
            return fingerprint_by_function(begun, uri.path(), caller, &asked);
        }
        fingerprint(
            &self.settings().fingerprint,
            begun,
            uri.path(),
            uri.query(),
            self.sketch.beside(&head.headers),
            caller,
            body,
        )
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Reads the rest of a body, whatever length it claims.
async fn read<B>(body: B, limit: usize) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    match collect(body, limit).await {
        Ok(collected) => Ok(collected.bytes),
        Err(CollectError::TooLarge) => Err(Problem::request_too_large(limit)),
        Err(CollectError::TooLargeForAnother) => Err(ProblemCode::RequestTooLarge.into()),
        Err(CollectError::Broken(error)) => {
            tracing::debug!(
                error = &*error as &dyn std::error::Error,
                "the request body broke off"
            );
            Err(ProblemCode::UnreadableBody.into())
        }
    }
}
