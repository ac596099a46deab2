//! Hexadecimal digits: how digests are shown, and read back.

pub(crate) use crate::digest::Hex;

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
