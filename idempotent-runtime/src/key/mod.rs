//! The idempotency key: what the client sent, parsed.
//!
//! [`IdempotencyKey`] says what a key is and how it is treated, [`KeyError`] what a client did wrong. A key
//! that exists has passed every rule and is not checked again.

use std::{borrow::Cow, fmt};

use http::HeaderValue;
use sfv::{Parser, StringRef};

use crate::digest::debug_secret;

mod error;
#[cfg(test)]
mod tests;
mod text;

pub use error::KeyError;
use text::Text;

/// The key that a client chose for one operation.
///
/// 1. It comes in exactly one header line. Two lines, even equal ones, are an error: they come from a client
///    or a proxy that merged two requests, and nobody can say which key was meant.
/// 2. A value that begins with `"` is a String of RFC 9651 (structured fields); parameters after it are
///    checked and ignored. There is no fallback to the raw text, so `"abc` is an error, not a key.
/// 3. Any other value is a *bare* key, the way most clients send it today: visible ASCII except `"`, `\`,
///    `,`, `;` and the space. [`KeyRules::strict`] refuses bare keys.
/// 4. `"k"` and `k` are the same key. After decoding it has 1 to [`MAX_LEN`](Self::MAX_LEN) bytes and is not
///    blank. Bytes count as they are: no case folding, no percent-decoding.
/// 5. [`KeyRules::uuid`] also asks for a UUID. The key is then that UUID: its spelling makes no other key, and
///    [`expose`](Self::expose) shows it in lower case with hyphens.
/// 6. [`KeyRules::opaque`] replaces rules 2 to 4: the key is the value of the header, whatever bytes it has.
///
/// # A key is a secret
///
/// Anyone who knows a key, and may call the route, can have its stored response replayed. A key may also be
/// personal data, because clients do send e-mail addresses. Therefore it has no `Display` and is never
/// stored, logged or echoed: `Debug` shows a short digest, stores see the [`StoreKey`](crate::StoreKey), and
/// [`expose`](Self::expose) is easy to search for. It has no `==` either, because two keys mean the same only
/// within one scope: store keys are compared instead.
#[derive(Clone)]
pub struct IdempotencyKey(Text);

/// What a route requires of keys beyond the general rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRules {
    /// Refuse bare keys: only the quoted form of RFC 9651 is accepted.
    pub strict: bool,
    /// Refuse keys that are not a UUID of any version (RFC 9562), and take every spelling of one UUID for the same key:
    /// upper and lower case, with hyphens (8-4-4-4-12) or none, in braces, or after `urn:uuid:`. The nil and the max
    /// UUID are refused too: they are what a client without randomness sends.
    pub uuid: bool,
    /// Take the header's value as it is, quotes and all: `order 123`, `a,b` and `{"order":7}` are keys, and `"k"` is
    /// not `k`. It has 1 to [`IdempotencyKey::MAX_LEN`] bytes of any kind; spaces and tabs around it are not part of
    /// it (RFC 9110, section 5.5). `strict` and `uuid` ask for a form, and go before this.
    pub opaque: bool,
    /// The longest key in bytes: [`IdempotencyKey::MAX_LEN`], or less.
    pub max_len: usize,
}

impl Default for KeyRules {
    fn default() -> Self {
        Self {
            strict: false,
            uuid: false,
            opaque: false,
            max_len: IdempotencyKey::MAX_LEN,
        }
    }
}

impl IdempotencyKey {
    /// The longest key, in bytes.
    pub const MAX_LEN: usize = 255;

    /// Parses the header lines of one request.
    ///
    /// # Errors
    ///
    /// Returns the first rule that was broken.
    pub fn parse<'a>(
        lines: impl IntoIterator<Item = &'a HeaderValue>,
        rules: KeyRules,
    ) -> Result<Self, KeyError> {
        let mut lines = lines.into_iter();
        let line = lines.next().ok_or(KeyError::Missing)?;
        if lines.next().is_some() {
            return Err(KeyError::Multiple);
        }
        parse_line(line.as_bytes(), rules)
    }

    /// A key from its decoded text, as if it had been sent in quotes.
    ///
    /// # Errors
    ///
    /// If it is empty, blank, longer than [`MAX_LEN`](Self::MAX_LEN) or not printable ASCII.
    pub fn new(text: impl AsRef<str>) -> Result<Self, KeyError> {
        let text = text.as_ref();
        if !text.bytes().all(is_printable) {
            return Err(KeyError::BadCharacter);
        }
        if text.bytes().all(|byte| byte == b' ') {
            return Err(KeyError::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(KeyError::TooLong {
                len: text.len(),
                max: Self::MAX_LEN,
            });
        }
        Ok(Self(text.into()))
    }

    /// A key from its decoded bytes, such as the value of another header or of a query parameter.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new); bytes that are not ASCII are refused too.
    pub fn from_bytes(text: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(text.as_ref()).map_err(|_| KeyError::BadCharacter)?;
        Self::new(text)
    }

    /// This key, if it also keeps the route's rules.
    pub(crate) fn checked(mut self, rules: KeyRules) -> Result<Self, KeyError> {
        if rules.uuid {
            self.0 = uuid(self.expose()).ok_or(KeyError::NotAUuid)?;
        }
        check_length(self.0.as_bytes().len(), rules)?;
        Ok(self)
    }

    /// Whether this key, as it was sent, is what an engine around made that key of: itself, or the same UUID.
    pub(crate) fn is_sent_for(&self, key: &Self) -> bool {
        self.0 == key.0 || uuid(self.expose()).is_some_and(|uuid| uuid == key.0)
    }

    /// The secret itself, decoded. Do not store, log or send it back.
    ///
    /// The bytes of an [opaque](KeyRules::opaque) key are characters of ISO-8859-1, as they are for most clients.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug_secret(f, "IdempotencyKey", self.0.as_bytes())
    }
}

