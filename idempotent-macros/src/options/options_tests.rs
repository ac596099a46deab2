use proc_macro2::Group;
use quote::quote;

use super::{fingerprint::FINGERPRINT, *};

/// The options, and every message in order.
fn parse(tokens: TokenStream) -> (Options, Vec<String>) {
    let mut errors = Errors::default();
    let options = Options::parse(tokens, &mut errors);
    let messages = errors.into_result(()).err().into_iter().flatten();
    (options, messages.map(|error| error.to_string()).collect())
}

/// The one message.
fn refused(tokens: &TokenStream) -> String {
    let (_, messages) = parse(tokens.clone());
    match <[String; 1]>::try_from(messages) {
        Ok([message]) => message,
        Err(messages) => panic!("{tokens}: {messages:?}"),
    }
}

#[test]
fn every_option_is_read() {
    let (options, messages) = parse(quote! {
        ttl = "24h", wait = true, wait_timeout = "30s", lease = "20s", max_lifetime = "15m", on_crash = "retry",
        required, header = "X-Key", strict, uuid = false, name = "pay", caller = User<fn(A) -> B, C>,
        scope = tenant::of::<A, B>("x"), require_caller, cache = "success",
        fingerprint(headers("X-Currency", "x-b",), json, ignore("/a~1b", "/"), form = false, ignore_query("nonce", "a b"),
            ignore_body = false, ignore_content_type),
        when = is_payment, drop_headers("X-Served-By"), release(404, 503,), max_body = "64KiB", max_response = "2MiB", engine = State<Of<A, B>>, state = App<A, B>, inner = plain,
        crate = facade::rt,
    });
    assert_eq!(messages, Vec::<String>::new());
    let value = |given: &Option<Given<u64>>| given.as_ref().map(|given| given.value);
    assert_eq!(value(&options.ttl), Some(86_400_000));
    assert_eq!(value(&options.wait_timeout), Some(30_000));
    assert_eq!(value(&options.lease), Some(20_000));
    assert_eq!(value(&options.max_lifetime), Some(900_000));
    let flag = |given: &Option<Given<bool>>| given.as_ref().map(|given| given.value);
    assert_eq!(
        (flag(&options.wait), flag(&options.required)),
        (Some(true), Some(true))
    );
    assert_eq!(
        (flag(&options.strict), flag(&options.uuid)),
        (Some(true), Some(false))
    );
    assert_eq!(
        options.header.map(|given| given.value).as_deref(),
        Some("x-key")
    );
    assert_eq!(
        options.name.map(|given| given.value).as_deref(),
        Some("pay")
    );
    assert!(matches!(
        options.on_crash,
        Some(Given {
            value: OnCrash::Retry,
            ..
        })
    ));
    assert!(matches!(
        options.cache,
        Some(Given {
            value: Cache::Success,
            ..
        })
    ));
    assert_eq!(
        options.release.map(|given| given.value),
        Some(vec![404, 503])
    );
    assert_eq!(options.max_body.map(|given| given.value), Some(65_536));
    assert_eq!(
        options.max_response.map(|given| given.value),
        Some(2_097_152)
    );
    let Some(FingerprintBy::Rules(rules)) = options.fingerprint.map(|given| given.value) else {
        panic!("rules were given");
    };
    let values = |names: Option<Given<Vec<LitStr>>>| {
        let names = names.expect("given").value;
        names.iter().map(LitStr::value).collect::<Vec<_>>()
    };
    assert_eq!(values(rules.headers), ["x-currency", "x-b"]);
    assert_eq!(values(options.drop_headers), ["x-served-by"]);
    assert!(options.when.is_some() && options.key.is_none());
    assert_eq!(values(rules.ignore), ["/a~1b", "/"]);
    assert!(matches!(
        rules.ignore_query,
        Some(Given { value: IgnoreQuery::Parameters(names), .. })
            if names.iter().map(LitStr::value).eq(["nonce", "a b"])
    ));
    assert_eq!(flag(&rules.form), Some(false));
    assert_eq!(
        (flag(&rules.json), flag(&rules.ignore_body)),
        (Some(true), Some(false))
    );
    assert!(
        options.engine.is_some()
            && options.state.is_some()
            && options.scope.is_some()
            && options.krate.is_some()
    );
    assert!(matches!(
        options.inner,
        Some(Given {
            value: Inner::Beside(_),
            ..
        })
    ));
}

