//! What this process knows of the steps of one execution, and the log in which the store keeps them.

use std::{
    future::Future,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tracing::{Instrument, instrument::WithSubscriber};

use super::{
    MAX_NAME, MAX_STEPS,
    entry::{Entry, read_log},
    error::{Cause, StepFault},
};
use crate::{
    engine::core::services::Services,
    response::Binding,
    store::{Held, StepsRead, StoreError, StoreErrorKind, Write, steps::MAX_LOG},
};

/// The steps of one execution. Nothing is allocated before the first one.
#[derive(Default)]
pub(crate) struct Steps(OnceLock<Arc<Known>>);

#[derive(Default)]
struct Known {
    begun: Mutex<Vec<Begun>>,
    /// Held while the log is read or appended to: an append names where the one before it ended. Only [tasks](apart) wait
    /// for it and hold it: a handler may keep the future of one step unpolled while it awaits another one.
    log: AsyncMutex<Log>,
}

/// A step that the handler has asked for; its index is the position.
struct Begun {
    name: Box<str>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Runs,
    /// It ran and its outcome is not known, or not stored.
    Open,
    Done,
}

#[derive(Default)]
struct Log {
    /// Whether the steps of earlier attempts are here.
    is_read: bool,
    entries: Vec<Entry>,
    /// How long the stored log is.
    bytes: usize,
    /// A step whose append was not acknowledged: it may be in the log or not.
    pending: Option<(Entry, Vec<u8>)>,
}

/// Where the steps of an execution are kept, and under which token.
#[derive(Clone)]
pub(crate) struct StepAccess {
    pub(crate) services: Arc<Services>,
    pub(crate) held: Held,
    pub(crate) binding: Binding,
    /// No attempt came before: there is nothing to read.
    pub(crate) is_first_attempt: bool,
    /// The handler has a database transaction, in which the record is completed.
    pub(crate) in_transaction: bool,
}

/// The turn of one step. Dropped before the step is done, it may be asked for again.
pub(super) struct Turn {
    known: Arc<Known>,
    pub(super) position: u16,
}

impl Steps {
    /// Whether the handler has asked for any step.
    pub(crate) fn any_begun(&self) -> bool {
        self.0.get().is_some_and(|known| !known.begun().is_empty())
    }

    /// Registers the step. Its position is that of its first call among those of all steps.
    pub(super) fn begin(&self, name: &str) -> Result<Turn, StepFault> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(Cause::Name { bytes: name.len() }.into());
        }
        let known = self.known();
        let mut begun = known.begun();
        let position = match begun.iter_mut().position(|step| *step.name == *name) {
            Some(at) if begun[at].state != State::Open => {
                let runs = begun[at].state == State::Runs;
                let step = name.into();
                return Err(Cause::Repeated { step, runs }.into());
            }
            Some(at) => {
                begun[at].state = State::Runs;
                at
            }
            None if begun.len() == MAX_STEPS => {
                return Err(Cause::TooMany { step: name.into() }.into());
            }
            None => {
                begun.push(Begun {
                    name: name.into(),
                    state: State::Runs,
                });
                begun.len() - 1
            }
        };
        Ok(Turn {
            known: Arc::clone(known),
            // Invariant: there are at most `MAX_STEPS`.
            position: u16::try_from(position).expect("positions are bounded"),
        })
    }

    /// The stored outcome of this step, if it is known.
    pub(super) async fn stored(
        &self,
        access: &StepAccess,
        position: u16,
        name: &str,
        tag: &str,
    ) -> Result<Option<bytes::Bytes>, StepFault> {
        let store = &access.services.store;
        if !store.keeps_steps() {
            let store = store.store().name();
            return Err(Cause::Unsupported { store }.into());
        }
        if access.in_transaction && store.locks_in_transactions() {
            return Err(Cause::Locked.into());
        }
        let known = Arc::clone(self.known());
        let (task, step) = (access.clone(), name);
        let (name, tag) = (Box::<str>::from(name), Box::<str>::from(tag));
        let look = async move {
            let mut log = known.log.lock().await;
            if !log.is_read {
                if !task.is_first_attempt {
                    log.read(&task, &name).await?;
                }
                log.is_read = true;
            }
            log.flush(&task, &name).await?;
            find(&log.entries, position, &name, &tag)
        };
        apart(access, step, look).await
    }

    /// Stores the outcome of a step.
    pub(super) async fn store(&self, access: &StepAccess, entry: Entry) -> Result<(), StepFault> {
        let known = Arc::clone(self.known());
        let (task, name) = (access.clone(), entry.name.clone());
        let step = name.clone();
        let append = async move {
            let mut log = known.log.lock().await;
            log.flush(&task, &name).await?;
            let bytes = entry.write(&task.services.sealer, &task.binding.of_steps());
            if log.bytes + bytes.len() > MAX_LOG {
                return Err(Cause::LogFull { step: name }.into());
            }
            log.pending = Some((entry, bytes));
            log.flush(&task, &name).await
        };
        apart(access, &step, append).await
    }

    fn known(&self) -> &Arc<Known> {
        self.0.get_or_init(Arc::default)
    }
}

