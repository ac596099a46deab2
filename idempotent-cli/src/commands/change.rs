//! `forget`.

use std::time::Duration;

use idempotent_runtime::store::inspect::EntryState;

use crate::{
    ask,
    cli::{Forget, Global},
    failure::Failure,
    session::Session,
    view,
};

pub(super) async fn forget(
    global: &Global,
    session: &Session,
    forget: &Forget,
) -> Result<(), Failure> {
    ask::writes_allowed(global)?;
    let reason = ask::reason(&forget.consent.reason)?;
    let entry = session.by_whole_id(forget.id).await?;
    if matches!(
        entry.state,
        EntryState::InFlight { .. } | EntryState::Unknown { .. }
    ) {
        return Err(Failure::Refused(format!(
            "only a completed record can be forgotten, and this one is {}: nothing was changed",
            view::state(&entry)
        )));
    }
    let id = view::id(&entry.key);
    if forget.consent.dry_run {
        println!("would forget {id}");
        return Ok(());
    }
    eprintln!(
        "{id}  {}  {}\nIts effect happened. Without the record, a retry executes again.",
        entry.endpoint.as_deref().unwrap_or("-"),
        view::state(&entry)
    );
    ask::consent(&forget.consent, "Forget this record?")?;
    let engine = session.engine(Duration::from_secs(24 * 60 * 60))?;
    let actor = global.actor();
    engine.operator(&actor, reason).forget(&entry.key).await?;
    println!("forgot {id}");
    Ok(())
}
