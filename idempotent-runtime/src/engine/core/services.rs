//! What an execution uses of its engine after the request was identified: names for other services, and the log of its
//! steps.

use std::sync::Arc;

use crate::{engine::core::store_client::StoreClient, response::Sealer, scope::Digester};

/// Shared by all executions of one engine whose records are named with the same secret.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) digester: Arc<Digester>,
    pub(crate) store: Arc<StoreClient>,
    pub(crate) sealer: Sealer,
}
