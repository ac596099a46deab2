//! The settings, which come from the environment.
//!
//! | variable | default | |
//! |---|---|---|
//! | `PORT` | 8000 | where to listen on 127.0.0.1; 0 takes a free one |
//! | `TTL` | 24h | how long outcomes are replayed |
//! | `LEASE` | 30s | how long an execution keeps its key without a heartbeat |
//! | `WAIT_TIMEOUT` | 30s | how long a duplicate waits |
//! | `ON_CRASH` | refuse | `refuse` or `retry` |
//! | `NODE` | | a name that becomes part of ids: `a` makes `payment-a-1` |
//! | `LEDGER` | | a file to which each effect appends a line |
//! | `IDEMPOTENT_STORE` | `memory:` | the store, see [`store`](crate::store) |
//! | `ACCEPT` | | the weaknesses of the store's server to accept: `AppendOnlyOff,NoBinaryLog` |
//! | `RUST_LOG` | | what to log |
//!
//! 1. Durations are written as in the attribute: `500ms`, `30s`, `1h30m`, `24h`; the largest unit first.
//! 2. An empty value is the default. An invalid one ends the program with exit code 2.

use std::{env, error::Error, ffi::OsString, fmt, path::PathBuf, time::Duration};

use idempotent_runtime::{OnCrash, Policy, store::Weakness};

/// The settings.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) port: u16,
    pub(crate) policy: Policy,
    pub(crate) node: Option<String>,
    pub(crate) ledger: Option<PathBuf>,
    pub(crate) store: Option<String>,
    pub(crate) accept: Vec<Weakness>,
}

/// A variable with an invalid value.
#[derive(Debug)]
pub(crate) struct SettingError {
    name: &'static str,
    value: String,
    expected: &'static str,
}

const DURATION: &str = "a duration from 1ms to 36500d, such as 500ms, 30s, 1h30m or 24h";

impl Settings {
    /// Reads the environment.
    pub(crate) fn from_env() -> Result<Self, SettingError> {
        Self::read(|name| env::var_os(name))
    }

    fn read(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, SettingError> {
        let var = &|name: &'static str| var(name).filter(|value| !value.is_empty());
        let mut policy = Policy::new();
        if let Some(ttl) = read(var, "TTL", DURATION, duration)? {
            policy = policy.ttl(ttl);
        }
        if let Some(lease) = read(var, "LEASE", DURATION, duration)? {
            policy = policy.lease(lease);
        }
        if let Some(wait_timeout) = read(var, "WAIT_TIMEOUT", DURATION, duration)? {
            policy = policy.wait_timeout(wait_timeout);
        }
        if let Some(on_crash) = read(var, "ON_CRASH", "refuse or retry", on_crash)? {
            policy = policy.on_crash(on_crash);
        }
        let port = read(var, "PORT", "a port number", |text| text.parse().ok())?;
        let node = read(var, "NODE", "letters, digits, - and _", node)?;
        let store = read(var, "IDEMPOTENT_STORE", "a URL", |text| {
            Some(text.to_owned())
        })?;
        let accept = read(
            var,
            "ACCEPT",
            "names of weaknesses, with commas between them",
            weaknesses,
        )?;
        Ok(Self {
            port: port.unwrap_or(8000),
            policy,
            node,
            ledger: var("LEDGER").map(PathBuf::from),
            store,
            accept: accept.unwrap_or_default(),
        })
    }
}

/// The value of a variable, if it has one.
fn read<T>(
    var: impl Fn(&'static str) -> Option<OsString>,
    name: &'static str,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, SettingError> {
    let Some(value) = var(name) else {
        return Ok(None);
    };
    match value.to_str().and_then(parse) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(SettingError {
            name,
            value: value.to_string_lossy().into_owned(),
            expected,
        }),
    }
}

/// Parses numbers with units, the largest first, within the bounds of [`Policy`], which panics beyond them.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    const LONGEST: u64 = 36_500 * UNITS[0].1;
    let mut units = UNITS.iter();
    let mut rest = text;
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let (number, unit, after) = part(rest)?;
        // The search goes on behind the last unit: each unit occurs once, in descending order.
        let (_, size) = units.find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(number.parse::<u64>().ok()?.checked_mul(*size)?)?;
        rest = after;
    }
    (1..=LONGEST)
        .contains(&millis)
        .then(|| Duration::from_millis(millis))
}

/// The first number, its unit, and the rest.
fn part(text: &str) -> Option<(&str, &str, &str)> {
    let (number, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let letters = rest
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (unit, after) = rest.split_at(letters);
    Some((number, unit, after))
}

fn on_crash(text: &str) -> Option<OnCrash> {
    match text {
        "refuse" => Some(OnCrash::Refuse),
        "retry" => Some(OnCrash::Retry),
        _ => None,
    }
}

fn weaknesses(text: &str) -> Option<Vec<Weakness>> {
    let names = text.split(',').map(str::trim);
    names.map(|name| name.parse().ok()).collect()
}

/// A name that stays one word in ids and in the ledger.
fn node(text: &str) -> Option<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.chars().all(word).then(|| text.to_owned())
}

impl Error for SettingError {}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            value,
            expected,
        } = self;
        write!(f, "invalid {name}={value:?}: expected {expected}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(name: &str, value: &str) -> Result<Settings, String> {
        Settings::read(|asked| (asked == name).then(|| value.into()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn durations_are_written_as_in_the_attribute() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("24h", 86_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("36500d", 3_153_600_000_000),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "0s",
            "24",
            "h",
            "-1s",
            "1.5h",
            "1h 30m",
            "30m1h",
            "1s1s",
            "1H",
            "2w",
            "36501d",
            "99999999999999999999s",
            "18446744073709551615d",
            "1m18446744073709551615ms",
        ] {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_invalid_value_is_reported_with_what_was_expected() {
        for (name, value, expected) in [
            ("TTL", "soon", "a duration"),
            ("LEASE", "0s", "a duration"),
            ("WAIT_TIMEOUT", "5", "a duration"),
            ("ON_CRASH", "ignore", "refuse or retry"),
            ("PORT", "http", "a port number"),
            ("NODE", "a b", "letters"),
        ] {
            let error = settings(name, value).expect_err(name);
            let start = format!("invalid {name}={value:?}: expected {expected}");
            assert!(error.starts_with(&start), "{error}");
        }
    }

    #[test]
    fn nothing_and_an_empty_value_are_the_defaults() {
        for name in ["TTL", "LEASE", "ON_CRASH", "PORT", "NODE", "LEDGER"] {
            let settings = settings(name, "").expect(name);
            assert_eq!((settings.port, settings.node), (8000, None));
            assert_eq!(settings.ledger, None);
        }
    }
}
