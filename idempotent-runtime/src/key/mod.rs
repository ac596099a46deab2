//! The idempotency key: what the client sent, parsed.
//!
//! [`IdempotencyKey`] says what is a key and how it is treated, [`KeyError`] what a client did wrong. A key
//! that exists has passed every rule and is not looked at again.

use std::{borrow::Cow, error::Error, fmt};

use http::HeaderValue;
use sfv::{Parser, StringRef};

use crate::digest::debug_secret;

/// The key that a client chose for one operation.
///
/// 1. It comes in exactly one header line. Two lines, even equal ones, are an error: they come from a client
///    or a proxy that merged two requests, and nobody can say which key was meant.
/// 2. A value that begins with `"` is a String of RFC 9651 (structured fields); parameters after it are
///    checked and ignored. It never falls back to the raw text, so `"abc` is an error, not a key.
/// 3. Any other value is a *bare* key, the way most clients send it today: visible ASCII except `"`, `\`,
///    `,`, `;` and the space. [`KeyRules::strict`] refuses bare keys.
/// 4. `"k"` and `k` are the same key. After decoding it has 1 to [`MAX_LEN`](Self::MAX_LEN) bytes and is not
///    blank. Bytes count as they are: no case folding, no percent-decoding.
/// 5. [`KeyRules::uuid`] also asks for the form of a UUID.
///
/// # A key is a secret
///
/// Whoever knows a key, and may call the route, can have its stored response replayed. A key may also be
/// personal data, because clients do send e-mail addresses. Therefore it has no `Display` and is never
/// stored, logged or echoed: `Debug` shows a short digest, stores see the [`StoreKey`](crate::StoreKey), and
/// [`expose`](Self::expose) is a word one can search for. It has no `==` either, since two keys mean the same
/// only within one scope, and that comparison belongs to the store key.
#[derive(Clone)]
pub struct IdempotencyKey(Box<str>);

/// What a route demands of keys beyond the general rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyRules {
    /// Refuse bare keys: only the quoted form of RFC 9651 is accepted.
    pub strict: bool,
    /// Refuse keys that are not a UUID in the hyphenated form (8-4-4-4-12 hexadecimal digits in any case,
    /// any version); the nil UUID is refused too, because it is what a client without randomness sends.
    pub uuid: bool,
    /// The longest key in bytes: [`IdempotencyKey::MAX_LEN`], or less.
    pub max_len: usize,
}

impl Default for KeyRules {
    fn default() -> Self {
        Self {
            strict: false,
            uuid: false,
            max_len: IdempotencyKey::MAX_LEN,
        }
    }
}

/// Why there is no valid key. The texts say what to do and never contain what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no such header line.
    Missing,
    /// There is more than one header line.
    Multiple,
    /// The key is empty or blank.
    Empty,
    /// The key is longer than the rules allow.
    TooLong {
        /// Its length in bytes, after decoding.
        len: usize,
        /// The longest that is accepted.
        max: usize,
    },
    /// The key contains a byte that is not allowed where it stands.
    BadCharacter,
    /// The key begins with a quote and is not one String of RFC 9651.
    Syntax,
    /// The key is bare and the route is strict.
    NotAString,
    /// The key is not a UUID, or the nil UUID, and the route asks for one.
    NotAUuid,
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
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, KeyError> {
        let text = text.into();
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
        Ok(Self(text))
    }

    /// The secret itself, decoded. Do not store, log or send it back.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug_secret(f, "IdempotencyKey", self.0.as_bytes())
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => {
                "there is no idempotency key: send one that is unique to this operation, and the \
                 same one with every retry"
            }
            Self::Multiple => "there is more than one line of it: send exactly one",
            Self::Empty => "the key is empty: send 1 to 255 characters, such as a random UUID",
            Self::TooLong { len, max } => {
                return write!(f, "the key is {len} bytes long: send at most {max}");
            }
            Self::BadCharacter => {
                "the key contains a character that is not allowed: send visible ASCII, and put a \
                 key with a space, quote, backslash, comma or semicolon in double quotes"
            }
            Self::Syntax => {
                "the key begins with a double quote and is not a structured-field string (RFC \
                 9651): end it with a double quote, and put a backslash before each double quote \
                 and backslash in it"
            }
            Self::NotAString => {
                "the key is not in double quotes: send it as a structured-field string (RFC 9651)"
            }
            Self::NotAUuid => {
                "the key is not a UUID: send a random one in the form 8-4-4-4-12, in hexadecimal \
                 digits"
            }
        })
    }
}

impl Error for KeyError {}

