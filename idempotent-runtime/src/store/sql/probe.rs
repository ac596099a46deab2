//! What a server or file reports about how it keeps what it acknowledges.

use super::ConnectError;
use crate::store::weakness::{Accepted, FoundWeakness, Weakness};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Probe {
    found: Vec<FoundWeakness>,
    /// The settings that could not be read.
    hidden: Vec<&'static str>,
}

impl Probe {
    pub(super) fn found(&mut self, weakness: Weakness, value: impl Into<String>) {
        self.found.push(FoundWeakness::new(weakness, value));
    }

    /// Notes the weakness if the setting, whose value this is, has one; and that the setting could not be read.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) fn read(
        &mut self,
        setting: &'static str,
        value: Option<&str>,
        weakness: impl FnOnce(&str) -> Option<Weakness>,
    ) {
        match value {
            None => self.hidden.push(setting),
            Some(value) => {
                if let Some(weakness) = weakness(value) {
                    self.found(weakness, value);
                }
            }
        }
    }

    /// Why a store is not opened, or its new connection not used.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) fn refusal(&self, store: &'static str, accepted: Accepted) -> Option<ConnectError> {
        let found = accepted.refused(&self.found);
        if !found.is_empty() {
            return Some(ConnectError::Weak { store, found });
        }
        let settings = self.hidden.join(", ");
        let unverified = !settings.is_empty() && !accepted.unverified;
        unverified.then_some(ConnectError::Unverified { store, settings })
    }

    /// Logs what the store is opened with.
    ///
    /// # Errors
    ///
    /// What was not accepted.
    pub(super) fn judge(self, store: &'static str, accepted: Accepted) -> Result<(), ConnectError> {
        let Self { found, hidden } = self;
        let judged = accepted.judge(store, found);
        judged.map_err(|found| ConnectError::Weak { store, found })?;
        if hidden.is_empty() {
            return Ok(());
        }
        let settings = hidden.join(", ");
        if !accepted.unverified {
            return Err(ConnectError::Unverified { store, settings });
        }
        tracing::warn!(
            store,
            settings,
            "the server does not report these settings: its durability is unknown"
        );
        Ok(())
    }
}