#[test]
fn no_options_and_a_trailing_comma_are_accepted() {
    assert_eq!(parse(quote!()).1, Vec::<String>::new());
    assert_eq!(parse(quote!(wait,)).1, Vec::<String>::new());
}

#[test]
fn on_crash_takes_a_path() {
    let (options, messages) = parse(quote!(on_crash = payments::find_out));
    assert!(
        messages.is_empty()
            && matches!(
                options.on_crash,
                Some(Given {
                    value: OnCrash::Recover(_),
                    ..
                })
            )
    );
}

#[test]
fn fingerprint_takes_a_path() {
    let (options, messages) = parse(quote!(fingerprint = orders::asked));
    assert_eq!(messages, Vec::<String>::new());
    assert!(matches!(
        options.fingerprint,
        Some(Given {
            value: FingerprintBy::Function(_),
            ..
        })
    ));
}

#[test]
fn inner_takes_a_name_or_a_name_after_self() {
    assert!(matches!(
        parse(quote!(inner = Self::plain)).0.inner,
        Some(Given {
            value: Inner::Associated(_),
            ..
        })
    ));
    for wrong in [
        quote!(inner = a::b),
        quote!(inner = "plain"),
        quote!(inner = Self::a::b),
        quote!(inner),
        quote!(inner = ::a),
        quote!(inner = a<T>),
    ] {
        assert!(refused(&wrong).starts_with("`inner` takes a name for the plain function"));
    }
}