/// Applies the rules to the bytes of one line. They do not rely on what `http` refuses in a header value, since a
/// later version of it may accept more.
fn parse_line(line: &[u8], rules: KeyRules) -> Result<IdempotencyKey, KeyError> {
    let value = line.trim_ascii();
    if rules.opaque && !rules.strict && !rules.uuid {
        return parse_opaque(value, rules);
    }
    let key = match value.first() {
        None => return Err(KeyError::Empty),
        Some(b'"') => parse_quoted(value)?,
        Some(_) if rules.strict => return Err(KeyError::NotAString),
        Some(_) => parse_bare(value)?,
    };
    key.checked(rules)
}

fn check_length(len: usize, KeyRules { max_len: max, .. }: KeyRules) -> Result<(), KeyError> {
    if len > max {
        return Err(KeyError::TooLong { len, max });
    }
    Ok(())
}

/// Each byte becomes one character, so that different bytes are different keys, also where they are not UTF-8.
fn parse_opaque(value: &[u8], rules: KeyRules) -> Result<IdempotencyKey, KeyError> {
    if value.is_empty() {
        return Err(KeyError::Empty);
    }
    check_length(value.len(), rules)?;
    let text: String = value.iter().copied().map(char::from).collect();
    Ok(IdempotencyKey(Text::from(&*text)))
}

fn parse_quoted(value: &[u8]) -> Result<IdempotencyKey, KeyError> {
    // The parser reports one opaque error; a stray byte is worth an error of its own.
    if !value.iter().copied().all(is_printable) {
        return Err(KeyError::BadCharacter);
    }
    // Parameters are checked for their syntax and dropped.
    let text: Cow<'_, StringRef> = Parser::new(value)
        .parse_item()
        .map_err(|_| KeyError::Syntax)?;
    IdempotencyKey::new(text.as_str())
}

fn parse_bare(value: &[u8]) -> Result<IdempotencyKey, KeyError> {
    // Not cut short at the first bad byte: so the compiler looks at many at once.
    if !value
        .iter()
        .fold(true, |so_far, byte| so_far & is_bare(*byte))
    {
        return Err(KeyError::BadCharacter);
    }
    check_length(value.len(), KeyRules::default())?;
    // Visible ASCII, and so not blank.
    let text = std::str::from_utf8(value).map_err(|_| KeyError::BadCharacter)?;
    Ok(IdempotencyKey(text.into()))
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() & !matches!(byte, b'"' | b'\\' | b',' | b';')
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// The UUID of any spelling in its canonical form, 8-4-4-4-12 in lower case (RFC 9562, section 4); neither nil nor max
/// (sections 5.9 and 5.10).
fn uuid(text: &str) -> Option<Text> {
    const URN: &str = "urn:uuid:";
    let digits = match text.get(..URN.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(URN) => &text[URN.len()..],
        _ => match text.strip_prefix('{') {
            Some(braced) => braced.strip_suffix('}')?,
            None => text,
        },
    };
    let hyphens = match digits.len() {
        32 => false,
        36 => true,
        _ => return None,
    };
    let mut uuid = String::with_capacity(36);
    for (at, byte) in digits.bytes().enumerate() {
        match byte {
            b'-' if hyphens && matches!(at, 8 | 13 | 18 | 23) => continue,
            byte if byte.is_ascii_hexdigit() => {}
            _ => return None,
        }
        if matches!(uuid.len(), 8 | 13 | 18 | 23) {
            uuid.push('-');
        }
        uuid.push(char::from(byte.to_ascii_lowercase()));
    }
    let constant = |digit| uuid.bytes().all(|byte| byte == digit || byte == b'-');
    (uuid.len() == 36 && !constant(b'0') && !constant(b'f')).then(|| Text::from(&*uuid))
}
