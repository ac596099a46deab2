//! [`KeyPrefix`]: the beginning of a key, as logs print it.

use std::{error::Error, fmt, str::FromStr};

use crate::{hex, scope::StoreKey};

/// The first digits of a [`StoreKey`], in hexadecimal. Logs and spans print sixteen of them.
///
/// ```
/// use idempotent_runtime::store::inspect::KeyPrefix;
///
/// let prefix: KeyPrefix = "d5f59136335e5363".parse()?;
/// assert_eq!(prefix.to_string(), "d5f59136335e5363");
/// # Ok::<_, idempotent_runtime::store::inspect::InvalidKeyPrefix>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyPrefix {
    /// Zeros behind the digits.
    lowest: [u8; 32],
    digits: usize,
}

/// Why a text is not the beginning of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidKeyPrefix {
    /// It has fewer than four digits, and would match too much.
    TooShort {
        /// How many it has.
        digits: usize,
    },
    /// It has more than the 64 digits of a key.
    TooLong {
        /// How many it has.
        digits: usize,
    },
    /// It has a character that is not a hexadecimal digit.
    NotHexadecimal {
        /// That character.
        found: char,
    },
}

impl KeyPrefix {
    /// The fewest digits.
    pub const MIN_DIGITS: usize = 4;

    /// The lowest key that begins so.
    #[must_use]
    pub fn lowest(&self) -> StoreKey {
        StoreKey::from_bytes(self.lowest)
    }

    /// The highest key that begins so.
    #[must_use]
    pub fn highest(&self) -> StoreKey {
        let mut bytes = self.lowest;
        for digit in self.digits..64 {
            bytes[digit / 2] |= if digit % 2 == 0 { 0xf0 } else { 0x0f };
        }
        StoreKey::from_bytes(bytes)
    }

    /// Whether this key begins so.
    #[must_use]
    pub fn matches(&self, key: &StoreKey) -> bool {
        (self.lowest().as_bytes()..=self.highest().as_bytes()).contains(&key.as_bytes())
    }
}

impl FromStr for KeyPrefix {
    type Err = InvalidKeyPrefix;

    /// Letters of either case; an ellipsis at the end, as `Debug` prints it, does not count.
    fn from_str(text: &str) -> Result<Self, InvalidKeyPrefix> {
        let text = text.strip_suffix('…').unwrap_or(text);
        let mut lowest = [0; 32];
        let mut digits = 0;
        for found in text.chars() {
            let digit = hex::digit(found).ok_or(InvalidKeyPrefix::NotHexadecimal { found })?;
            if let Some(byte) = lowest.get_mut(digits / 2) {
                *byte |= if digits % 2 == 0 { digit << 4 } else { digit };
            }
            digits += 1;
        }
        match digits {
            0..Self::MIN_DIGITS => Err(InvalidKeyPrefix::TooShort { digits }),
            Self::MIN_DIGITS..=64 => Ok(Self { lowest, digits }),
            _ => Err(InvalidKeyPrefix::TooLong { digits }),
        }
    }
}

impl From<&StoreKey> for KeyPrefix {
    /// The whole key.
    fn from(key: &StoreKey) -> Self {
        Self {
            lowest: *key.as_bytes(),
            digits: 64,
        }
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.digits).try_for_each(|digit| {
            let byte = self.lowest[digit / 2];
            let digit = if digit % 2 == 0 {
                byte >> 4
            } else {
                byte & 0x0f
            };
            write!(f, "{digit:x}")
        })
    }
}

impl fmt::Debug for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPrefix({self})")
    }
}

impl fmt::Display for InvalidKeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { digits } => write!(
                f,
                "{digits} digits of a key are too few: give at least {}, better the sixteen that logs print",
                KeyPrefix::MIN_DIGITS
            ),
            Self::TooLong { digits } => {
                write!(f, "{digits} digits are more than the 64 of a key")
            }
            Self::NotHexadecimal { found } => write!(
                f,
                "{found:?} is not a hexadecimal digit: give the digits of a key as logs print them"
            ),
        }
    }
}

impl Error for InvalidKeyPrefix {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_the_keys_between_its_lowest_and_its_highest() {
        let prefix: KeyPrefix = "aBcD5".parse().unwrap();
        let key = |first: [u8; 4], rest| {
            let mut bytes = [rest; 32];
            bytes[..4].copy_from_slice(&first);
            StoreKey::from_bytes(bytes)
        };
        assert_eq!(prefix.lowest(), key([0xab, 0xcd, 0x50, 0], 0));
        assert_eq!(prefix.highest(), key([0xab, 0xcd, 0x5f, 0xff], 0xff));
        assert!(prefix.matches(&key([0xab, 0xcd, 0x57, 9], 9)));
        assert!(!prefix.matches(&key([0xab, 0xcd, 0x60, 0], 0)));
        assert!(!prefix.matches(&key([0xab, 0xcd, 0x4f, 0xff], 0xff)));
        assert_eq!(prefix.to_string(), "abcd5");
    }

    #[test]
    fn what_logs_print_of_a_key_is_a_prefix_of_it() {
        let key = StoreKey::from_bytes(std::array::from_fn(|n| u8::try_from(n * 7).unwrap()));
        for printed in [key.to_string(), format!("{key}…")] {
            assert!(
                printed.parse::<KeyPrefix>().unwrap().matches(&key),
                "{printed}"
            );
        }
        let whole = KeyPrefix::from(&key);
        assert_eq!((whole.lowest(), whole.highest()), (key, key));
        assert_eq!(whole.to_string().parse(), Ok(whole));
    }

    #[test]
    fn other_texts_are_refused_by_what_is_wrong() {
        let parse = |text: &str| text.parse::<KeyPrefix>().unwrap_err();
        assert_eq!(parse("abc"), InvalidKeyPrefix::TooShort { digits: 3 });
        assert_eq!(parse(""), InvalidKeyPrefix::TooShort { digits: 0 });
        assert_eq!(
            parse(&"a".repeat(65)),
            InvalidKeyPrefix::TooLong { digits: 65 }
        );
        assert_eq!(
            parse("abcg"),
            InvalidKeyPrefix::NotHexadecimal { found: 'g' }
        );
        assert_eq!(
            parse("StoreKey(ab"),
            InvalidKeyPrefix::NotHexadecimal { found: 'S' }
        );
    }
}
