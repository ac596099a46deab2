//! A handler's transaction that begins once all arguments are extracted.

use ::axum::{body::Body, http::Extensions, response::Response};

use crate::{
    engine::{
        Retention,
        core::slot::{NoTransaction, Slot},
    },
    execution::Execution,
};

/// The transaction of a request whose arguments are extracted here: it begins after all of them.
pub(super) struct Deferred(Execution);

impl Deferred {
    /// On a route that has one.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        // Not `Execution::from_extensions`: this look is not the handler's.
        let execution = extensions.get::<Execution>()?;
        let slot = execution.lease().transaction()?;
        slot.defer();
        Some(Self(execution.again()))
    }

    /// Begins it, if an argument asked for it.
    pub(super) async fn begin(self) -> Result<(), Response> {
        let lease = self.0.lease();
        match lease.transaction() {
            None => Ok(()),
            Some(slot) => {
                let begun = slot.begin(lease).await;
                begun.map_err(|refused| refusal(slot, &refused))
            }
        }
    }
}

/// The answer where there is no transaction. Whatever its status, nothing was executed.
pub(super) fn refusal(slot: &Slot, refused: &NoTransaction) -> Response {
    let mut response = slot.refusal(refused).map(Body::from);
    response.extensions_mut().insert(Retention::Release);
    response
}