impl Known {
    fn begun(&self) -> std::sync::MutexGuard<'_, Vec<Begun>> {
        // Nothing panics while it is held.
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs in a task, which goes on while the handler does not poll the step, or drops it.
async fn apart<T: Send + 'static>(
    access: &StepAccess,
    step: &str,
    work: impl Future<Output = Result<T, StepFault>> + Send + 'static,
) -> Result<T, StepFault> {
    let store = &access.services.store;
    let (answer, answered) = oneshot::channel();
    let task = async move {
        // Nobody may be left to hear it.
        let _ = answer.send(work.await);
    };
    store.spawn(task.in_current_span().with_current_subscriber());
    answered.await.unwrap_or_else(|_| {
        // The runtime shuts down.
        let error = StoreError::new(store.store().name(), StoreErrorKind::Unavailable);
        Err(unanswered(step, error))
    })
}

impl Log {
    /// Reads what earlier attempts stored.
    async fn read(&mut self, access: &StepAccess, step: &str) -> Result<(), StepFault> {
        let Services { store, sealer, .. } = &*access.services;
        let read = store.read_steps(&access.held).await;
        match read.map_err(|error| unanswered(step, error))? {
            StepsRead::Log(log) => {
                self.bytes = log.len();
                self.entries =
                    read_log(log, sealer, &access.binding.of_steps()).map_err(Cause::Unreadable)?;
                Ok(())
            }
            StepsRead::Fenced | StepsRead::Missing => {
                Err(Cause::LeaseLost { step: step.into() }.into())
            }
        }
    }

    /// Appends the step that is pending, if there is one. It stays pending until the store has acknowledged it, also if
    /// this future is dropped.
    async fn flush(&mut self, access: &StepAccess, step: &str) -> Result<(), StepFault> {
        let Some((_, bytes)) = &self.pending else {
            return Ok(());
        };
        let store = &access.services.store;
        let written = store.append_step(&access.held, self.bytes, bytes).await;
        match written.map_err(|error| unanswered(step, error))? {
            Write::Applied => {
                self.bytes += bytes.len();
                self.entries
                    .extend(self.pending.take().map(|(entry, _)| entry));
                Ok(())
            }
            Write::Fenced | Write::Missing => Err(Cause::LeaseLost { step: step.into() }.into()),
        }
    }
}

impl Turn {
    /// The outcome of the step is stored.
    pub(super) fn done(self) {
        self.set(State::Done);
    }

    fn set(&self, state: State) {
        if let Some(step) = self.known.begun().get_mut(usize::from(self.position)) {
            step.state = state;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(step) = self.known.begun().get_mut(usize::from(self.position))
            && step.state == State::Runs
        {
            step.state = State::Open;
        }
    }
}

/// What is stored for the step at this position, if it is the step that is asked for.
fn find(
    entries: &[Entry],
    position: u16,
    name: &str,
    tag: &str,
) -> Result<Option<bytes::Bytes>, StepFault> {
    if let Some(other) = entries
        .iter()
        .find(|entry| entry.position == position && *entry.name != *name)
    {
        let (stored, asked) = (other.name.clone(), name.into());
        return Err(Cause::Other {
            position,
            stored,
            asked,
        }
        .into());
    }
    let Some(entry) = entries.iter().find(|entry| *entry.name == *name) else {
        return Ok(None);
    };
    if entry.position != position {
        let (stored, asked) = (entry.position, position);
        return Err(Cause::Moved {
            step: name.into(),
            stored,
            asked,
        }
        .into());
    }
    if *entry.tag != *tag {
        let (stored, asked) = (entry.tag.clone(), tag.into());
        return Err(Cause::Retyped {
            step: name.into(),
            stored,
            asked,
        }
        .into());
    }
    Ok(Some(entry.outcome.clone()))
}

fn unanswered(step: &str, error: StoreError) -> StepFault {
    let step = step.into();
    Cause::Store { step, error }.into()
}
