use std::{cmp::Ordering, collections::BTreeMap};

use proptest::prelude::*;

use super::{
    tape::{MAX_DEPTH, MAX_VALUES, utf16_order},
    *,
};

fn digest(text: &[u8]) -> Option<[u8; 32]> {
    super::digest(text, &Texts::NONE)
}

fn of(text: &str) -> [u8; 32] {
    digest(text.as_bytes()).unwrap_or_else(|| panic!("{text} has a meaning"))
}

/// Each line holds texts of one value; no two lines hold the same.
const VALUES: &[&[&str]] = &[
    &["null", " null\n"],
    &["true"],
    &["false"],
    &[
        "0",
        "-0",
        "0.0",
        "-0.00",
        "0e5",
        "0E-99999999999999999999999999999999999999",
        "-0e0",
    ],
    &[
        "1",
        "1.0",
        "1e0",
        "1E+0",
        "10e-1",
        "0.1e1",
        "1e000",
        "0.00001e5",
        "100000e-5",
    ],
    &["-1", "-1.0", "-10e-1"],
    &["10", "1e1", "1E1", "10.0", "0.1e2"],
    &["100", "1e2", "100.00"],
    &["0.1", "1e-1", "0.10", "10e-2"],
    &["1.5", "15e-1", "0.15e1", "1.50"],
    &[
        "9007199254740992",
        "9007199254740992.0",
        "9.007199254740992e15",
    ],
    &[
        "9007199254740993",
        "9007199254740993.0",
        "9007199254740993e0",
    ],
    &["0.1000000000000000000000000000001"],
    &[
        "123456789012345678901234567890",
        "1.2345678901234567890123456789e29",
    ],
    &["123456789012345678901234567891"],
    &["1e999999999", "10e999999998", "0.01E+1000000001"],
    &["1e99999999999999999999", "100e99999999999999999997"],
    &["1e-99999999999999999999", "0.001e-99999999999999999996"],
    &["1e99999999999999999999999999999999999999"],
    &["-1e999999999"],
    &["\"\""],
    &["\"1\"", "\"\\u0031\""],
    &["\"é\"", "\"\\u00e9\"", "\"\\u00E9\""],
    &["\"e\u{301}\""],
    &["\"\u{1f600}\"", "\"\\ud83d\\ude00\""],
    &["\"/\"", "\"\\/\"", "\"\\u002f\""],
    &["\"\\\"\"", "\"\\u0022\""],
    &["\"a,]}\\\\\""],
    &["[]", "[ ]", "\t[\r\n]"],
    &["{}", "{ }"],
    &["[[]]"],
    &["[{}]"],
    &["[1,2]", "[ 1 , 2.0 ]"],
    &["[2,1]"],
    &["[12]"],
    &["[1,[2]]"],
    &["[[1],2]"],
    &["[[1,2]]"],
    &[
        "{\"a\":1,\"b\":2}",
        "{\"b\":2,\"a\":1}",
        "{ \"\\u0062\" : 2e0 , \"a\" : 1 }",
    ],
    &["{\"a\":2,\"b\":1}"],
    &["{\"a\":{\"b\":2}}"],
    &["{\"a\":{},\"b\":2}"],
    &["{\"a\":1,\"a\":2}"],
    &["{\"a\":2,\"a\":1}"],
    &[
        "{\"a\":1,\"\\u0061\":2,\"b\":0}",
        "{\"b\":0,\"a\":1,\"a\":2}",
    ],
    &[
        "{\"a\":[{\"y\":1,\"x\":[]}],\"\":0}",
        "{\"\":0,\"a\":[{\"x\":[],\"y\":1}]}",
    ],
];

#[test]
fn a_text_of_too_many_values_has_no_meaning() {
    let zeros = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
    let members = |count: usize| format!("{{{}\"a\":0}}", "\"\":0,".repeat(count - 1));
    assert!(digest(zeros(MAX_VALUES).as_bytes()).is_some());
    assert!(digest(zeros(MAX_VALUES + 1).as_bytes()).is_none());
    // Names are values too, and so is the object.
    assert!(digest(members(MAX_VALUES / 2 - 1).as_bytes()).is_some());
    assert!(digest(members(MAX_VALUES / 2).as_bytes()).is_none());
    // The shortest text of one value more is longer than the default limit of a body.
    assert!(zeros(MAX_VALUES + 1).len() > 2 * 1024 * 1024);
}

