//! Who calls: an extractor that each route names as its `caller`.
//!
//! The demo has no user database. Every bearer token is an account of its own name until it is revoked, and who sends none
//! is the guest, so that the demo can be explored with `curl`. A service looks the token up here, and refuses who has none.
//!
//! `DELETE /api/tokens/{token}` revokes one: from then on it gets 401, also where its key has a stored response.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{FromRef, FromRequestParts, Path, State},
    http::{StatusCode, header::AUTHORIZATION, request::Parts},
    response::{IntoResponse, Response},
};
use idempotent_runtime::{Caller, Scope};

/// The account that a request is for.
#[derive(Clone, Debug)]
pub(crate) struct Account(String);

/// The tokens that are not valid any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Revoked(Arc<Mutex<HashSet<String>>>);

impl Caller for Account {
    /// The account and not the token, where these differ: a renewed token is the same caller's.
    fn scope(&self) -> Scope {
        Scope::new(&self.0)
    }
}

impl<S: Sync> FromRequestParts<S> for Account
where
    Revoked: FromRef<S>,
{
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let Some(value) = parts.headers.get(AUTHORIZATION) else {
            return Ok(Self("guest".to_owned()));
        };
        let token = value.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token)
        });
        match token {
            Some(token) if !Revoked::from_ref(state).contains(token) => {
                Ok(Self(format!("account {token}")))
            }
            _ => {
                let challenge = [("www-authenticate", "Bearer")];
                Err((
                    StatusCode::UNAUTHORIZED,
                    challenge,
                    "the token is not valid\n",
                )
                    .into_response())
            }
        }
    }
}

impl Revoked {
    fn contains(&self, token: &str) -> bool {
        let revoked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        revoked.contains(token)
    }
}

/// Revokes a token.
pub(crate) async fn revoke(
    State(Revoked(tokens)): State<Revoked>,
    Path(token): Path<String>,
) -> StatusCode {
    let mut revoked = tokens.lock().unwrap_or_else(PoisonError::into_inner);
    revoked.insert(token);
    StatusCode::NO_CONTENT
}
