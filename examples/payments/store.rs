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

use idempotent_runtime::store::{AnyStore, ConnectOptions, Weakness, purger::Purger};

/// Opens the store and starts to purge it, although its server may have these weaknesses.
///
/// # Errors
///
/// If the URL is not one of the above, or the store cannot be opened.
pub(crate) async fn open(url: &str, accept: &[Weakness]) -> Result<(AnyStore, Purger), String> {
    let options = ConnectOptions::new().migrate(true);
    let options = accept
        .iter()
        .fold(options, |options, weakness| options.accept(*weakness));
    let store = options
        .connect(url)
        .await
        .map_err(|error| with_causes(&error))?;
    // In a store whose records expire by themselves it finds nothing to do.
    let purger = Purger::builder().start(store.clone());
    Ok((store, purger))
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
            let error = open(url, &[]).await.expect_err(url);
            assert!(error.starts_with("IDEMPOTENT_STORE: "), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let (_store, purger) = open("memory:", &[]).await.expect("a store");
        purger.stop().await;
    }
}
