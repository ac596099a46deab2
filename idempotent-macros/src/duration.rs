//! Durations such as `"24h"`.
//!
//! 1. One or more parts, each a whole number and a unit: `ms`, `s`, `m`, `h` or `d`.
//! 2. Largest unit first, no unit twice: `1h30m`.
//! 3. Longer than zero, and at most a hundred years, which the clock of every store can add.

use crate::suggest;

/// The units in descending order, with their milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The longest duration a policy takes, in days.
const MOST_DAYS: u64 = 36_500;

/// Reads a duration in milliseconds.
///
/// # Errors
///
/// A message that says what is wrong with `text` and what to write instead.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Err(
            "the duration is empty: write a number and a unit, as in `30s` or `1h30m`".into(),
        );
    }
    let mut rest = text;
    let mut total = 0_u64;
    let mut last: Option<usize> = None;
    while !rest.is_empty() {
        let (number, unit, after) = part(text, rest)?;
        let index = unit_index(text, unit, number)?;
        match last {
            Some(last) if last == index => {
                return Err(format!(
                    "`{text}` has the unit `{unit}` twice: add the numbers up"
                ));
            }
            Some(last) if last > index => {
                return Err(format!(
                    "`{text}` is out of order: write the largest unit first, as in `1h30m`"
                ));
            }
            _ => last = Some(index),
        }
        total = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(UNITS[index].1))
            .and_then(|more| total.checked_add(more))
            .filter(|total| *total <= MOST_DAYS * UNITS[0].1)
            .ok_or_else(|| {
                format!(
                    "`{text}` is too long: the longest duration is a hundred years (`{MOST_DAYS}d`)"
                )
            })?;
        rest = after;
    }
    if total == 0 {
        return Err(format!("`{text}` is zero: write a longer duration"));
    }
    Ok(total)
}

/// Splits the first number and its unit off `rest`.
fn part<'a>(text: &str, rest: &'a str) -> Result<(&'a str, &'a str, &'a str), String> {
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (number, rest) = rest.split_at(digits);
    let letters = rest
        .find(|c: char| !c.is_alphabetic())
        .unwrap_or(rest.len());
    let (unit, after) = rest.split_at(letters);
    match (number, unit) {
        ("", _) | (_, "") if rest.starts_with(['.', ',']) => Err(format!(
            "`{text}` has a fraction: use a smaller unit, as in `90m` for an hour and a half"
        )),
        ("", _) => Err(format!(
            "`{text}` is not a valid duration: write numbers and units without spaces, as in `30s` or `1h30m`"
        )),
        (_, "") if rest.is_empty() => Err(format!(
            "`{text}` ends without a unit: write `{text}s` or `{text}h`, for example"
        )),
        (_, "") => Err(format!(
            "`{text}` is not a valid duration: write numbers and units without spaces, as in `30s` or `1h30m`"
        )),
        _ => Ok((number, unit, after)),
    }
}

/// The index of the unit in [`UNITS`].
fn unit_index(text: &str, unit: &str, number: &str) -> Result<usize, String> {
    if let Some(index) = UNITS.iter().position(|(name, _)| *name == unit) {
        return Ok(index);
    }
    let meant = match unit.to_lowercase().as_str() {
        "msec" | "msecs" | "milli" | "millis" | "millisecond" | "milliseconds" => {
            Some(format!("{number}ms"))
        }
        "sec" | "secs" | "second" | "seconds" => Some(format!("{number}s")),
        "min" | "mins" | "minute" | "minutes" => Some(format!("{number}m")),
        "hr" | "hrs" | "hour" | "hours" => Some(format!("{number}h")),
        "day" | "days" => Some(format!("{number}d")),
        "w" | "week" | "weeks" => number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(7))
            .map(|days| format!("{days}d")),
        short => UNITS
            .iter()
            .find(|(name, _)| *name == short)
            .map(|(name, _)| format!("{number}{name}")),
    };
    let hint = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
    let units = suggest::one_of(UNITS.iter().rev().map(|(name, _)| *name));
    Err(format!(
        "unknown unit `{unit}` in `{text}`: expected {units}{hint}"
    ))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_every_unit_and_their_combinations() {
        for (text, millis) in [
            ("1ms", 1),
            ("30s", 30_000),
            ("15m", 900_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("0h1s", 1_000),
            ("36500d", 3_153_600_000_000),
        ] {
            assert_eq!(parse(text), Ok(millis), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_and_what_to_write() {
        for (text, says) in [
            ("", "empty"),
            ("0s", "is zero"),
            ("0h0m", "is zero"),
            ("24", "`24s` or `24h`"),
            ("1h30", "without a unit"),
            ("h", "not a valid duration"),
            ("-1s", "not a valid duration"),
            ("1h 30m", "without spaces"),
            (" 1h", "without spaces"),
            ("1.5h", "fraction"),
            ("30m1h", "largest unit first"),
            ("1s1ms1s", "largest unit first"),
            ("1h1h", "`h` twice"),
            ("24hours", "did you mean `24h`?"),
            ("90Min", "did you mean `90m`?"),
            ("5S", "did you mean `5s`?"),
            ("2w", "did you mean `14d`?"),
            ("3fortnights", "expected one of `ms`, `s`, `m`, `h`, `d`"),
            ("36501d", "too long"),
            ("36500d1ms", "too long"),
            ("99999999999999999999d", "too long"),
            ("18446744073709551615d", "too long"),
            ("５s", "not a valid duration"),
        ] {
            let message = parse(text).expect_err(text);
            assert!(message.contains(says), "{text}: {message}");
        }
    }
}
