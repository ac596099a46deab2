//! A page, and JSON under it, by which people look at the records of a service and resolve those in doubt.
//!
//! [`router`] makes routes for an axum router. They answer nobody whom the application's guard does not let in, and
//! change nothing unless the guard says who writes **and** the engine was built with
//! [`admin_writes`](crate::Builder::admin_writes).
//!
//! ```
//! use http::request::Parts;
//! use idempotent_runtime::{Idempotency, admin::{self, Access}};
//!
//! /// What the service's authentication layer left in the request.
//! #[derive(Clone)]
//! struct Employee { name: String, on_call: bool }
//!
//! fn guard(parts: &Parts) -> Access {
//!     match parts.extensions.get::<Employee>() {
//!         Some(employee) if employee.on_call => Access::Write(employee.name.clone()),
//!         Some(_) => Access::Read,
//!         None => Access::Deny,
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let idempotency = Idempotency::builder().admin_writes(true).build()?;
//! let app: axum::Router = axum::Router::new().nest_service("/admin", admin::router::<()>(idempotency, guard));
//! # Ok(())
//! # }
//! ```
//!
//! Put the authentication layer around the routes, and the idempotency layer elsewhere: they need no key. Under
//! [`nest_service`](axum::Router::nest_service) the page is at `/admin` and at `/admin/`, under
//! [`nest`](axum::Router::nest) at `/admin` alone.
//!
//! # The routes
//!
//! | route | who | what |
//! |---|---|---|
//! | `GET /`, `/app.js`, `/style.css` | read | the page |
//! | `GET /api/access` | read | what this person may do, and the name of the store |
//! | `GET /api/stats` | read | [`StatsView`](crate::view::StatsView): counts by state |
//! | `GET /api/records` | read | `{"records": […], "next": cursor}`, each a [`RecordView`](crate::view::RecordView). `state`, `endpoint`, `older_than` (`10m`), `limit` (100, at most 1,000), `after` (a cursor), `max_scan` (100,000, at most 1,000,000). With `state=unknown` the oldest first |
//! | `GET /api/records/{id}` | read | a record by its ID, or the beginning of it as logs print it |
//! | `POST /api/lookup` | read | `{"records": […]}` by `endpoint`, `caller` (if the service has a scope) and the client's `key`, without its quotes. Two while the secret is [rotated](crate::guide::secrets), if there is one under each |
//! | `GET /api/series` | read | outcomes, the 99th percentile of the time to them, and what is unknown, by minute |
//! | `GET /api/audit` | read | `{"events": […]}`, each an [`AuditView`](crate::view::AuditView). `limit` (100, at most 1,000) |
//! | `POST /api/records/{id}/resolve` | write | stores `response`: `status`, `headers` (pairs), `body`, `body_is_hexadecimal` |
//! | `POST /api/records/{id}/release` | write | nothing was executed: the next retry executes |
//! | `POST /api/records/{id}/forget` | write | deletes a completed record, so that its key executes again |
//! | `POST /api/records/{id}/reveal` | write | the record with its response: [`RevealedView`](crate::view::RevealedView) |
//!
//! The last four need the whole ID and a `reason`, are acts of an [`Operator`](crate::Operator), and so are kept in the store's
//! audit. They run to their end, also if whoever asked goes away. Errors are problem details (RFC 9457) with a `code`.
//!
//! # What keeps it safe
//!
//! 1. **The guard decides**, for every path, before anything else. There is no default guard.
//! 2. **Forged requests are refused.** A browser that says by `Sec-Fetch-Site` or `Origin` that another site asks gets 403,
//!    and a `POST` has to be `application/json`, which no form of another site can send. A program that sends neither header
//!    is not a browser, and passes.
//! 3. **Keys, headers and bodies are not shown.** The key of a look-up comes in a body and is not logged; responses are
//!    shown by `reveal` alone.
//! 4. **What clients chose is text.** The page never makes HTML of it, and a strict `Content-Security-Policy` (no inline
//!    code, no inline style, trusted types) would stop what it made. Every answer says `no-store`, `nosniff`, `no-referrer` and may not be framed.
//! 5. **Work is bounded.** One request at a time scans the store, `max_scan` records at most.
//!
//! The names that a browser may be made to call the service by are the guard's concern: one that lets in whoever
//! connects from this machine lets in every page that a browser on it shows (DNS rebinding).

use std::sync::Arc;

use axum::Router;
use http::request::Parts;
use tokio::sync::Semaphore;

use crate::engine::Idempotency;

mod act;
mod base;
mod error;
mod input;
mod origin;
mod read;
mod routes;
mod series;
#[cfg(test)]
mod tests;

use error::Refusal;

/// What the guard lets somebody do.
///
/// Exhaustive on purpose: there is nothing between these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing: every answer is 403.
    Deny,
    /// To look at records, without their responses.
    Read,
    /// To resolve, release, forget and reveal as well, under this name, which the audit keeps. An empty name writes nothing.
    Write(String),
}

/// The engine and its guard, as all routes share them.
struct Admin {
    engine: Idempotency,
    guard: Box<dyn Fn(&Parts) -> Access + Send + Sync>,
    /// Whose turn it is to scan the store.
    scans: Semaphore,
}

/// The routes of the page and its JSON, for [`nest_service`](axum::Router::nest_service) or [`nest`](axum::Router::nest).
/// See the [module](self).
///
/// The guard is asked about every request, and decides by its head and by the extensions that layers around these routes
/// left in it. It is not `async`: who somebody is, is found out once, by the layer that the service has for it; what they
/// may do here follows from that without waiting.
pub fn router<S>(
    engine: Idempotency,
    guard: impl Fn(&Parts) -> Access + Send + Sync + 'static,
) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes::router(Arc::new(Admin {
        engine,
        guard: Box::new(guard),
        scans: Semaphore::new(1),
    }))
}

impl Admin {
    /// Who writes, if the guard and the engine let anybody.
    fn actor(&self, access: Access) -> Result<String, Refusal> {
        match access {
            Access::Write(actor) if !actor.trim().is_empty() => {
                if self.engine.admin_writes() {
                    return Ok(actor);
                }
                Err(Refusal::writes_off())
            }
            _ => Err(Refusal::read_only()),
        }
    }
}
