//! One step as it stands in the log of its record.
//!
//! The log is entry after entry, each behind its length (u32, big-endian) and sealed as a response is: compressed and
//! encrypted where the engine is told so. An entry is
//!
//! ```text
//! version   u8     1
//! position  u16    all numbers are big-endian
//! name      u8     its length, then its bytes (UTF-8)
//! type      u16    the same
//! outcome          what is left: JSON
//! ```

use bytes::Bytes;

use crate::response::{Binding, CorruptResponse, Sealer};

const VERSION: u8 = 1;

/// A step whose outcome is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) position: u16,
    pub(super) name: Box<str>,
    /// The type of the outcome, as [`type_tag`] names it.
    pub(super) tag: Box<str>,
    /// JSON.
    pub(super) outcome: Bytes,
}

/// Why a log cannot be read.
#[derive(Debug)]
pub(super) enum LogFlaw {
    Sealed(CorruptResponse),
    Version(u8),
    Truncated,
}

impl Entry {
    /// The entry as it is appended.
    pub(super) fn write(&self, sealer: &Sealer, binding: &Binding) -> Vec<u8> {
        let (name, tag) = (self.name.as_bytes(), self.tag.as_bytes());
        let mut entry = Vec::with_capacity(6 + name.len() + tag.len() + self.outcome.len());
        entry.push(VERSION);
        entry.extend(self.position.to_be_bytes());
        // Invariant: `check_name` bounds names, and `type_tag` tags.
        entry.push(u8::try_from(name.len()).expect("a name has at most 128 bytes"));
        entry.extend(name);
        entry.extend(
            u16::try_from(tag.len())
                .expect("a tag has at most 256 bytes")
                .to_be_bytes(),
        );
        entry.extend(tag);
        entry.extend_from_slice(&self.outcome);
        let at_rest = sealer.seal_bytes(&entry, binding);
        // Invariant: an outcome is far smaller than 4 GiB.
        let length = u32::try_from(at_rest.len()).expect("an entry is bounded");
        [&length.to_be_bytes()[..], &at_rest].concat()
    }

    fn read(mut entry: Bytes) -> Result<Self, LogFlaw> {
        let version = number::<1>(&mut entry)?;
        if version != u64::from(VERSION) {
            return Err(LogFlaw::Version(u8::try_from(version).unwrap_or(u8::MAX)));
        }
        let position = number::<2>(&mut entry)?;
        let position = u16::try_from(position).map_err(|_| LogFlaw::Truncated)?;
        let length = number::<1>(&mut entry)?;
        let name = text(&mut entry, length)?;
        let length = number::<2>(&mut entry)?;
        let tag = text(&mut entry, length)?;
        Ok(Self {
            position,
            name,
            tag,
            outcome: entry,
        })
    }
}

/// All entries of a log.
pub(super) fn read_log(
    mut log: Bytes,
    sealer: &Sealer,
    binding: &Binding,
) -> Result<Vec<Entry>, LogFlaw> {
    let mut entries = Vec::new();
    while !log.is_empty() {
        let length = number::<4>(&mut log)?;
        let at_rest = take(&mut log, length)?;
        let entry = sealer
            .open_bytes(at_rest, binding)
            .map_err(LogFlaw::Sealed)?;
        entries.push(Entry::read(entry)?);
    }
    Ok(entries)
}

