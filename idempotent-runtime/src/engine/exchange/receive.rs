//! Everything before the store: the key is parsed, the body is read, the request is identified. Nothing is claimed yet.

use std::mem;

use bytes::Bytes;
use http::{Response, request::Parts};
use http_body::Body;

use super::state::{Elsewhere, Exchange, KeyedRequest};
use crate::{
    caller::{Authentication, RejectionBody},
    credentials::CallerId,
    engine::{
        FoundKey,
        body::collect::{CollectError, collect},
        handler::{BoxError, Handler},
    },
    fingerprint::{Fingerprint, fingerprint, fingerprint_by_function},
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

impl Exchange {
    /// Starts to find out who calls: as the route says or, if it does not, as the engine does.
    pub(super) fn authentication<H: Handler>(&self, handler: &H, head: Parts) -> Authentication {
        match (handler.authenticate(head), &self.core.caller) {
            (Authentication::None(head), Some(caller)) => caller.start(head),
            (authentication, _) => authentication,
        }
    }

    /// Reads and identifies the request. Who calls comes first: a request that is not let in touches nothing.
    pub(super) async fn receive<B>(
        &mut self,
        authentication: Authentication,
        body: B,
    ) -> Result<Box<KeyedRequest>, Refusal>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (head, found) = match authentication {
            Authentication::None(head) => (head, None),
            Authentication::Pending(found) => match found.await {
                Ok((head, scope)) => {
                    self.route.has_caller = true;
                    (head, Some(scope))
                }
                Err(rejection) => return Err(Refusal::Rejected(Box::new(rejection))),
            },
        };
        let identity = self.identify(&head, found)?;
        let key = self.key(&head)?;
        if self.core.in_flight.is_closing() {
            return Err(Refusal::Problem(ProblemCode::Overloaded.into()));
        }
        let body = read(body, self.settings.max_body).await?;
        self.waiting_bytes = body.len();
        self.share_room(&identity);
        let name = |digester: &Digester| {
            let scope = identity.scope.as_ref();
            let store_key = digester.store_key(&self.route.endpoint, scope, &key);
            let credentials = identity.credentials.as_ref();
            let credentials = credentials.map(|id| digester.caller(&store_key, id));
            let fingerprint = self.fingerprint(&head, credentials.as_ref(), &body);
            (store_key, fingerprint)
        };
        let (store_key, fingerprint) = name(&self.core.digester);
        let elsewhere = self.core.other_digester.as_ref().map(|digester| {
            let (key, fingerprint) = name(digester);
            Box::new(Elsewhere {
                key,
                fingerprint,
                is_own: false,
            })
        });
        observe::record_key(&store_key);
        Ok(Box::new(KeyedRequest {
            key,
            store_key,
            fingerprint,
            elsewhere,
            head,
            body,
        }))
    }

    fn key(&mut self, head: &Parts) -> Result<IdempotencyKey, Problem> {
        let (header, rules) = (&self.settings.header, self.settings.key_rules);
        let in_header = |error| Problem::key(error, header.as_str());
        match mem::replace(&mut self.found, FoundKey::InHeader) {
            FoundKey::InHeader => {
                let lines = header.lines(&head.headers);
                IdempotencyKey::parse(lines.iter(), rules).map_err(in_header)
            }
            FoundKey::ByFunction(key) => key
                .and_then(|key| key.checked(rules))
                .map_err(Problem::key_of_the_request),
            FoundKey::Missing if self.settings.key_by_function => {
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
        let (of_route, of_engine) = (&self.settings.scope, &self.core.scope);
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
            if self.settings.require_caller {
                return Err(ProblemCode::CallerUnknown.into());
            }
            credentials = self.core.credentials.of(&head.headers);
            if of_route.is_some() || of_engine.is_some() {
                self.core.warnings.nobody_found(self.route.label());
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
    fn share_room(&self, identity: &Identity) {
        let credentials = identity.credentials.as_ref().map(CallerId::as_bytes);
        let bytes = credentials.or(identity.scope.as_ref().map(Scope::as_bytes));
        if let Some(bytes) = bytes {
            self.detach.set_caller(self.core.room.caller(bytes));
        }
    }

    fn fingerprint(&self, head: &Parts, caller: Option<&[u8; 32]>, body: &[u8]) -> Fingerprint {
        let uri = &self.route.uri;
        if let Some(function) = &self.settings.fingerprint.function {
            let asked = function.call(head, body);
            return fingerprint_by_function(&head.method, uri.path(), caller, &asked);
        }
        fingerprint(
            &self.settings.fingerprint,
            &head.method,
            uri.path(),
            uri.query(),
            &head.headers,
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

/// Reads the body, whatever length it claims.
async fn read<B>(body: B, limit: usize) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    if body.size_hint().lower() > limit as u64 {
        return Err(Problem::request_too_large(limit));
    }
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
