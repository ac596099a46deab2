//! Where records live: as `IDEMPOTENT_STORE` says.
//!
//! | URL | |
//! |---|---|
//! | `memory:` | this process only; what is used when nothing is said |
//! | `sqlite://records.db` | the processes of this machine |
//! | `postgres://…`, `mysql://…`, `redis://…` | all processes that say the same |
//!
//! Tables are made, where there are any, and what expired is purged from them while the demo runs.

use std::{error::Error, iter};

use idempotent_runtime::{
    RedisStore,
    store::{self, AnyStore, purger::Purger},
};

/// Opens the store, and begins to purge it. `weaker` accepts a Redis that may lose what it acknowledged.
///
/// # Errors
///
/// If the URL is none of the above, or the store cannot be opened.
pub(crate) async fn open(url: &str, weaker: bool) -> Result<(AnyStore, Purger), String> {
    let store = if weaker {
        connect_weaker(url).await?
    } else {
        store::migrate(url).await.map_err(|error| told(&error))?
    };
    // Where records vanish by themselves it finds nothing to do.
    let purger = Purger::builder().start(store.clone());
    Ok((store, purger))
}

async fn connect_weaker(url: &str) -> Result<AnyStore, String> {
    // The scheme alone: the rest may contain a password.
    if !["redis", "rediss", "valkey"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        return Err(
            "ACCEPT_WEAKER_DURABILITY=1 is for Redis: leave it out with any other \
                    IDEMPOTENT_STORE"
                .into(),
        );
    }
    let store = RedisStore::builder(url).accept_weaker_durability();
    let connected = store.connect().await;
    connected.map(AnyStore::new).map_err(|error| told(&error))
}

/// An error with its causes.
fn told(error: &dyn Error) -> String {
    let causes = iter::successors(Some(error), |error| (*error).source());
    let mut causes: Vec<_> = causes.map(ToString::to_string).collect();
    // Some drivers say the same on two levels.
    causes.dedup();
    format!("IDEMPOTENT_STORE: {}", causes.join(": "))
}

#[cfg(test)]
mod tests {
    use super::open;

    #[tokio::test]
    async fn what_is_no_store_is_told_without_its_password() {
        for url in [
            "",
            "redis",
            "ftp://u:secret@host",
            "redis://u:secret@host:port",
        ] {
            let error = open(url, false).await.expect_err(url);
            assert!(error.starts_with("IDEMPOTENT_STORE: "), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let (_store, purger) = open("memory:", false).await.expect("a store");
        purger.stop().await;
    }

    #[tokio::test]
    async fn weaker_durability_is_for_redis() {
        for url in [
            "sqlite://records.db",
            "postgres://u:secret@host/db",
            "memory:",
        ] {
            let error = open(url, true).await.expect_err(url);
            assert!(
                error.starts_with("ACCEPT_WEAKER_DURABILITY=1 is for Redis"),
                "{error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
