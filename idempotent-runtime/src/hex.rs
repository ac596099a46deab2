//! Hexadecimal digits: how digests are shown, and read back.

use std::fmt;

/// Shows bytes as lower-case hexadecimal. Logs show the first few bytes of a digest this way.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The value of a hexadecimal digit in either case.
pub(crate) fn digit(digit: char) -> Option<u8> {
    digit.to_digit(16).and_then(|value| value.try_into().ok())
}

/// The bytes that these digits are, neither more nor fewer.
pub(crate) fn decode<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit((*high).into())? << 4 | digit((*low).into())?;
    }
    Some(bytes)
}

/// All bytes that these digits are.
#[cfg(feature = "admin")]
pub(crate) fn decode_all(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_chunks::<2>();
    let byte = |pair: &[u8; 2]| decode::<1>(pair).map(|[byte]| byte);
    let bytes = pairs.iter().map(byte).collect::<Option<_>>()?;
    rest.is_empty().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back() {
        let bytes: [u8; 32] = std::array::from_fn(|n| u8::try_from(n * 8 + 7).unwrap());
        let shown = Hex(&bytes).to_string();
        assert_eq!(&shown[..6], "070f17");
        assert_eq!(decode(shown.as_bytes()), Some(bytes));
        assert_eq!(decode(shown.to_uppercase().as_bytes()), Some(bytes));
    }

    #[test]
    fn other_texts_are_no_bytes() {
        for text in ["", "0", "000", "0g00", "00000", "000000", "\u{e9}00"] {
            assert_eq!(decode::<2>(text.as_bytes()), None, "{text}");
        }
    }
}
