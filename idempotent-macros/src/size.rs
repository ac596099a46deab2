//! Sizes such as `"1MiB"`.
//!
//! 1. A whole number and a unit: `B`, `KiB`, `MiB` or `GiB`.
//! 2. Larger than zero, and less than 4 GiB, so that it fits `usize` on every target.

use crate::suggest;

/// The units with their bytes.
const UNITS: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Reads a size in bytes.
///
/// # Errors
///
/// A message that says what is wrong with `text` and what to write instead.
pub(crate) fn parse(text: &str) -> Result<u32, String> {
    if text.contains(char::is_whitespace) {
        return Err(format!(
            "`{text}` is not a valid size: write the number and the unit without spaces, as in `1MiB`"
        ));
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!(
            "`{text}` is not a valid size: write a number and a unit, as in `64KiB` or `1MiB`"
        ));
    }
    if unit.is_empty() {
        return Err(format!(
            "`{text}` has no unit: write `{text}B` or `{text}KiB`, for example"
        ));
    }
    if unit.starts_with(['.', ',']) {
        return Err(format!(
            "`{text}` has a fraction: use a smaller unit, as in `1536KiB`"
        ));
    }
    let Some((_, bytes)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        let units = suggest::one_of(UNITS.iter().map(|(name, _)| *name));
        let meant = UNITS
            .iter()
            .find(|(name, _)| name.starts_with(&unit[..first_char(unit)].to_uppercase()));
        let hint = meant.map_or_else(String::new, |(name, _)| {
            format!("; did you mean `{number}{name}`?")
        });
        return Err(format!(
            "unknown unit `{unit}` in `{text}`: expected {units}{hint}"
        ));
    };
    let total = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*bytes));
    match total.map(u32::try_from) {
        Some(Ok(0)) => Err(format!("`{text}` is zero: write a larger size")),
        Some(Ok(total)) => Ok(total),
        _ => Err(format!("`{text}` is too large: write less than 4 GiB")),
    }
}

/// The length of the first character, for slicing.
fn first_char(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_every_unit() {
        for (text, bytes) in [
            ("1B", 1),
            ("64KiB", 65_536),
            ("1MiB", 1_048_576),
            ("3GiB", 3_221_225_472),
            ("4294967295B", u32::MAX),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_and_what_to_write() {
        for (text, says) in [
            ("", "not a valid size"),
            ("MiB", "not a valid size"),
            ("-1B", "not a valid size"),
            ("1024", "`1024B` or `1024KiB`"),
            ("0KiB", "is zero"),
            ("1.5MiB", "fraction"),
            ("1MB", "did you mean `1MiB`?"),
            ("1mib", "did you mean `1MiB`?"),
            ("64k", "did you mean `64KiB`?"),
            ("1 MiB", "without spaces"),
            (" 1MiB", "without spaces"),
            ("1MiB ", "without spaces"),
            ("1TiB", "expected one of `B`, `KiB`, `MiB`, `GiB`"),
            ("1é", "unknown unit"),
            ("4GiB", "too large"),
            ("99999999999999999999999B", "too large"),
            ("18446744073709551615GiB", "too large"),
        ] {
            let message = parse(text).expect_err(text);
            assert!(message.contains(says), "{text}: {message}");
        }
    }
}
