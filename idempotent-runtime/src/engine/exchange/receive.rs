//! Everything before the store: the key is parsed, the body is read, the request is identified. Nothing is claimed yet.

use std::mem;

use bytes::Bytes;
use http::{HeaderValue, Request, header::AUTHORIZATION, request::Parts};
use http_body::Body;

use super::state::{Exchange, KeyedRequest};
use crate::{
    engine::{
        FoundKey,
        body::collect::{CollectError, collect},
        handler::BoxError,
    },
    fingerprint::{Fingerprint, fingerprint, fingerprint_by_function},
    key::{IdempotencyKey, KeyError},
    observe,
    problem::{Problem, ProblemCode},
    scope::Scope,
};

impl Exchange {
    /// Reads and identifies the request.
    pub(super) async fn receive<B>(
        &mut self,
        request: Request<B>,
    ) -> Result<Box<KeyedRequest>, Problem>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (head, body) = request.into_parts();
        let key = self.key(&head)?;
        if self.core.in_flight.is_closing() {
            return Err(ProblemCode::Overloaded.into());
        }
        let body = read(body, self.settings.max_body).await?;
        self.waiting_bytes = body.len();
        let scope = self.scope(&head);
        self.identify_caller(&head, scope.as_ref());
        let store_key = self
            .core
            .digester
            .store_key(&self.route.endpoint, scope.as_ref(), &key);
        observe::record_key(&store_key);
        let fingerprint = self.fingerprint(&head, scope.as_ref(), &body);
        Ok(Box::new(KeyedRequest {
            key,
            store_key,
            fingerprint,
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

    fn scope(&self, head: &Parts) -> Option<Scope> {
        match self.settings.scope {
            Some(scope) => scope(head),
            None => self.core.scope(head),
        }
    }

    /// Remembers who calls, for the share of one caller in the room for detached executions.
    fn identify_caller(&self, head: &Parts, scope: Option<&Scope>) {
        let identity = match scope {
            Some(scope) => Some(scope.as_bytes()),
            None => head.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes),
        };
        if let Some(identity) = identity {
            self.detach.set_caller(self.core.room.caller(identity));
        }
    }

    fn fingerprint(&self, head: &Parts, scope: Option<&Scope>, body: &[u8]) -> Fingerprint {
        let caller = match scope {
            Some(_) => None,
            // Without a scope, a caller with other credentials asks for something else.
            None => head.headers.get(AUTHORIZATION),
        };
        let caller = caller.map(|value| self.core.digester.caller(value.as_bytes()));
        let uri = &self.route.uri;
        if let Some(function) = &self.settings.fingerprint.function {
            let asked = function.call(head, body);
            let caller = caller.as_ref().map(<[u8; 32]>::as_slice);
            return fingerprint_by_function(&head.method, uri.path(), caller, &asked);
        }
        fingerprint(
            &self.settings.fingerprint,
            &head.method,
            uri.path(),
            uri.query(),
            &head.headers,
            caller.as_ref().map(<[u8; 32]>::as_slice),
            body,
        )
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
