//! Where records live: as `IDEMPOTENT_STORE` says.
//!
//! | URL | |
//! |---|---|
//! | `memory:` | this process only; what is used when nothing is said |
//! | `redis://host:port`, and the other forms that [`RedisStore`] knows | all processes that say the same |

use std::{error::Error, iter};

use idempotent_runtime::{Builder, MemoryStore, store::redis::RedisStore};

/// Gives the engine its store.
///
/// # Errors
///
/// If the URL is none of the above, or the store cannot be opened.
pub(crate) async fn open(engine: Builder, url: &str, weaker: bool) -> Result<Builder, String> {
    match url.split_once(':') {
        Some(("memory", "")) => Ok(engine.store(MemoryStore::new())),
        Some((scheme, _)) if scheme.starts_with("redis") || scheme.starts_with("valkey") => {
            let mut redis = RedisStore::builder(url);
            if weaker {
                redis = redis.accept_weaker_durability();
            }
            let store = redis.connect().await.map_err(|error| told(&error))?;
            Ok(engine.store(store))
        }
        // The URL may contain a password: only what comes before it is shown.
        Some((scheme, _)) => Err(format!(
            "IDEMPOTENT_STORE: {scheme:?} is no kind of store: expected memory: or redis://…"
        )),
        None => Err("IDEMPOTENT_STORE: expected a URL: memory: or redis://…".to_owned()),
    }
}

/// An error with its causes.
fn told(error: &dyn Error) -> String {
    let causes = iter::successors(Some(error), |error| (*error).source());
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
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
            "memory:x",
            "redis://u:secret@host:port",
        ] {
            let error = open(Idempotency::builder(), url, false)
                .await
                .expect_err(url);
            assert!(error.starts_with("IDEMPOTENT_STORE: "), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        open(Idempotency::builder(), "memory:", false)
            .await
            .unwrap();
    }
}
