//! [`Weakness`]: the settings of servers and files by which acknowledged writes may be lost.

use std::{error::Error, fmt, str::FromStr};

/// What is known of a weakness.
struct About {
    /// The server's name of the setting.
    setting: &'static str,
    /// What may happen.
    risk: &'static str,
    /// What to set instead.
    mend: &'static str,
    /// Whether a store is opened nevertheless, with a warning.
    #[cfg_attr(
        not(any(feature = "redis", feature = "sql")),
        expect(dead_code, reason = "read by the stores that have weaknesses")
    )]
    only_warned: bool,
}

macro_rules! weaknesses {
    ($($(#[$doc:meta])* $name:ident: $setting:literal, $risk:literal, $mend:literal, $only_warned:literal;)+) => {
        /// A setting by which a server, or a file, may lose what it has acknowledged: then a retry executes a second time.
        ///
        /// A store that finds one when it connects is not opened, unless that weakness was
        /// [accepted](super::ConnectOptions::accept); then the log has a warning. Two are so common that a store is opened
        /// without, with the warning, which ends when they are accepted: [`AppendFsyncEverySecond`] and [`NoBinaryLog`].
        /// Accepting one accepts no other.
        ///
        /// A weakness is written and parsed by its name here: `"FsyncOff".parse()`.
        ///
        /// [`AppendFsyncEverySecond`]: Self::AppendFsyncEverySecond
        /// [`NoBinaryLog`]: Self::NoBinaryLog
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Weakness {
            $($(#[$doc])* $name,)+
        }

        impl Weakness {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            const fn about(self) -> About {
                match self {
                    $(Self::$name => About {
                        setting: $setting,
                        risk: $risk,
                        mend: $mend,
                        only_warned: $only_warned,
                    },)+
                }
            }
        }
    };
}

weaknesses! {
    /// Redis: `appendonly no`. All writes since the last snapshot are lost with the process.
    AppendOnlyOff: "appendonly", "a kill loses all writes since the last snapshot", "appendonly yes", false;
    /// Redis: `appendfsync no`. The append-only file is written and never flushed.
    AppendFsyncNo: "appendfsync", "its append-only file is never flushed, so that a crash of its machine loses writes",
        "appendfsync always", false;
    /// Redis: `appendfsync everysec`. A crash of the machine loses the last second, or two while its disk is slow.
    AppendFsyncEverySecond: "appendfsync", "a crash of its machine loses up to two seconds of writes",
        "appendfsync always", true;
    /// Redis: `no-appendfsync-on-rewrite yes`. Nothing is flushed during a rewrite or a snapshot, which may take minutes.
    NoAppendFsyncOnRewrite: "no-appendfsync-on-rewrite", "its append-only file is not flushed during rewrites",
        "no-appendfsync-on-rewrite no", false;
    /// Redis: a `maxmemory` with any `maxmemory-policy` but `noeviction`. Records are evicted, in flight or not.
    Eviction: "maxmemory-policy", "it evicts records at its memory limit", "maxmemory-policy noeviction", false;
    /// PostgreSQL: `fsync = off`. A crash of the machine may lose everything.
    FsyncOff: "fsync", "a crash of its machine may lose everything", "fsync = on", false;
    /// PostgreSQL: `full_page_writes = off`. A crash of the machine may destroy pages.
    FullPageWritesOff: "full_page_writes", "a crash of its machine may destroy pages", "full_page_writes = on", false;
    /// PostgreSQL: sessions with `synchronous_commit = off`. A crash of the server loses acknowledged writes. The store's
    /// own sessions set it to `on`.
    SynchronousCommitOff: "synchronous_commit", "a crash of the server loses acknowledged writes",
        "synchronous_commit = on for these sessions", false;
    /// PostgreSQL: sessions with `synchronous_commit = local` at a server with synchronous standbys. A failover loses
    /// acknowledged writes.
    SynchronousCommitLocal: "synchronous_commit",
        "commits do not wait for the synchronous standbys, so that a failover loses acknowledged writes",
        "synchronous_commit = on", false;
    /// MySQL and MariaDB: `innodb_flush_log_at_trx_commit` is 0 or 2. A crash loses acknowledged writes.
    InnodbFlushLogAtTrxCommit: "innodb_flush_log_at_trx_commit", "a crash loses acknowledged writes",
        "innodb_flush_log_at_trx_commit = 1", false;
    /// MySQL and MariaDB: a binary log with `sync_binlog` other than 1. A crash loses acknowledged writes.
    SyncBinlog: "sync_binlog", "with a binary log, a crash loses acknowledged writes", "sync_binlog = 1", false;
    /// MySQL and MariaDB: `innodb_doublewrite = OFF`. A crash of the machine may destroy pages.
    InnodbDoublewriteOff: "innodb_doublewrite", "a crash of its machine may destroy pages", "innodb_doublewrite = ON", false;
    /// MySQL and MariaDB: no binary log. The server shows commits a moment before they are on disk, so that a crash may take
    /// a replay back.
    NoBinaryLog: "log_bin", "it has no binary log and shows commits a moment before they are on disk, so that a crash may take a replay back",
        "log_bin with sync_binlog = 1", true;
    /// SQLite: a pragma of an application's pool sets `synchronous` lower than `FULL` (2). A crash of the machine loses
    /// acknowledged writes.
    SynchronousBelowFull: "synchronous", "a crash of its machine loses acknowledged writes",
        "synchronous = FULL, or remove the pragma from the pool's options", false;
}

/// A weakness that was found, with the value of its setting.
///
/// Printed, it says what may happen, what to set instead, and how to accept it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundWeakness {
    /// What was found.
    pub weakness: Weakness,
    /// The value of its setting.
    pub value: String,
}

/// A text that is not the name of a [`Weakness`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWeakness(String);

/// What an operator accepts of a server. Nothing unless said.
#[derive(Clone, Copy, Default)]
pub(crate) struct Accepted {
    /// A bit for each weakness.
    weaknesses: u32,
    /// Whether settings that could not be read are accepted too.
    pub(crate) unverified: bool,
}

impl FoundWeakness {
    #[cfg(any(feature = "redis", feature = "sql"))]
    pub(crate) fn new(weakness: Weakness, value: impl Into<String>) -> Self {
        let value = value.into();
        Self { weakness, value }
    }
}

impl Accepted {
    pub(crate) fn accept(&mut self, weakness: Weakness) {
        self.weaknesses |= Self::bit(weakness);
    }

    fn has(self, weakness: Weakness) -> bool {
        self.weaknesses & Self::bit(weakness) != 0
    }

    const fn bit(weakness: Weakness) -> u32 {
        1 << weakness as u32
    }
}

#[cfg(any(feature = "redis", feature = "sql"))]
impl Accepted {
    /// Those for which a store is not opened, each once.
    pub(crate) fn refused(self, found: &[FoundWeakness]) -> Vec<FoundWeakness> {
        let mut refused: Vec<_> = found
            .iter()
            .filter(|found| !found.weakness.about().only_warned && !self.has(found.weakness))
            .cloned()
            .collect();
        refused.sort();
        refused.dedup();
        refused
    }

    /// Logs what a store is opened with: what was accepted, and what is only warned of.
    ///
    /// # Errors
    ///
    /// What was not accepted.
    pub(crate) fn judge(
        self,
        store: &'static str,
        mut found: Vec<FoundWeakness>,
    ) -> Result<(), Vec<FoundWeakness>> {
        let refused = self.refused(&found);
        if !refused.is_empty() {
            return Err(refused);
        }
        found.sort();
        found.dedup();
        for FoundWeakness { weakness, value } in found {
            let About {
                setting,
                risk,
                only_warned,
                ..
            } = weakness.about();
            if !self.has(weakness) {
                tracing::warn!(
                    store,
                    "`{setting}` of the server is `{value}`: {risk}. {}",
                    Advice(weakness)
                );
            } else if !only_warned {
                tracing::warn!(
                    store,
                    "`{setting}` of the server is `{value}`, as was accepted: {risk}"
                );
            }
        }
        Ok(())
    }
}

/// How to mend or to accept a weakness.
struct Advice(Weakness);

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(weakness) = self;
        write!(
            f,
            "Set {}, or accept it with `accept(Weakness::{weakness})`",
            weakness.about().mend
        )
    }
}

/// The sentence of an error about what was found.
#[cfg(any(feature = "redis", feature = "sql"))]
pub(crate) fn write_found(
    store: &str,
    found: &[FoundWeakness],
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    write!(f, "this {store} store may lose acknowledged writes")?;
    found.iter().try_for_each(|found| write!(f, "; {found}"))
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for FoundWeakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { weakness, value } = self;
        let About { setting, risk, .. } = weakness.about();
        write!(f, "`{setting}` is `{value}`: {risk}. {}", Advice(*weakness))
    }
}

