use proptest::prelude::*;
use serde_json::Value;

use super::*;

const LENIENT: KeyRules = KeyRules {
    strict: false,
    uuid: false,
    opaque: false,
    max_len: IdempotencyKey::MAX_LEN,
};
const STRICT: KeyRules = KeyRules {
    strict: true,
    uuid: false,
    opaque: false,
    max_len: IdempotencyKey::MAX_LEN,
};
const UUID: KeyRules = KeyRules {
    strict: false,
    uuid: true,
    opaque: false,
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
fn every_vector_gives_its_outcome() {
    let vectors = include_str!("../../../tests/vectors/idempotency_key.json");
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
                // `http` refuses these; the rules do not rely on that.
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
fn under_the_uuid_rule_every_spelling_of_a_uuid_is_one_key() {
    for spelling in [
        "8e03978e-40d5-43e8-bc93-6894a57f9324",
        "8E03978E-40D5-43E8-BC93-6894A57F9324",
        "8e03978E-40d5-43E8-bc93-6894A57f9324",
        "8e03978e40d543e8bc936894a57f9324",
        "8E03978E40D543E8BC936894A57F9324",
        "{8e03978e-40d5-43e8-bc93-6894a57f9324}",
        "{8E03978E40D543E8BC936894A57F9324}",
        "urn:uuid:8e03978e-40d5-43e8-bc93-6894a57f9324",
        "URN:UUID:8E03978E-40D5-43E8-BC93-6894A57F9324",
        "\"8E03978E-40D5-43E8-BC93-6894A57F9324\"",
        "\"{8e03978e-40d5-43e8-bc93-6894a57f9324}\";a=1",
        "\"urn:uuid:8e03978e-40d5-43e8-bc93-6894a57f9324\"",
    ] {
        let key = parse(&[spelling], UUID).unwrap();
        assert_eq!(key, "8e03978e-40d5-43e8-bc93-6894a57f9324", "{spelling}");
    }
}

#[test]
fn under_the_uuid_rule_nothing_else_is_a_key() {
    for bad in [
        "00000000-0000-0000-0000-000000000000",
        "{00000000000000000000000000000000}",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "urn:uuid:FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "8e03978e-40d5-43e8-bc93-6894a57f932",
        "8e03978e-40d5-43e8-bc93-6894a57f932g",
        "8e03978-e40d5-43e8-bc93-6894a57f9324",
        "8e03978e-40d5-43e8-bc936894a57f93241",
        "8e03978e-40d543e8-bc93-6894a57f9324",
        "8e03978e40d543e8bc936894a57f93240000",
        "-8e03978e40d543e8bc936894a57f932",
        "{8e03978e-40d5-43e8-bc93-6894a57f9324",
        "8e03978e-40d5-43e8-bc93-6894a57f9324}",
        "{urn:uuid:8e03978e-40d5-43e8-bc93-6894a57f9324}",
        "urn:uuid:{8e03978e-40d5-43e8-bc93-6894a57f9324}",
        "urn:uuid:",
        "uuid:8e03978e-40d5-43e8-bc93-6894a57f9324",
        "order-42",
    ] {
        assert_eq!(parse(&[bad], UUID), Err(KeyError::NotAUuid), "{bad}");
    }
}

#[test]
fn a_key_from_text_obeys_the_same_rules() {
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
fn debug_distinguishes_keys_without_showing_them() {
    let [a, b] = ["sk-secret-1", "sk-secret-2"].map(|key| IdempotencyKey::new(key).unwrap());
    let (a, b) = (format!("{a:?}"), format!("{b:?}"));
    assert_ne!(a, b);
    assert!(!a.contains("secret"), "{a}");
    assert_eq!(a.len(), "IdempotencyKey(#00112233)".len());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_every_parsed_key_is_valid(
        line in proptest::collection::vec(any::<u8>(), 0..300), strict: bool, uuid: bool,
    ) {
        if let Ok(key) = parse_line(&line, KeyRules { strict, uuid, ..LENIENT }) {
            prop_assert!(IdempotencyKey::new(key.expose()).is_ok());
        }
    }

    #[test]
    fn every_value_is_an_opaque_key_of_its_own(
        line in proptest::collection::vec(1..=255_u8, 0..300),
        other in proptest::collection::vec(1..=255_u8, 0..300),
    ) {
        let opaque = KeyRules { opaque: true, ..LENIENT };
        let value = line.trim_ascii();
        let expected = match value.len() {
            0 => Err(KeyError::Empty),
            1..=255 => Ok(value.len()),
            len => Err(KeyError::TooLong { len, max: 255 }),
        };
        let key = parse_line(&line, opaque);
        prop_assert_eq!(key.as_ref().map(|key| key.expose().chars().count()), expected.as_ref().copied());
        if let (Ok(key), Ok(other_key)) = (key, parse_line(&other, opaque)) {
            prop_assert_eq!(key.expose() == other_key.expose(), value == other.trim_ascii());
        }
    }

    #[test]
    fn every_printable_key_can_be_sent_in_quotes(text in "[ -~]{1,255}") {
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
