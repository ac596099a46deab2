//! Where records live: as `IDEMPOTENT_STORE` says.
//!
//! | URL | |
//! |---|---|
//! | `memory:` | this process only; what is used when nothing is said |
//! | `sqlite://records.db` | the processes of this machine |
//! | `postgres://…`, `mysql://…`, `redis://…` | all processes that say the same |
//!
//! Tables are made, where there are any.

use std::{error::Error, iter};

use idempotent_runtime::{
    Builder,
    store::{self, redis::RedisStore},
};

/// Gives the engine its store. `weaker` accepts a Redis that may lose what it acknowledged.
///
/// # Errors
///
/// If the URL is none of the above, or the store cannot be opened.
pub(crate) async fn open(engine: Builder, url: &str, weaker: bool) -> Result<Builder, String> {
    if weaker {
        let store = RedisStore::builder(url).accept_weaker_durability();
        return store
            .connect()
            .await
            .map(|store| engine.store(store))
            .map_err(|error| told(&error));
    }
    store::migrate(url)
        .await
        .map(|store| engine.store(store))
        .map_err(|error| told(&error))
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
    use idempotent_runtime::Idempotency;

    use super::open;

    #[tokio::test]
    async fn what_is_no_store_is_told_without_its_password() {
        for url in [
            "",
            "redis",
            "ftp://u:secret@host",
            "redis://u:secret@host:port",
        ] {
            let error = open(Idempotency::builder(), url, false)
                .await
                .expect_err(url);
            assert!(error.starts_with("IDEMPOTENT_STORE: "), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let opened = open(Idempotency::builder(), "memory:", false).await;
        assert!(opened.is_ok());
    }
}