/// The rules for one line, on bytes: what `http` refuses in a header must not be trusted to stay refused.
fn parse_line(line: &[u8], rules: KeyRules) -> Result<IdempotencyKey, KeyError> {
    let value = line.trim_ascii();
    let key = match value.first() {
        None => return Err(KeyError::Empty),
        Some(b'"') => parse_quoted(value)?,
        Some(_) if rules.strict => return Err(KeyError::NotAString),
        Some(_) => parse_bare(value)?,
    };
    let len = key.expose().len();
    if len > rules.max_len {
        return Err(KeyError::TooLong {
            len,
            max: rules.max_len,
        });
    }
    if rules.uuid && !is_uuid(key.expose().as_bytes()) {
        return Err(KeyError::NotAUuid);
    }
    Ok(key)
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
    let text = std::str::from_utf8(value).map_err(|_| KeyError::BadCharacter)?;
    if text
        .bytes()
        .any(|byte| matches!(byte, b'"' | b'\\' | b',' | b';' | b' '))
    {
        return Err(KeyError::BadCharacter);
    }
    IdempotencyKey::new(text)
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

fn is_uuid(key: &[u8]) -> bool {
    let shape = key.len() == 36
        && key.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    shape && key.iter().any(|byte| !matches!(byte, b'0' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const LENIENT: KeyRules = KeyRules {
        strict: false,
        uuid: false,
        max_len: IdempotencyKey::MAX_LEN,
    };
    const STRICT: KeyRules = KeyRules {
        strict: true,
        uuid: false,
        max_len: IdempotencyKey::MAX_LEN,
    };
    const UUID: KeyRules = KeyRules {
        strict: false,
        uuid: true,
        max_len: IdempotencyKey::MAX_LEN,
    };

    fn parse(lines: &[&str], rules: KeyRules) -> Result<String, KeyError> {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| HeaderValue::from_str(line).unwrap())
            .collect();
        IdempotencyKey::parse(&lines, rules).map(|key| key.expose().to_owned())
    }

    /// The bytes of a header line as the vectors write it: text, hexadecimal, or a repeated piece.
    fn line(vector: &Value) -> Vec<u8> {
        if let Some(text) = vector.as_str() {
            return text.as_bytes().to_vec();
        }
        if let Some(hex) = vector["hex"].as_str() {
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            return (0..hex.len()).step_by(2).map(byte).collect();
        }
        let piece = |name: &str| vector[name].as_str().unwrap_or_default();
        let count = usize::try_from(vector["n"].as_u64().unwrap()).unwrap();
        [piece("pre"), &piece("repeat").repeat(count), piece("post")]
            .concat()
            .into_bytes()
    }

    /// `ok:key`, `oklen:255` or `err:Word`, as the vectors write an outcome.
    fn outcome(result: &Result<IdempotencyKey, KeyError>, form: &str) -> String {
        match result {
            Ok(key) if form.starts_with("oklen") => format!("oklen:{}", key.expose().len()),
            Ok(key) => format!("ok:{}", key.expose()),
            Err(error) => {
                let word = match error {
                    KeyError::Missing => "Missing",
                    KeyError::Multiple => "Multiple",
                    KeyError::Empty => "Empty",
                    KeyError::TooLong { .. } => "TooLong",
                    KeyError::BadCharacter => "BadChar",
                    KeyError::Syntax => "Syntax",
                    KeyError::NotAString => "NotString",
                    KeyError::NotAUuid => "NotUuid",
                };
                format!("err:{word}")
            }
        }
    }

    #[test]
    fn every_vector_holds() {
        let vectors = include_str!("../../tests/vectors/idempotency_key.json");
        let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
        assert!(
            vectors.len() >= 56,
            "only {} vectors were read",
            vectors.len()
        );
        for vector in &vectors {
            let id = vector["id"].as_str().unwrap();
            let strict = vector["strict"].as_str().unwrap();
            let lenient = match vector["lenient"].as_str().unwrap() {
                "same" => strict,
                lenient => lenient,
            };
            let lines: Vec<Vec<u8>> = vector["lines"]
                .as_array()
                .unwrap()
                .iter()
                .map(line)
                .collect();
            let values: Option<Vec<HeaderValue>> = lines
                .iter()
                .map(|line| HeaderValue::from_bytes(line).ok())
                .collect();
            assert_eq!(
                values.is_some(),
                vector["reachable"].as_bool().unwrap(),
                "{id}"
            );
            for (rules, expected) in [(STRICT, strict), (LENIENT, lenient)] {
                let result = match &values {
                    Some(values) => IdempotencyKey::parse(values, rules),
                    // `http` refuses these; the rules below it do not count on that.
                    None => parse_line(&lines[0], rules),
                };
                assert_eq!(outcome(&result, expected), expected, "{id} with {rules:?}");
            }
        }
    }

    #[test]
    fn quoted_and_bare_are_the_same_key() {
        assert_eq!(parse(&["\"k-1\""], LENIENT), parse(&["k-1"], LENIENT));
    }

    #[test]
    fn blank_quoted_keys_are_empty() {
        assert_eq!(parse(&["\"   \""], LENIENT), Err(KeyError::Empty));
    }

    #[test]
    fn the_length_counts_after_decoding() {
        let escaped = format!("\"{}\"", r"\\".repeat(255));
        assert_eq!(parse(&[&escaped], STRICT).unwrap().len(), 255);
        let escaped = format!("\"{}\"", r"\\".repeat(256));
        assert_eq!(
            parse(&[&escaped], STRICT),
            Err(KeyError::TooLong { len: 256, max: 255 })
        );
    }

    #[test]
    fn uuid_rule() {
        for good in [
            "8e03978e-40d5-43e8-bc93-6894a57f9324",
            "8E03978E-40D5-43E8-BC93-6894A57F9324",
            "\"01890a5d-ac96-774b-bcce-b302099a8057\"",
        ] {
            assert!(parse(&[good], UUID).is_ok(), "{good}");
        }
        for bad in [
            "00000000-0000-0000-0000-000000000000",
            "8e03978e40d543e8bc936894a57f9324",
            "{8e03978e-40d5-43e8-bc93-6894a57f9324}",
            "8e03978e-40d5-43e8-bc93-6894a57f932",
            "8e03978e-40d5-43e8-bc93-6894a57f932g",
            "8e03978-e40d5-43e8-bc93-6894a57f9324",
            "order-42",
        ] {
            assert_eq!(parse(&[bad], UUID), Err(KeyError::NotAUuid), "{bad}");
        }
    }

    #[test]
    fn a_key_made_in_code_obeys_the_same_rules() {
        assert_eq!(IdempotencyKey::new("a b\"c").unwrap().expose(), "a b\"c");
        assert_eq!(IdempotencyKey::new("").unwrap_err(), KeyError::Empty);
        assert_eq!(IdempotencyKey::new(" ").unwrap_err(), KeyError::Empty);
        assert_eq!(
            IdempotencyKey::new("tab\t").unwrap_err(),
            KeyError::BadCharacter
        );
        assert_eq!(
            IdempotencyKey::new("é").unwrap_err(),
            KeyError::BadCharacter
        );
        let long = "x".repeat(256);
        assert_eq!(
            IdempotencyKey::new(long).unwrap_err(),
            KeyError::TooLong { len: 256, max: 255 }
        );
    }

    #[test]
    fn debug_tells_keys_apart_without_showing_them() {
        let [a, b] = ["sk-secret-1", "sk-secret-2"].map(|key| IdempotencyKey::new(key).unwrap());
        let (a, b) = (format!("{a:?}"), format!("{b:?}"));
        assert_ne!(a, b);
        assert!(!a.contains("secret"), "{a}");
        assert_eq!(a.len(), "IdempotencyKey(#00112233)".len());
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_every_key_is_valid(
            line in proptest::collection::vec(any::<u8>(), 0..300), strict: bool, uuid: bool,
        ) {
            if let Ok(key) = parse_line(&line, KeyRules { strict, uuid, ..KeyRules::default() }) {
                prop_assert!(IdempotencyKey::new(key.expose()).is_ok());
            }
        }

        #[test]
        fn every_printable_key_survives_quoting(text in "[ -~]{1,255}") {
            let quoted = text.replace('\\', r"\\").replace('"', "\\\"");
            let parsed = parse_line(format!("\"{quoted}\"").as_bytes(), STRICT);
            if text.trim().is_empty() {
                prop_assert_eq!(parsed.unwrap_err(), KeyError::Empty);
            } else {
                let key = parsed.unwrap();
                prop_assert_eq!(key.expose(), text.as_str());
            }
        }

        #[test]
        fn errors_never_echo_the_key(text in "[a-z]{40,300}[\",;]") {
            let error = parse_line(text.as_bytes(), LENIENT).unwrap_err();
            let shown = format!("{error} {error:?}");
            prop_assert!(!shown.contains(&text[..40]));
        }
    }

    #[test]
    fn a_shorter_limit_counts_decoded_bytes() {
        let rules = KeyRules {
            max_len: 3,
            ..LENIENT
        };
        assert!(parse_line(b"abc", rules).is_ok());
        assert!(parse_line(br#""a\"b""#, rules).is_ok());
        let error = parse_line(b"abcd", rules).unwrap_err();
        assert_eq!(error, KeyError::TooLong { len: 4, max: 3 });
        assert_eq!(error.to_string(), "the key is 4 bytes long: send at most 3");
    }
}