fn number<const N: usize>(from: &mut Bytes) -> Result<u64, LogFlaw> {
    let bytes = take(from, N as u64)?;
    Ok(bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn text(from: &mut Bytes, length: u64) -> Result<Box<str>, LogFlaw> {
    let bytes = take(from, length)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| LogFlaw::Truncated)?;
    Ok(text.into())
}

fn take(from: &mut Bytes, length: u64) -> Result<Bytes, LogFlaw> {
    let length = usize::try_from(length).map_err(|_| LogFlaw::Truncated)?;
    if length > from.len() {
        return Err(LogFlaw::Truncated);
    }
    Ok(from.split_to(length))
}

/// A type's name without the modules that it is in, so that moving it is no change of it: `Result<Charge, Declined>`.
/// At most 256 bytes.
pub(super) fn type_tag<T>() -> Box<str> {
    let mut tag = String::new();
    // A path is a run of identifiers and `::`; only its last identifier counts.
    for part in std::any::type_name::<T>().split_inclusive(|c: char| !is_of_path(c)) {
        tag.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    // Some compilers name lifetimes, and others do not.
    for lifetime in ["<'_>", "'_, ", "'_ "] {
        tag = tag.replace(lifetime, "");
    }
    let end = tag.floor_char_boundary(256);
    tag.truncate(end);
    tag.into()
}

fn is_of_path(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == ':'
}

impl std::fmt::Display for LogFlaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sealed(flaw) => flaw.fmt(f),
            Self::Version(version) => write!(
                f,
                "a step has the unrecognised version {version} (written by a newer version?)"
            ),
            Self::Truncated => f.write_str("a step ends early"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fingerprint::Fingerprint, scope::StoreKey};

    fn binding() -> Binding {
        Binding {
            key: StoreKey::from_bytes([1; 32]),
            fingerprint: Fingerprint::from_bytes([2; 32]),
        }
    }

    fn entry(position: u16, name: &str) -> Entry {
        Entry {
            position,
            name: name.into(),
            tag: "Charge".into(),
            outcome: Bytes::from_static(br#"{"id":"ch_1"}"#),
        }
    }

    #[test]
    fn a_log_is_read_as_it_was_written() {
        let sealer = Sealer::default();
        let entries = [entry(0, "charge"), entry(7, ""), entry(u16::MAX, "mail/é")];
        let log: Vec<u8> = entries
            .iter()
            .flat_map(|entry| entry.write(&sealer, &binding()))
            .collect();
        let read = read_log(log.into(), &sealer, &binding()).unwrap();
        assert_eq!(read, entries);
    }

    #[test]
    fn a_log_that_ends_early_anywhere_is_an_error() {
        let sealer = Sealer::default();
        let log = entry(0, "charge").write(&sealer, &binding());
        for end in 1..log.len() {
            let cut = Bytes::copy_from_slice(&log[..end]);
            assert!(read_log(cut, &sealer, &binding()).is_err(), "{end}");
        }
    }

    #[cfg(feature = "encryption")]
    #[test]
    fn an_encrypted_step_opens_only_as_a_step_of_its_record() {
        let sealer = Sealer {
            keyring: Some(crate::response::Keyring::new(1, [7; 32])),
            ..Sealer::default()
        };
        let steps = binding().of_steps();
        let log = Bytes::from(entry(0, "charge").write(&sealer, &steps));
        assert!(!log.windows(4).any(|bytes| bytes == b"ch_1"));
        assert_eq!(read_log(log.clone(), &sealer, &steps).unwrap().len(), 1);
        for other in [
            binding(),
            Binding {
                key: StoreKey::from_bytes([9; 32]),
                ..steps
            },
        ] {
            assert!(read_log(log.clone(), &sealer, &other).is_err());
        }
        // And bytes that are not encrypted are not taken for a step.
        let plain = entry(0, "charge").write(&Sealer::default(), &steps);
        assert!(read_log(plain.into(), &sealer, &steps).is_err());
    }

    #[test]
    fn a_type_is_named_without_its_modules() {
        struct Charge<'a, T>(&'a T);
        assert_eq!(&*type_tag::<Charge<'static, u8>>(), "Charge<u8>");
        assert_eq!(
            &*type_tag::<Result<std::net::Ipv4Addr, Option<Vec<(String, [u8; 4])>>>>(),
            "Result<Ipv4Addr, Option<Vec<(String, [u8; 4])>>>"
        );
        assert_eq!(&*type_tag::<&'static str>(), "&str");
        assert_ne!(type_tag::<u32>(), type_tag::<u64>());
        let _ = Charge(&1).0;
    }
}
