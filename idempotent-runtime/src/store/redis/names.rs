//! The names of records and of their channels.

use std::fmt::Write as _;

use crate::{hex, hex::Hex, scope::StoreKey, store::inspect::KeyPrefix};

/// The names in one key space.
pub(super) struct Names {
    prefix: String,
    /// What the name of each channel begins with.
    channels: String,
}

impl Names {
    pub(super) fn new(prefix: String) -> Self {
        let channels = format!("{prefix}done:");
        Self { prefix, channels }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What the scripts make the name of a channel of: `{`, the name of the record and `}` follow.
    pub(super) fn channels(&self) -> &str {
        &self.channels
    }

    /// The name of the record's key.
    pub(super) fn record(&self, key: &StoreKey) -> String {
        let mut name = String::with_capacity(self.prefix.len() + 64);
        name.push_str(&self.prefix);
        // Writing to a string does not fail.
        let _ = write!(name, "{}", Hex(key.as_bytes()));
        name
    }

    /// What the names of all records match, or of those whose keys begin so, as `SCAN` takes it. A prefix contains no
    /// character with a meaning there.
    pub(super) fn pattern(&self, key: Option<&KeyPrefix>) -> String {
        let digits = key.map(ToString::to_string).unwrap_or_default();
        let rest = "?".repeat(64_usize.saturating_sub(digits.len()));
        format!("{}{digits}{rest}", self.prefix)
    }

    /// The stream of what operators did.
    pub(super) fn audit(&self) -> String {
        format!("{}audit", self.prefix)
    }

    /// The channel of a record. The braces put it into the record's slot: a script may publish in no other one.
    pub(super) fn channel(&self, key: &StoreKey) -> String {
        format!("{}{{{}}}", self.channels, self.record(key))
    }

    /// The key of the record that has this name.
    pub(super) fn key(&self, record: &[u8]) -> Option<StoreKey> {
        let digits = record.strip_prefix(self.prefix.as_bytes())?;
        hex::decode(digits).map(StoreKey::from_bytes)
    }

    /// The key of the record that has this channel.
    pub(super) fn key_of_channel(&self, channel: &[u8]) -> Option<StoreKey> {
        let rest = channel.strip_prefix(self.channels.as_bytes())?;
        self.key(rest.strip_prefix(b"{")?.strip_suffix(b"}")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_names() {
        let names = Names::new("a:".to_owned());
        let key = StoreKey::from_bytes(std::array::from_fn(|n| u8::try_from(n * 7).unwrap()));
        let (record, channel) = (names.record(&key), names.channel(&key));
        assert_eq!(channel, format!("a:done:{{{record}}}"));
        assert_eq!(names.key(record.as_bytes()), Some(key));
        assert_eq!(names.key_of_channel(channel.as_bytes()), Some(key));
        for other in ["a:done", "a:done:{}", "b:done:{x}", &record, "a:", "a:00"] {
            assert_eq!(names.key_of_channel(other.as_bytes()), None, "{other}");
        }
        assert_eq!(names.key(channel.as_bytes()), None);
        assert_eq!(names.key(names.audit().as_bytes()), None);
        let all = names.pattern(None);
        assert_eq!((all.len(), &all[..4]), (record.len(), "a:??"));
        let prefix = "00070e".parse().unwrap();
        assert!(names.pattern(Some(&prefix)).starts_with("a:00070e?"));
    }
}
