//! `purge`, `migrate` and `check`.

use idempotent_runtime::store::Store as _;

use crate::{
    ask,
    cli::{Global, Purge},
    failure::Failure,
    session::Session,
};

/// How many expired records one statement deletes.
const BATCH: usize = 1_000;

pub(super) async fn purge(
    global: &Global,
    session: &Session,
    purge: &Purge,
) -> Result<(), Failure> {
    ask::writes_allowed(global)?;
    let mut purged = 0;
    while purged < purge.limit {
        let batch = BATCH.min(purge.limit - purged);
        let done = session.store.purge_expired(batch).await?;
        purged += done;
        if done < batch {
            break;
        }
    }
    println!("purged {purged}");
    Ok(())
}

pub(super) async fn migrate(global: &Global) -> Result<(), Failure> {
    ask::writes_allowed(global)?;
    let session = Session::open(global, true).await?;
    println!("the {} store is up to date", session.store.name());
    Ok(())
}

/// Opening a store asks its server what it can lose; what weakens the promise is an error or, where the service may
/// accept it, a warning in the log.
pub(super) async fn check(global: &Global) -> Result<(), Failure> {
    let session = Session::open(global, false).await?;
    println!(
        "the {} store keeps what it acknowledged",
        session.store.name()
    );
    Ok(())
}
