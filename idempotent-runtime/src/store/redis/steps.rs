//! The steps of executions: a field of the record's own key, so that they are in its slot, and go with it.

use redis::Value;

use super::{
    RedisStore,
    script::{Reply, unreadable, write},
};
use crate::{
    scope::StoreKey,
    store::{
        erased::Operation,
        record::Write,
        steps::{StepLog, StepsRead},
        token::Token,
    },
};

impl StepLog for RedisStore {
    fn read_steps<'a>(&'a self, key: &'a StoreKey, token: &'a Token) -> Operation<'a, StepsRead> {
        Box::pin(async move {
            let record = self.record(key);
            let call = self.0.scripts.read_steps.call(&record, &[token.as_bytes()]);
            steps(self.run(&call).await?)
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
            let (record, at) = (self.record(key), at.to_string());
            let arguments = [token.as_bytes(), at.as_bytes(), bytes];
            let call = self.0.scripts.append_step.call(&record, &arguments);
            write(&self.confirmed(&call).await?)
        })
    }
}

/// The answer of the script that reads.
fn steps(value: Value) -> Result<StepsRead, crate::store::StoreError> {
    let mut reply = Reply::new(value)?;
    Ok(match reply.number::<i64>("the script returned no code")? {
        1 => StepsRead::Log(
            reply
                .bytes()
                .ok_or_else(|| unreadable("the script returned no log"))?,
        ),
        0 => StepsRead::Fenced,
        _ => StepsRead::Missing,
    })
}
