//! What a server says about whether it keeps acknowledged writes. It is asked when a store is opened, and with each
//! connection that is made later.

use redis::{Pipeline, RedisError, RedisResult, Value};

use super::{
    error::denied,
    info::{Info, texts},
};
use crate::store::weakness::{FoundWeakness, Weakness};

/// What one server says.
pub(super) struct Durability {
    /// `None` if it does not permit `INFO`.
    pub(super) info: Option<Info>,
    pub(super) found: Vec<FoundWeakness>,
    /// The commands that it does not permit.
    pub(super) hidden: Vec<(&'static str, RedisError)>,
}

/// A setting that may keep an append-only file from being flushed: the command that reads it, its name, and the values
/// that are weaknesses.
struct Flush {
    command: &'static str,
    setting: &'static str,
    weak: &'static [(&'static str, Weakness)],
}

const FLUSHES: [Flush; 2] = [
    Flush {
        command: "CONFIG GET appendfsync",
        setting: "appendfsync",
        weak: &[
            ("no", Weakness::AppendFsyncNo),
            ("everysec", Weakness::AppendFsyncEverySecond),
        ],
    },
    Flush {
        command: "CONFIG GET no-appendfsync-on-rewrite",
        setting: "no-appendfsync-on-rewrite",
        weak: &[("yes", Weakness::NoAppendFsyncOnRewrite)],
    },
];

/// How many replies the [questions] get.
pub(super) const REPLIES: usize = 1 + FLUSHES.len();

/// What a server is asked, in one message.
pub(super) fn questions() -> Pipeline {
    let mut questions = redis::pipe();
    questions.cmd("INFO");
    for flush in FLUSHES {
        questions.cmd("CONFIG").arg("GET").arg(flush.setting);
    }
    questions
}

impl Durability {
    /// Reads the replies. An error that is not that of a permission is returned.
    pub(super) fn read(replies: Vec<Value>) -> RedisResult<Self> {
        let mut said = Self {
            info: None,
            found: Vec::new(),
            hidden: Vec::new(),
        };
        let mut replies = replies.into_iter().map(Value::extract_error);
        let mut next = || replies.next().unwrap_or(Ok(Value::Nil));
        let Some(info) = said.note("INFO", next())? else {
            return Ok(said);
        };
        let info = Info::read(info);
        info.weaknesses(&mut said.found);
        let append_only = info.append_only();
        said.info = Some(info);
        // Without the file its settings mean nothing.
        for flush in FLUSHES.into_iter().filter(|_| append_only) {
            let Some(reply) = said.note(flush.command, next())? else {
                continue;
            };
            // The value, and the name of the setting on servers that repeat it.
            let texts: Vec<_> = texts(reply).collect();
            let weak = flush.weak.iter();
            let weak = weak.filter(|(value, _)| texts.iter().any(|text| text == value));
            let found = weak.map(|(value, weakness)| FoundWeakness::new(*weakness, *value));
            said.found.extend(found);
        }
        said.found.sort();
        Ok(said)
    }

    /// The reply, unless the server does not permit the command.
    fn note(
        &mut self,
        command: &'static str,
        reply: RedisResult<Value>,
    ) -> RedisResult<Option<Value>> {
        match reply {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if denied(&error) => {
                self.hidden.push((command, error));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the server is not ready: it answers `INFO` and does not know its keys yet.
    pub(super) fn is_loading(&self) -> bool {
        self.info
            .as_ref()
            .is_some_and(|info| info.get("loading") == "1")
    }
}