impl FromStr for Weakness {
    type Err = UnknownWeakness;

    fn from_str(name: &str) -> Result<Self, UnknownWeakness> {
        let mut all = Self::ALL.iter().copied();
        all.find(|weakness| weakness.name() == name)
            .ok_or_else(|| UnknownWeakness(name.to_owned()))
    }
}

impl fmt::Display for UnknownWeakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a weakness: expected one of", self.0)?;
        let separators = std::iter::once(" ").chain(std::iter::repeat(", "));
        Weakness::ALL
            .iter()
            .zip(separators)
            .try_for_each(|(weakness, separator)| write!(f, "{separator}{weakness}"))
    }
}

impl Error for UnknownWeakness {}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = Weakness::ALL.iter().filter(|weakness| self.has(**weakness));
        let mut set = f.debug_set();
        set.entries(all);
        if self.unverified {
            set.entry(&"unverified");
        }
        set.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_weakness_is_found_by_its_name_and_accepted_alone() {
        assert!(Weakness::ALL.len() <= 32, "a bit for each");
        for accepted in Weakness::ALL {
            assert_eq!(accepted.to_string().parse(), Ok(*accepted));
            let mut some = Accepted::default();
            some.accept(*accepted);
            for other in Weakness::ALL {
                assert_eq!(some.has(*other), accepted == other);
            }
        }
        let error = "Fsync".parse::<Weakness>().expect_err("no such name");
        let error = error.to_string();
        assert!(
            error.contains("\"Fsync\"") && error.contains(" FsyncOff, "),
            "{error}"
        );
    }

    #[cfg(any(feature = "redis", feature = "sql"))]
    #[test]
    fn what_is_refused_says_how_to_mend_it_and_how_to_accept_it() {
        for weakness in Weakness::ALL {
            let found = [FoundWeakness::new(*weakness, "its value")];
            let text = found[0].to_string();
            let accept = format!("`accept(Weakness::{weakness:?})`");
            for part in [
                weakness.about().setting,
                "`its value`",
                weakness.about().mend,
                &accept,
            ] {
                assert!(text.contains(part), "{text}");
            }
            let refused = !weakness.about().only_warned;
            let mut accepted = Accepted::default();
            assert_eq!(!accepted.refused(&found).is_empty(), refused);
            accepted.accept(*weakness);
            assert_eq!(accepted.refused(&found), []);
        }
    }
}
