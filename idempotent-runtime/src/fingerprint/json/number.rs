//! Numbers as exact decimals.

use crate::digest::Framed;

/// A number as its sign, its significant digits and the exponent of the last of them.
pub(super) struct Number<'a> {
    negative: bool,
    /// The digits, in two pieces because there may be a decimal point between them. Without leading and trailing
    /// zeros; zero has no digits.
    digits: [&'a str; 2],
    exponent: i128,
}

impl<'a> Number<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (negative, text) = strip_minus(text);
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits_only = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits_only(whole) || !digits_only(fraction) {
            return None;
        }
        // Drops the zeros that are not significant, first the leading, then the trailing ones. Each trailing zero
        // that is dropped raises the exponent of the last digit by one, each digit after the point lowers it by one.
        let whole = whole.trim_start_matches('0');
        let kept = fraction.trim_end_matches('0');
        let mut shift = -i64::try_from(kept.len()).ok()?;
        let digits = match (whole, kept) {
            ("", kept) => ["", kept.trim_start_matches('0')],
            (whole, "") => {
                let kept = whole.trim_end_matches('0');
                shift = i64::try_from(whole.len() - kept.len()).ok()?;
                [kept, ""]
            }
            both => both.into(),
        };
        let exponent = parse_exponent(exponent)?.checked_add(i128::from(shift))?;
        Some(Self {
            negative,
            digits,
            exponent,
        })
    }

    pub(super) fn feed(&self, hash: &mut Framed) {
        let len = self.digits[0].len() + self.digits[1].len();
        if len == 0 {
            return hash.tag(b'0');
        }
        hash.tag(if self.negative { b'-' } else { b'+' });
        hash.count(len);
        hash.raw(self.digits[0].as_bytes());
        hash.raw(self.digits[1].as_bytes());
        hash.raw(&self.exponent.to_be_bytes());
    }
}

/// The exponent as it is written. Thirty-eight digits always fit in an `i128`; more are not worth a big integer.
fn parse_exponent(text: &str) -> Option<i128> {
    let (negative, digits) = strip_minus(text.strip_prefix('+').unwrap_or(text));
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    let magnitude: i128 = match digits.len() {
        0 => 0,
        1..=38 => digits.parse().ok()?,
        _ => return None,
    };
    Some(if negative { -magnitude } else { magnitude })
}

fn strip_minus(text: &str) -> (bool, &str) {
    text.strip_prefix('-')
        .map_or((false, text), |rest| (true, rest))
}
