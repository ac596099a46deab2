//! [`Administrable`]: what operators do to a store beside looking at it, and the memory of what they did.
//!
//! No part of the promise depends on it: the engine alone never calls it for a request.
//!
//! # The rules
//!
//! 1. **Events are only appended.** The store gives each its time, by its own clock, and keeps them independently of the
//!    records: a purge deletes none. A store may bound how many it keeps, and says so.
//! 2. **[`forget`](Administrable::forget) deletes only what was seen.** It names the record by key, fingerprint and attempt,
//!    and deletes it only while it is completed (or a tombstone) and these are still its own. A record in flight is
//!    [`Fenced`](Write::Fenced), and so is one that was made again since.
//! 3. **Neither contains what a client sent or got**: no key, no header, no body. A reason is what an operator wrote.

use std::{fmt, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{erased::Operation, record::Write};
use crate::{fingerprint::Fingerprint, scope::StoreKey};

/// Deletes completed records, and keeps what operators did. See the [module documentation](self) for the rules.
///
/// Object-safe: [`Store::administrable`](super::Store::administrable) gives it. A method is implemented as
/// `Box::pin(async move { … })`.
pub trait Administrable: Send + Sync {
    /// Keeps this event.
    ///
    /// # Errors
    ///
    /// When the store fails: then the event may have been kept or not.
    fn append<'a>(&'a self, event: &'a Event) -> Operation<'a, ()>;

    /// The newest events, at most `limit`, the newest first. An event that a newer version of this crate kept and that
    /// this one cannot read is left out.
    ///
    /// # Errors
    ///
    /// When the store fails.
    fn events(&self, limit: usize) -> Operation<'_, Vec<Kept>>;

    /// Deletes this completed record.
    ///
    /// # Errors
    ///
    /// When the store fails: then the record may have been deleted or not, and a repetition finds out.
    fn forget<'a>(&'a self, record: &'a Seen) -> Operation<'a, Write>;
}

/// A completed record, as an operator saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// The record's identity.
    pub key: StoreKey,
    /// What its request asked for.
    pub fingerprint: Fingerprint,
    /// The number of its newest lease.
    pub attempt: u32,
}

impl Seen {
    /// This record.
    #[must_use]
    pub fn new(key: StoreKey, fingerprint: Fingerprint, attempt: u32) -> Self {
        Self {
            key,
            fingerprint,
            attempt,
        }
    }
}

/// Something that an operator did to a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// Which act this belongs to: an act is kept when it begins and again when it has ended.
    pub act: Box<str>,
    /// Who it was, as the tool was told.
    pub actor: Box<str>,
    /// What was done.
    pub action: Action,
    /// How far it is.
    pub stage: Stage,
    /// All 64 digits of the record's key.
    pub record: Box<str>,
    /// The endpoint of the record, if it is known.
    pub endpoint: Option<Box<str>>,
    /// Why, in the operator's words.
    pub reason: Box<str>,
    /// What the record was before: its state and attempt.
    pub before: Box<str>,
    /// What became of it; empty when the act begins.
    pub after: Box<str>,
}

/// What an operator does to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// Stored the response of an execution whose outcome was unknown.
    Resolve,
    /// Said that nothing was executed, so that the next retry executes.
    Release,
    /// Deleted a completed record, so that its key executes again.
    Forget,
    /// Looked at a stored response.
    Reveal,
}

/// How far an act is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It is about to be done. If nothing follows, nobody knows whether it was.
    Begun,
    /// It was done.
    Done,
    /// It was not done, or not certainly: `after` says why.
    Failed,
}

/// An event as a store kept it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// When the store was told, by its clock.
    pub at: SystemTime,
    /// What it was told.
    pub event: Event,
}

impl Kept {
    /// This event, kept at this time.
    #[must_use]
    pub fn new(at: SystemTime, event: Event) -> Self {
        Self { at, event }
    }
}

impl Event {
    /// The event as a store writes it down: one JSON object.
    #[must_use]
    #[expect(
        clippy::missing_panics_doc,
        reason = "texts and the names of variants are always JSON"
    )]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and names are JSON")
    }

    /// The event that a store wrote down; `None` if a newer version of this crate wrote it otherwise.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Resolve => "resolve",
            Self::Release => "release",
            Self::Forget => "forget",
            Self::Reveal => "reveal",
        })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Failed => "failed",
        })
    }
}