#[test]
fn texts_are_equal_exactly_if_their_values_are() {
    let mut seen: Vec<([u8; 32], &str)> = Vec::new();
    for texts in VALUES {
        let first = of(texts[0]);
        for text in *texts {
            assert_eq!(of(text), first, "{text} is {}", texts[0]);
        }
        let other = seen.iter().find(|(digest, _)| *digest == first);
        assert_eq!(other, None, "{} is another value", texts[0]);
        seen.push((first, texts[0]));
    }
}

#[test]
fn invalid_json_has_no_digest() {
    for text in [
        "",
        " ",
        "nul",
        "nullx",
        "01",
        "-",
        "1.",
        ".1",
        "1e",
        "+1",
        "0x1",
        "1 2",
        "[1,]",
        "[1",
        "]",
        "{\"a\"}",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "\"",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
        "\"\n\"",
        "'a'",
        "NaN",
        "Infinity",
        "//x\n1",
        "\u{feff}1",
        "[1}",
        "{\"a\":[}",
        "1e1.5",
        "--1",
    ] {
        assert_eq!(digest(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(digest(b"\"\xff\""), None);
    assert_eq!(digest(b"\"\xed\xa0\x80\""), None);
}

/// Pointers, and texts that are equal without what these point to.
#[rustfmt::skip]
const IGNORED: &[(&[&str], &[&str])] = &[
    // The value may change, change its type, or be missing.
    (&["/at"], &[r#"{"a":1,"at":1}"#, r#"{"at":[{}],"a":1.0}"#, r#"{"a":1}"#, r#"{"at":1,"a":1,"at":2}"#]),
    (&["/meta/at", "/n"], &[r#"{"meta":{"at":1,"x":2},"n":1}"#, r#"{"meta":{"x":2}}"#]),
    (&["/items/0/at"], &[r#"{"items":[{"at":1},{"at":2}]}"#, r#"{"items":[{"at":9},{"at":2}]}"#, r#"{"items":[{},{"at":2}]}"#]),
    (&["/items/1"], &[r#"{"items":[1,2]}"#, r#"{"items":[1,[3]]}"#, r#"{"items":[1]}"#]),
    (&["/0"], &["[1,2]", "[9,2]"]),
    (&["/a~1b", "/~0"], &[r#"{"a/b":1,"~":1}"#, r#"{"~":2}"#, "{}"]),
    (&["/"], &[r#"{"":1}"#, "{}"]),
    (&["/é"], &[r#"{"\u00e9":1}"#, "{}"]),
    (&["/a", "/a/b"], &[r#"{"a":{"b":1}}"#, "{}"]),
];

/// Pointers, and two texts that differ in what these do not point to.
#[rustfmt::skip]
const NOT_IGNORED: &[(&[&str], &str, &str)] = &[
    (&["/at"], r#"{"at":1,"a":1}"#, r#"{"at":1,"a":2}"#),
    // A member of the same name elsewhere counts.
    (&["/at"], r#"{"x":{"at":1}}"#, r#"{"x":{"at":2}}"#),
    (&["/x/at"], r#"{"at":1,"x":{}}"#, r#"{"at":2,"x":{}}"#),
    (&["/meta/at"], r#"{"meta":{"at":1}}"#, "{}"),
    (&["/items/0"], r#"{"items":[1,2]}"#, r#"{"items":[1,3]}"#),
    (&["/items/00"], r#"{"items":[1]}"#, r#"{"items":[2]}"#),
    (&["/items/-"], r#"{"items":[1]}"#, r#"{"items":[2]}"#),
    (&["/at/x"], r#"{"at":1}"#, r#"{"at":2}"#),
    (&["/0"], r#"["a"]"#, r#"{"1":"a"}"#),
];

#[test]
fn what_a_pointer_points_to_does_not_count() {
    let digest = |pointers: &'static [&'static str], text: &str| {
        super::digest(text.as_bytes(), &Texts::Static(pointers)).expect("valid")
    };
    for (pointers, same) in IGNORED {
        for text in *same {
            assert_eq!(
                digest(pointers, text),
                digest(pointers, same[0]),
                "{pointers:?} {text}"
            );
        }
    }
    for (pointers, a, b) in NOT_IGNORED {
        assert_ne!(
            digest(pointers, a),
            digest(pointers, b),
            "{pointers:?} {a} {b}"
        );
    }
}

#[test]
fn an_exponent_has_at_most_38_digits() {
    let digits = "9".repeat(38);
    assert!(digest(format!("1e{digits}").as_bytes()).is_some());
    assert!(digest(format!("1e0000{digits}").as_bytes()).is_some());
    assert_eq!(digest(format!("1e-{digits}9").as_bytes()), None);
    assert_eq!(
        digest(format!("[1e{}]", "9".repeat(1_000_000)).as_bytes()),
        None
    );
}

#[test]
fn nesting_is_limited() {
    let nested = |open: &str, inner: &str, close: &str, depth| {
        digest(
            [open.repeat(depth), inner.to_owned(), close.repeat(depth)]
                .concat()
                .as_bytes(),
        )
    };
    assert!(nested("[", "", "]", MAX_DEPTH).is_some());
    assert_eq!(nested("[", "", "]", MAX_DEPTH + 1), None);
    assert!(nested("{\"a\":", "1", "}", MAX_DEPTH).is_some());
    assert_eq!(nested("{\"a\":", "1", "}", MAX_DEPTH + 1), None);
    assert_eq!(nested("[", "", "]", 1_000_000), None);
    assert_eq!(nested("[", "", "", 1_000_000), None);
}

/// The cost of a byte must not grow with the text: of these shapes of 1 MiB a quadratic digest would never return.
#[test]
fn hostile_texts_cost_linear_time() {
    let filled = |piece: &str| {
        let count = (1 << 20) / piece.len();
        format!("[{}1]", piece.repeat(count))
    };
    let members: Vec<String> = (0..60_000).map(|n| format!("\"k{n:05}\":{n}")).collect();
    let deep = format!(
        "{}{}{}",
        "{\"a\":".repeat(126),
        filled("{},"),
        "}".repeat(126)
    );
    for text in [filled("1,"), filled("[],"), filled("\"\\u0061\","), deep] {
        assert!(digest(text.as_bytes()).is_some());
    }
    assert!(digest(format!("{{{}}}", members.join(",")).as_bytes()).is_some());
    let long_number = format!("{}.{}e-7", "9".repeat(500_000), "0".repeat(500_000));
    assert!(digest(long_number.as_bytes()).is_some());
}

#[test]
fn names_are_sorted_by_utf16_code_units() {
    // RFC 8785, section 3.2.3: U+FB33 sorts after the surrogates of U+1F600.
    assert_eq!(utf16_order("\u{1f600}", "\u{fb33}"), Ordering::Less);
    assert_eq!(utf16_order("\u{20ac}", "\u{1f600}"), Ordering::Less);
}

/// A JSON value, with numbers as mantissa and power of ten.
#[derive(Clone, Debug, PartialEq)]
enum Model {
    Null,
    Bool(bool),
    Number(i64, i16),
    String(String),
    Array(Vec<Model>),
    Object(BTreeMap<String, Model>),
}

fn model() -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![
        Just(Model::Null),
        any::<bool>().prop_map(Model::Bool),
        (-30_i64..30, -3_i16..4).prop_map(|(mantissa, exponent)| number(mantissa, exponent)),
        any::<(i64, i16)>().prop_map(|(mantissa, exponent)| number(mantissa, exponent)),
        "[a-b\u{e000}\u{1f600}\"\\\\\n]{0,3}".prop_map(Model::String),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Model::Array),
            proptest::collection::btree_map("[a-b\u{e000}\u{1f600}]{0,2}", inner, 0..4)
                .prop_map(Model::Object),
        ]
    })
}

/// In lowest terms, so that equal numbers are equal models.
fn number(mut mantissa: i64, exponent: i16) -> Model {
    let mut exponent = if mantissa == 0 {
        0
    } else {
        i32::from(exponent / 2)
    };
    while mantissa != 0 && mantissa % 10 == 0 {
        mantissa /= 10;
        exponent += 1;
    }
    Model::Number(mantissa, i16::try_from(exponent).unwrap())
}

/// Writes the value in one of many spellings, which the bits of `style` choose.
fn spell(value: &Model, style: &mut u64) -> String {
    *style = style
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    let choice = *style >> 33;
    let space = ["", " ", "\n\t"][(choice % 3) as usize];
    let join = |mut parts: Vec<String>, reversed: bool| {
        if reversed {
            parts.reverse();
        }
        parts.join(&format!("{space},"))
    };
    match value {
        Model::Null => format!("{space}null"),
        Model::Bool(value) => format!("{value}{space}"),
        Model::Number(mantissa, exponent) => match choice % 4 {
            0 => format!("{mantissa}e{exponent}"),
            1 => format!("{mantissa}.000E{exponent:+}"),
            2 if *mantissa != 0 => format!("{mantissa}00e{}", i32::from(*exponent) - 2),
            _ => {
                let sign = if *mantissa < 0 { "-" } else { "" };
                format!(
                    "{sign}0.0{:020}e{}",
                    mantissa.unsigned_abs(),
                    i32::from(*exponent) + 21
                )
            }
        },
        Model::String(text) if choice.is_multiple_of(2) => serde_json::to_string(text).unwrap(),
        Model::String(text) => {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
            format!("\"{}\"", units.collect::<Vec<_>>().concat())
        }
        Model::Array(elements) => {
            let elements = elements
                .iter()
                .map(|element| spell(element, style))
                .collect();
            format!("[{}{space}]", join(elements, false))
        }
        Model::Object(members) => {
            let members = members.iter().map(|(name, value)| {
                let name = spell(&Model::String(name.clone()), style);
                format!("{name}{space}:{}", spell(value, style))
            });
            format!("{{{}{space}}}", join(members.collect(), choice % 5 > 1))
        }
    }
}

proptest! {
    #[test]
    fn spellings_of_one_value_are_equal(value in model(), mut first: u64, mut second: u64) {
        prop_assert_eq!(of(&spell(&value, &mut first)), of(&spell(&value, &mut second)));
    }

    #[test]
    fn texts_are_equal_exactly_if_the_models_are(a in model(), b in model(), mut style: u64) {
        let same = of(&spell(&a, &mut style)) == of(&spell(&b, &mut style));
        prop_assert_eq!(same, a == b);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "[\\[\\]{}\",:0-9eE.+\\\\utfn -]{0,40}") {
        // What `serde_json` accepts has a meaning, as its numbers and names stay within the limits.
        let valid = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        let meaning = digest(text.as_bytes());
        prop_assert!(!valid || meaning.is_some());
    }

    #[test]
    fn a_tape_of_unchecked_text_never_panics(text in "[\\[\\]{}\",:0-9eE.+\\\\utfn é-]{0,40}") {
        // Safe even for texts whose syntax was not checked.
        if let Some(tape) = Tape::scan(&text) {
            let _ = tape.feed(0, &[], &mut Framed::sha256("test"));
        }
    }

    #[test]
    fn the_order_of_names_is_that_of_utf16(a: String, b: String) {
        prop_assert_eq!(utf16_order(&a, &b), a.encode_utf16().cmp(b.encode_utf16()));
    }

    #[test]
    fn the_order_of_close_names_is_that_of_utf16(
        a in "[a\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}]{0,3}",
        b in "[a\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}]{0,3}",
    ) {
        prop_assert_eq!(utf16_order(&a, &b), a.encode_utf16().cmp(b.encode_utf16()));
    }
}
