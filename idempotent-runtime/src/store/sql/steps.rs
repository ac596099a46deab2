//! The steps of executions: a column of the record, so that they go with it.

use super::{
    SqlStore,
    dialect::{Backend as _, Dialect},
    operations::{Access, Records},
    retry::RetryBudget,
    row::IN_FLIGHT,
    statement::{Parameter, Value, Values},
};
use crate::{
    scope::StoreKey,
    store::{
        erased::Operation,
        error::{StoreError, StoreErrorKind},
        record::Write,
        steps::{StepLog, StepsRead, check_append},
        token::Token,
    },
};

impl<D: Dialect> StepLog for SqlStore<D> {
    fn read_steps<'a>(&'a self, key: &'a StoreKey, token: &'a Token) -> Operation<'a, StepsRead> {
        Box::pin(self.0.read_steps(key, token))
    }

    fn append_step<'a>(
        &'a self,
        key: &'a StoreKey,
        token: &'a Token,
        at: usize,
        bytes: &'a [u8],
    ) -> Operation<'a, Write> {
        Box::pin(self.0.append_step(key, token, at, bytes))
    }
}

impl<D: Dialect, A: Access<D>> Records<'_, D, A> {
    pub(super) async fn read_steps(
        &mut self,
        key: &StoreKey,
        token: &Token,
    ) -> Result<StepsRead, StoreError> {
        let mut budget = RetryBudget::new();
        loop {
            match self.steps(key, token).await {
                Ok(read) => return Ok(read),
                Err(error) => self.absorb(&mut budget, error)?,
            }
            budget.spend_round::<D>()?;
        }
    }

    pub(super) async fn append_step(
        &mut self,
        key: &StoreKey,
        token: &Token,
        at: usize,
        bytes: &[u8],
    ) -> Result<Write, StoreError> {
        let mut budget = RetryBudget::new();
        loop {
            match self.append_at(key, token, at, bytes).await {
                Ok(Some(write)) => return Ok(write),
                Ok(None) => {
                    let error = StoreError::new(D::STORE, StoreErrorKind::TooLarge);
                    return Err(error.with_source(
                        "the steps of the execution are larger than the server's max_allowed_packet",
                    ));
                }
                Err(error) => self.absorb(&mut budget, error)?,
            }
            budget.spend_round::<D>()?;
        }
    }

    /// `None` if the record would take the step, and has not.
    async fn append_at(
        &mut self,
        key: &StoreKey,
        token: &Token,
        at: usize,
        bytes: &[u8],
    ) -> Result<Option<Write>, sqlx::Error> {
        let values = Values::new()
            .key(key)
            .token(Parameter::Token, Some(token))
            .int(Parameter::At, i64::try_from(at).unwrap_or(i64::MAX - 16))
            .with(Parameter::Steps, Value::Bytes(Some(bytes)));
        let appended = self.access.execute(&self.statements.append_step, &values);
        if appended.await? > 0 {
            return Ok(Some(Write::Applied));
        }
        Ok(match self.steps(key, token).await? {
            StepsRead::Log(log) => check_append(&log, at, bytes).err(),
            StepsRead::Fenced => Some(Write::Fenced),
            StepsRead::Missing => Some(Write::Missing),
        })
    }

    async fn steps(&mut self, key: &StoreKey, token: &Token) -> Result<StepsRead, sqlx::Error> {
        let values = Values::new().key(key).token(Parameter::Token, Some(token));
        let rows = self.access.fetch(&self.statements.read_steps, &values);
        let rows = rows.await?;
        let Some(row) = rows.first() else {
            return Ok(StepsRead::Missing);
        };
        let holds = D::bytes(row, 1)?.as_deref() == Some(&token.as_bytes()[..]);
        if !holds || D::int(row, 0)? != IN_FLIGHT {
            return Ok(StepsRead::Fenced);
        }
        let log = D::bytes(row, 2)?.unwrap_or_default();
        Ok(StepsRead::Log(log.into()))
    }
}