#[test]
fn values_may_come_out_of_a_macro() {
    // A fragment such as `$value:expr` puts its tokens into an invisible group.
    let group = |tokens| Group::new(proc_macro2::Delimiter::None, tokens);
    let (text, flag) = (group(quote!("1h")), group(quote!(false)));
    let (options, messages) = parse(quote!(ttl = #text, wait = #flag));
    assert_eq!(messages, Vec::<String>::new());
    assert_eq!(
        (options.ttl.map(|g| g.value), options.wait.map(|g| g.value)),
        (Some(3_600_000), Some(false))
    );
}

#[test]
fn every_mistake_is_reported_and_the_rest_is_in_force() {
    let (options, messages) = parse(quote!(
        tll = "1h",
        ttl = "2h",
        wait = "yes",
        lease = "0s",
        required
    ));
    assert_eq!(
        messages,
        [
            "unknown option `tll`: did you mean `ttl`?",
            "`wait` takes `true` or `false`, or nothing for `true`",
            "`0s` is zero: write a longer duration",
        ]
    );
    assert!(options.ttl.is_some() && options.required.is_some() && options.wait.is_none());
}

/// Options with one mistake each, and a part of the message.
#[rustfmt::skip]
const MISTAKES: &[(&str, &str)] = &[
    ("ttl", r#"`ttl` takes a duration, as in `ttl = "24h"`"#),
    ("ttl = 24", "`ttl` takes a duration"),
    (r#"ttl = "1h" + "1m""#, "`ttl` takes a duration"),
    (r#"ttl("1h")"#, "`ttl` takes a duration"),
    ("ttl =", "expected a value after `ttl =`"),
    (r#"ttl = "1h" wait = true"#, "expected `,` before the next option"),
    (r#"ttl: "1h""#, "unexpected `:` after `ttl`: write `ttl = …`"),
    (r#""1h""#, "expected an option's name"),
    ("wait,, required", "unexpected `,`: remove it"),
    ("fingerprint(json) required", "expected `,` after `fingerprint(…)`"),
    (r#"ttl = "1h", ttl = "2h""#, "`ttl` is given twice"),
    ("wait = 1", "`wait` takes `true` or `false`"),
    ("wait(true)", "`wait` takes `true` or `false`"),
    (r#"expires = "1h""#, "unknown option `expires`: did you mean `ttl`?"),
    ("ttl_seconds = 60", "did you mean `ttl`?"),
    ("store = redis", "`store`: the store belongs to the engine"),
    (r#"timeout = "5s""#, "write `wait_timeout` for how long a duplicate waits, or `lease`"),
    ("methods(POST)", "`IdempotencyLayer::methods`"),
    ("status = 200", "did you mean `cache`?"),
    ("skip_if = is_dry", "did you mean `when`?"),
    ("fingerprint(store)", "unknown fingerprint rule `store`: expected one of"),
    ("bananas", "unknown option `bananas`: expected one of `ttl`, `wait`"),
    ("max_body = 1024", "`max_body` takes a size"),
    (r#"max_body = "1MB""#, "did you mean `1MiB`?"),
    (r#"on_crash = "rerty""#, r#"did you mean "retry"?"#),
    ("on_crash = 3", r#"`on_crash` takes `"refuse"`, `"retry"` or the path of a function"#),
    (r#"cache = "none""#, r#"`cache` takes one of "all", "no-server-errors", "success""#),
    (r#"cache = "no_server_errors""#, r#"did you mean "no-server-errors"?"#),
    ("release", "`release` takes statuses, as in `release(404, 503)`"),
    ("release()", "`release` takes statuses"),
    ("release = 404", "`release` takes statuses"),
    (r#"release("404")"#, "`release` takes statuses"),
    ("release(-404)", "`-404` is not a status"),
    ("release(NOT_FOUND)", "`release` takes statuses"),
    ("release(404, 404)", "`404` is listed twice"),
    ("release(404, 101)", "`101` ends no request"),
    ("release(99)", "`99` is not a status"),
    ("release(600)", "`600` is not a status"),
    ("release(99999999)", "`99999999` is not a status"),
    (r#"header = """#, "the header name is empty"),
    (r#"header = "x key""#, "cannot contain ' '"),
    (r#"header = "naïve""#, "cannot contain 'ï'"),
    (r#"name = " ""#, "the name is empty"),
    (r#"scope = "tenant""#, "`scope` takes a function of the request's parts"),
    (r#"caller = "user""#, "`caller` takes the type of an extractor"),
    ("caller", "`caller` takes the type of an extractor"),
    (r#"engine = "State""#, "`engine` takes an extractor that finds the engine"),
    ("engine = Extension<Idempotency>", "leave out the option"),
    ("engine = Result<A, B>", "`engine` takes an extractor that finds the engine"),
    (r#"crate = "rt""#, "`crate` takes the path of the runtime"),
    (r#"key = "x-event-id""#, "`key` takes the path of a function"),
    ("key", "`key` takes the path of a function"),
    ("when = true", "`when` takes the path of a function"),
    ("keep_headers", "`keep_headers` takes header names"),
    (r#"keep_headers = "location""#, "`keep_headers` takes header names"),
    (r#"drop_headers("a", "A")"#, "`a` is listed twice"),
    (r#"drop_headers("a b")"#, "cannot contain ' '"),
    ("fingerprint", "`fingerprint` takes rules in parentheses"),
    ("fingerprint()", "`fingerprint` takes rules in parentheses"),
    (r#"fingerprint = "json""#, "`fingerprint` takes rules in parentheses"),
    ("fingerprint(jsn)", "unknown fingerprint rule `jsn`: did you mean `json`?"),
    ("fingerprint(json, json)", "`json` is given twice"),
    ("fingerprint(headers)", "`headers` takes header names"),
    ("fingerprint(headers())", "`headers` takes header names"),
    ("fingerprint(headers(1))", "`headers` takes header names"),
    (r#"fingerprint(headers("a", "A"))"#, "`a` is listed twice"),
    (r#"fingerprint(headers("a b"))"#, "cannot contain ' '"),
    ("fingerprint(ignore)", "`ignore` takes JSON pointers"),
    ("fingerprint(ignore())", "`ignore` takes JSON pointers"),
    ("fingerprint(ignore(sent_at))", "`ignore` takes JSON pointers"),
    (r#"fingerprint(ignore = "/a")"#, "`ignore` takes JSON pointers"),
    (r#"fingerprint(ignore(""))"#, "write `ignore_body` instead"),
    (r#"fingerprint(ignore("sent_at"))"#, "write `/sent_at`"),
    (r#"fingerprint(ignore("/a~b"))"#, "`~` is written `~0`"),
    (r#"fingerprint(ignore("/a~"))"#, "`~` is written `~0`"),
    (r#"fingerprint(ignore("/a", "/b", "/a"))"#, "`/a` is listed twice"),
    ("fingerprint(ignore_query())", "`ignore_query` takes names of query parameters"),
    ("fingerprint(ignore_query(nonce))", "`ignore_query` takes names of query parameters"),
    (r#"fingerprint(ignore_query = "nonce")"#, "`ignore_query` takes `true` or `false`"),
    (r#"fingerprint(ignore_query(""))"#, "the parameter's name is empty"),
    (r#"fingerprint(ignore_query("a", "a"))"#, "`a` is listed twice"),
];

#[test]
fn every_message_says_what_to_write() {
    for (options, says) in MISTAKES {
        let tokens = options.parse().expect("tokens");
        let message = refused(&tokens);
        assert!(message.contains(says), "{options}: {message}");
    }
}

#[test]
fn every_synonym_is_another_name_for_an_option() {
    let is_option = |name: &str| OPTIONS.iter().any(|entry| entry.name == name);
    let mut seen = Vec::new();
    for (names, meant) in synonyms::SYNONYMS {
        if let synonyms::Meant::Option(meant) = meant {
            assert!(is_option(meant), "{meant}");
        }
        for name in *names {
            assert!(!is_option(name), "`{name}` is an option");
            assert!(!seen.contains(name), "`{name}` is listed twice");
            seen.push(name);
        }
    }
}

/// Each option alone, `tests/expand/option_<name>.rs`.
#[test]
fn every_option_has_an_expansion_golden() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/expand");
    for Entry { name, .. } in OPTIONS {
        let golden = folder.join(format!("option_{name}.rs"));
        let shape =
            std::fs::read_to_string(&golden).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(shape.starts_with(&format!("#[idempotent({name}")), "{name}");
    }
}

/// Each option has a heading in the reference, an example that compiles and one that is refused.
#[test]
fn the_reference_has_every_option() {
    let reference = include_str!("../reference.md");
    let sections: Vec<_> = reference.split("\n## ").skip(1).collect();
    let documented = sections
        .iter()
        .map(|section| section.split('`').nth(1).expect("a name"));
    let options: Vec<_> = OPTIONS.iter().map(|entry| entry.name).collect();
    let mut documented: Vec<_> = documented.collect();
    documented.sort_unstable();
    let mut sorted = options.clone();
    sorted.sort_unstable();
    assert_eq!(documented, sorted);
    for section in sections {
        let name = section.lines().next().unwrap_or_default();
        assert!(section.contains("```\n"), "{name} has no example");
        assert!(
            section.contains("```compile_fail\n"),
            "{name} has no refusal"
        );
        let link = name.trim_matches('`');
        assert!(
            reference.contains(&format!("[`{link}`](#{link})")),
            "{name} is not in the overview"
        );
    }
    for rule in FINGERPRINT {
        assert!(
            reference.contains(&format!("`{}", rule.name)),
            "{}",
            rule.name
        );
    }
}
