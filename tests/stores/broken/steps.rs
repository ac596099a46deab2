//! The log of steps of a broken store.

use idempotent_runtime::{
    StoreKey,
    store::{Operation, StepLog, StepsRead, Token, Write},
};
use tokio::time::Instant;

use super::{
    Flaw,
    row::{Row, find},
    store::BrokenStore,
};

impl StepLog for BrokenStore {
    fn read_steps<'a>(&'a self, key: &'a StoreKey, token: &'a Token) -> Operation<'a, StepsRead> {
        Box::pin(async move {
            let mut rows = self.rows();
            Ok(match find(self.flaw(), &mut rows, key) {
                None => StepsRead::Missing,
                Some(row) if self.holds(row, token) => StepsRead::Log(row.steps.clone().into()),
                Some(_) => StepsRead::Fenced,
            })
        })
    }

    fn append_step<'a>(
        &'a self,
        key: &'a StoreKey,
        token: &'a Token,
        at: usize,
        bytes: &'a [u8],
    ) -> Operation<'a, Write> {
        Box::pin(async move {
            let mut rows = self.rows();
            let Some(row) = find(self.flaw(), &mut rows, key) else {
                return Ok(Write::Missing);
            };
            let too_late = self.is(Flaw::StepsFencedByTime) && row.lease_until <= Instant::now();
            if too_late || !self.holds(row, token) {
                return Ok(Write::Fenced);
            }
            let there = row.steps.get(at..).and_then(|rest| rest.get(..bytes.len()));
            if there == Some(bytes) && !self.is(Flaw::StepsTwice) {
                return Ok(Write::Applied);
            }
            if row.steps.len() != at && !self.is(Flaw::StepsTwice) {
                if !self.is(Flaw::StepsOverwrite) {
                    return Ok(Write::Fenced);
                }
                row.steps.truncate(at);
            }
            row.steps.extend(bytes);
            if self.is(Flaw::TruncatesSteps) {
                row.steps.truncate(64 << 10);
            }
            Ok(Write::Applied)
        })
    }
}

impl BrokenStore {
    fn holds(&self, row: &Row, token: &Token) -> bool {
        let in_flight = row.outcome.is_none() || self.is(Flaw::StepsOutliveCompletion);
        in_flight && (row.token == *token || self.is(Flaw::StepsWithoutFence))
    }
}
