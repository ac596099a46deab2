//! The store that `IDEMPOTENT_STORE` names.
//!
//! | URL | |
//! |---|---|
//! | `memory:` | records are shared by this process only; the default |
//! | `sqlite://records.db` | … by the processes of this machine |
//! | `postgres://…`, `mysql://…`, `redis://…` | … by all processes with this URL |
//!
//! Tables are created where the store has any, and expired records are purged while the demo runs.

use std::{error::Error, iter};

use idempotent_runtime::{
    RedisStore,
    store::{self, AnyStore, purger::Purger},
};

/// Opens the store and starts to purge it. `weaker` accepts a Redis that may lose acknowledged writes.
///
/// # Errors
///
/// If the URL is not one of the above, or the store cannot be opened.
pub(crate) async fn open(url: &str, weaker: bool) -> Result<(AnyStore, Purger), String> {
    let store = if weaker {
        connect_weaker(url).await?
    } else {
        store::migrate(url)
            .await
            .map_err(|error| with_causes(&error))?
    };
    // In a store whose records expire by themselves it finds nothing to do.
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
    connected
        .map(AnyStore::new)
        .map_err(|error| with_causes(&error))
}

/// An error with its causes.
fn with_causes(error: &dyn Error) -> String {
    let causes = iter::successors(Some(error), |error| (*error).source());
    let mut causes: Vec<_> = causes.map(ToString::to_string).collect();
    // Some drivers repeat an error as its own cause.
    causes.dedup();
    format!("IDEMPOTENT_STORE: {}", causes.join(": "))
}

#[cfg(test)]
mod tests {
    use super::open;

    #[tokio::test]
    async fn an_invalid_url_is_reported_without_its_password() {
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
