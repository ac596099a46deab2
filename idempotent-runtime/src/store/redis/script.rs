//! The operations on the server: one script each, called by its hash.

use bytes::Bytes;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};

use super::NAME;
use crate::store::{
    error::{StoreError, StoreErrorKind},
    record::Write,
};

/// All scripts of one server.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) acquire: Script,
    pub(super) renew: Script,
    pub(super) complete: Script,
    pub(super) release: Script,
    pub(super) abandon: Script,
    pub(super) get: Script,
    pub(super) read_steps: Script,
    pub(super) append_step: Script,
    pub(super) forget: Script,
    pub(super) append: Script,
    pub(super) events: Script,
}

/// A script and its hash.
#[derive(Debug)]
pub(super) struct Script {
    code: String,
    hash: String,
}

/// One call of a script, sent by hash or, if the server does not know the hash, by text.
#[derive(Debug)]
pub(super) struct Call<'a> {
    script: &'a Script,
    arguments: Vec<&'a [u8]>,
}

impl Scripts {
    /// The scripts for a server that supports script flags (version 7 and later), or for an older one.
    ///
    /// At its memory limit a server refuses new records, as it should. With the flag it still accepts writes to
    /// existing records: their lease can be renewed and their outcome stored, as the contract requires.
    pub(super) fn new(flags: bool) -> Self {
        let flags = if flags {
            "#!lua flags=allow-oom
"
        } else {
            ""
        };
        let owned = |code: &str| Script::new(format!("{flags}{code}"));
        Self {
            acquire: Script::new(include_str!("acquire.lua").to_owned()),
            renew: owned(include_str!("renew.lua")),
            complete: owned(include_str!("complete.lua")),
            release: owned(include_str!("release.lua")),
            abandon: owned(include_str!("abandon.lua")),
            get: Script::new(include_str!("get.lua").to_owned()),
            read_steps: Script::new(include_str!("read_steps.lua").to_owned()),
            append_step: owned(include_str!("append_step.lua")),
            forget: owned(include_str!("forget.lua")),
            append: Script::new(include_str!("append.lua").to_owned()),
            events: Script::new(include_str!("events.lua").to_owned()),
        }
    }

    /// The commands that load all scripts.
    pub(super) fn load(&self) -> impl Iterator<Item = Cmd> {
        let all = [
            &self.acquire,
            &self.renew,
            &self.complete,
            &self.release,
            &self.abandon,
            &self.get,
            &self.read_steps,
            &self.append_step,
            &self.forget,
            &self.append,
            &self.events,
        ];
        all.into_iter().map(|script| {
            let mut command = redis::cmd("SCRIPT");
            command.arg("LOAD").arg(&script.code);
            command
        })
    }
}

impl Script {
    fn new(code: String) -> Self {
        let hash = redis::Script::new(&code).get_hash().to_owned();
        Self { code, hash }
    }

    /// A call for one record.
    pub(super) fn call<'a>(&'a self, record: &'a str, arguments: &[&'a [u8]]) -> Call<'a> {
        let mut all = Vec::with_capacity(1 + arguments.len());
        all.push(record.as_bytes());
        all.extend_from_slice(arguments);
        Call {
            script: self,
            arguments: all,
        }
    }
}

impl Call<'_> {
    /// The name of the record's key.
    pub(super) fn record(&self) -> &[u8] {
        self.arguments.first().copied().unwrap_or_default()
    }

    /// The call by hash.
    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.hash)
    }

    /// The call by text, for a server that was restarted; it knows the hash afterwards.
    pub(super) fn by_text(&self) -> Cmd {
        self.command("EVAL", &self.script.code)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        // An argument may be a large response; reserving its size saves copying it as the buffer grows.
        let bytes = self
            .arguments
            .iter()
            .map(|argument| argument.len())
            .sum::<usize>();
        let arguments = 3 + self.arguments.len();
        let mut command = Cmd::with_capacity(arguments, bytes + name.len() + script.len() + 1);
        command.arg(name).arg(script).arg(1);
        for argument in &self.arguments {
            command.arg(*argument);
        }
        command
    }
}

/// The elements of a reply, in order. An unexpected element means that the record cannot be read.
pub(super) struct Reply(std::vec::IntoIter<Value>);

impl Reply {
    pub(super) fn new(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            _ => Err(unreadable("the script did not return a list")),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// The next element, which must be a number in the range of `T`.
    pub(super) fn number<T: TryFrom<i64>>(&mut self, what: &'static str) -> Result<T, StoreError> {
        match self.0.next() {
            Some(Value::Int(number)) => T::try_from(number).map_err(|_| unreadable(what)),
            _ => Err(unreadable(what)),
        }
    }

    /// The next element, if it is a string.
    pub(super) fn bytes(&mut self) -> Option<Bytes> {
        bytes(self.value())
    }

    /// The next element, whatever it is.
    pub(super) fn value(&mut self) -> Value {
        self.0.next().unwrap_or(Value::Nil)
    }
}

/// The bytes, if this is a string.
pub(super) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(Bytes::from(bytes)),
        _ => None,
    }
}

/// The answer of the scripts that write.
pub(super) fn write(value: &Value) -> Result<Write, StoreError> {
    match value {
        Value::Int(1) => Ok(Write::Applied),
        Value::Int(0) => Ok(Write::Fenced),
        Value::Int(-1) => Ok(Write::Missing),
        _ => Err(unreadable("the script did not return a number")),
    }
}

/// Whether the server does not know the script: it was restarted, or another one took over.
pub(super) fn no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The error for a record that cannot be read.
pub(super) fn unreadable(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::new(NAME, StoreErrorKind::Corrupt).with_source(why)
}
