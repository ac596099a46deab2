//! Clients: one key for each logical request, over all its attempts.
//!
//! [`decide`] says what an answer means for a client that sent a key, whoever wrote the server: this library, Stripe's API,
//! or one after the IETF draft. [`Keyed`] is a middleware for [`reqwest_middleware`] on it:
//!
//! 1. A request gets a key, unless it brings one: as a header, or as a [`RequestKey`], which survives a restart of the
//!    client. **No attempt ever gets another one.** With a retrying middleware around it, such as `reqwest-retry`, all of
//!    its attempts have the same key too.
//! 2. An attempt without an answer, or whose answer breaks off, is repeated with the same key; so is one that `decide`
//!    says to repeat, after the time in `Retry-After`. Answers are read to their end for that, and kept in memory.
//! 3. It gives up after [`give_up_after`](Keyed::give_up_after), and never sends a key when the server may have forgotten
//!    it ([`server_ttl`](Keyed::server_ttl)). The last answer, or error, is the result.
//! 4. A body that cannot be sent twice, such as a stream, is sent once.
//!
//! ```
//! use idempotent_runtime::client::Keyed;
//! use reqwest_middleware::ClientBuilder;
//!
//! # fn client() -> reqwest_middleware::ClientWithMiddleware {
//! let client = ClientBuilder::new(reqwest::Client::new()).with(Keyed::new()).build();
//! # client
//! # }
//! ```

mod decision;
mod middleware;

pub use decision::{Verdict, decide};
pub use middleware::{Expired, Keyed, RequestKey};
