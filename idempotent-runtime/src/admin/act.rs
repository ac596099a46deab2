//! What the routes do to records, each an act of an [`Operator`](crate::Operator).

use std::sync::Arc;

use serde::Serialize;

use super::{Admin, error::Refusal, input::Order};
use crate::{engine::Resolution, scope::StoreKey, store::inspect::KeyPrefix, view::RevealedView};

/// What is done to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Resolve,
    Release,
    Forget,
    Reveal,
}

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Done {
    Changed { id: String, done: &'static str },
    // Boxed: much larger.
    Revealed(Box<RevealedView>),
}

impl Admin {
    /// Does it on a task of its own: it ends as it was begun, in the store and in its audit, also if whoever asked goes
    /// away in the middle.
    pub(super) async fn act(
        self: Arc<Self>,
        act: Act,
        actor: String,
        key: StoreKey,
        order: Order,
    ) -> Result<Done, Refusal> {
        let admin = self;
        let task = tokio::spawn(async move { admin.attempt(act, &actor, &key, order).await });
        task.await.unwrap_or_else(|_| Err(Refusal::interrupted()))
    }

    async fn attempt(
        &self,
        act: Act,
        actor: &str,
        key: &StoreKey,
        mut order: Order,
    ) -> Result<Done, Refusal> {
        let response = match (act, order.response.take()) {
            (Act::Resolve, Some(answer)) => Some(answer.into_response()?),
            (Act::Resolve, None) => return Err(Refusal::invalid("`response` is missing")),
            (_, Some(_)) => return Err(Refusal::invalid("only a resolution takes `response`")),
            (_, None) => None,
        };
        let operator = self.engine.operator(actor, order.reason()?);
        let done = match (act, response) {
            (Act::Reveal, _) => {
                let entry = self.entry(key).await?.ok_or_else(Refusal::not_found)?;
                let record = operator.reveal(key).await?;
                let view = RevealedView::new(&entry, &record).map_err(|_| Refusal::unreadable())?;
                return Ok(Done::Revealed(Box::new(view)));
            }
            (Act::Forget, _) => {
                operator.forget(key).await?;
                "forgotten"
            }
            (_, Some(response)) => {
                operator
                    .resolve(key, Resolution::Completed(response))
                    .await?;
                "resolved"
            }
            (_, None) => {
                operator.resolve(key, Resolution::NotExecuted).await?;
                "released"
            }
        };
        Ok(Done::Changed {
            id: KeyPrefix::from(key).to_string(),
            done,
        })
    }
}
