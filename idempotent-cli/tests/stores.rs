//! Every command on every store: what it prints, what it changes, what it refuses, and what is kept of it.

#[path = "../../tests/support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
mod support;

use idempotent_runtime::{
    StoreKey,
    store::{RecordState, Store as _, inspect::KeyPrefix},
};
use support::{SECRET, Target, on_each_store, sqlite};

const PAY: &str = "POST /payments";

fn key(first: u8, rest: u8) -> StoreKey {
    let mut bytes = [rest; 32];
    bytes[0] = first;
    StoreKey::from_bytes(bytes)
}

fn id(key: StoreKey) -> String {
    KeyPrefix::from(&key).to_string()
}

/// What every change needs.
const CHANGE: [&str; 4] = [
    "--allow-writes",
    "-y",
    "--reason",
    "the provider knows nothing of it",
];

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

#[test]
fn records_are_counted_listed_and_shown() {
    on_each_store(async |target| {
        assert_eq!(
            target.run(&["list", "-o", "json"]).json(),
            serde_json::json!([])
        );
        assert_eq!(target.run(&["list"]).done().out(), "no such record\n");

        target.unknown(key(0x11, 1), PAY).await;
        target.completed(key(0x22, 1), PAY).await;
        target.completed(key(0x33, 1), "POST /orders").await;
        target.in_flight(key(0x44, 1), PAY).await;

        let counts = target.run(&["stats", "-o", "json"]).json();
        let count = |name: &str| counts[name].as_u64().unwrap();
        assert_eq!(
            (count("in_flight"), count("unknown"), count("completed")),
            (1, 1, 2),
            "{counts}"
        );
        assert_eq!(counts["exact"], true);

        let all = target.run(&["list", "-o", "json"]).json();
        assert_eq!(all.as_array().unwrap().len(), 4);
        let unknown = target
            .run(&["list", "--state", "unknown", "-o", "json"])
            .json();
        assert_eq!(unknown[0]["id"], id(key(0x11, 1)));
        assert_eq!(unknown[0]["endpoint"], PAY);
        assert!(
            unknown[0]["created_at"].as_str().unwrap().ends_with('Z'),
            "{unknown}"
        );
        let orders = target.run(&["list", "--endpoint", "POST /orders", "-o", "jsonl"]);
        assert_eq!(orders.done().out().lines().count(), 1);
        let csv = target.run(&["list", "-o", "csv"]).done().out();
        assert_eq!(csv.lines().count(), 5);
        assert!(csv.starts_with("id,state,endpoint,attempt,mode,"), "{csv}");
        let old = target
            .run(&["list", "--older-than", "1h", "-o", "json"])
            .json();
        assert_eq!(old, serde_json::json!([]));

        let shown = target.run(&["show", "1101", "-o", "json"]).json();
        assert_eq!(
            (&shown["id"], &shown["state"]),
            (&id(key(0x11, 1)).into(), &"unknown".into())
        );
        let text = target.run(&["show", &id(key(0x22, 1))]).done().out();
        assert!(text.contains("state         completed"), "{text}");
        target.run(&["show", "ffff"]).code(3);
    });
}

#[test]
fn pages_follow_each_other_to_the_end() {
    on_each_store(async |target| {
        for n in 1..=9 {
            target.completed(key(n * 20, n), PAY).await;
        }
        let mut seen = vec![];
        let mut cursor: Option<String> = None;
        loop {
            let mut arguments = vec!["list", "--limit", "4", "-o", "json"];
            if let Some(cursor) = &cursor {
                arguments.extend(["--after", cursor]);
            }
            let page = target.run(&arguments);
            let rows = page.json();
            seen.extend(
                rows.as_array()
                    .unwrap()
                    .iter()
                    .map(|row| row["id"].to_string()),
            );
            let said = page.error();
            cursor = said
                .split_once("--after ")
                .map(|(_, cursor)| cursor.trim().to_owned());
            if cursor.is_none() {
                break;
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 9);
        let nonsense = target.run(&["list", "--after", "nonsense"]);
        nonsense.code(2);
    });
}

#[test]
fn an_unknown_record_is_resolved_with_a_response_that_retries_get() {
    on_each_store(async |target| {
        let record = key(0x11, 1);
        target.unknown(record, PAY).await;
        let id = id(record);
        let resolve = [
            "resolve",
            &id,
            "--status",
            "201",
            "--header",
            "Content-Type: text/plain",
            "--body-file",
            "-",
        ];

        // Refused, one after the other: nothing changes.
        target
            .run_with(&with(&resolve, &["--reason", "paid"]), "paid")
            .code(4);
        target
            .run_with(
                &with(&resolve, &["--reason", "paid", "--allow-writes"]),
                "paid",
            )
            .code(4);
        target
            .run_with(
                &with(&resolve, &["--reason", "  ", "--allow-writes", "-y"]),
                "paid",
            )
            .code(2);
        let short = ["resolve", &id[..16], "--status", "201", "--body-file", "-"];
        target.run_with(&with(&short, &CHANGE), "paid").code(2);
        let dry = target.run_with(&with(&with(&resolve, &CHANGE), &["--dry-run"]), "paid");
        assert_eq!(
            dry.done().out(),
            format!("would resolve with status 201 {id}\n")
        );
        let shown = target.run(&["show", &id, "-o", "json"]).json();
        assert_eq!(shown["state"], "unknown");

        let done = target.run_with(&with(&resolve, &CHANGE), "paid");
        assert_eq!(done.done().out(), format!("resolved {id}\n"));
        let stored = target.store.get(&record).await.unwrap().expect("a record");
        assert!(
            matches!(stored.state, RecordState::Completed(_)),
            "{stored:?}"
        );
        let reveal = [
            "show",
            &id,
            "--body",
            "--reason",
            "a look",
            "--allow-writes",
            "-o",
            "json",
        ];
        let revealed = target.run(&reveal).json();
        assert_eq!(
            (&revealed["status"], &revealed["body"]),
            (&201.into(), &"paid".into())
        );

        // Again: its outcome is known.
        target.run_with(&with(&resolve, &CHANGE), "paid").code(4);
        assert_audit(
            target,
            &[
                ("resolve", "begun"),
                ("resolve", "done"),
                ("reveal", "begun"),
                ("reveal", "done"),
            ],
        );
    });
}

#[test]
fn a_released_record_is_gone_and_a_live_lease_is_not_released() {
    on_each_store(async |target| {
        let (unknown, live) = (key(0x11, 1), key(0x44, 1));
        target.unknown(unknown, PAY).await;
        target.in_flight(live, PAY).await;
        let refused = target.run(&with(&["release", &id(live)], &CHANGE));
        assert!(
            refused.code(4).error().contains("in flight"),
            "{}",
            refused.error()
        );
        let forced = target.run(&with(&["release", &id(live), "--force"], &CHANGE));
        forced.code(2);
        assert!(target.store.get(&live).await.unwrap().is_some());

        let done = target.run(&with(&["release", &id(unknown)], &CHANGE));
        assert_eq!(done.done().out(), format!("released {}\n", id(unknown)));
        assert!(target.store.get(&unknown).await.unwrap().is_none());
        target
            .run(&with(&["release", &id(unknown)], &CHANGE))
            .code(3);
        assert_audit(target, &[("release", "begun"), ("release", "done")]);
    });
}

#[test]
fn a_completed_record_is_forgotten_and_no_other() {
    on_each_store(async |target| {
        let (done, unknown) = (key(0x22, 1), key(0x11, 1));
        target.completed(done, PAY).await;
        target.unknown(unknown, PAY).await;
        target
            .run(&with(&["forget", &id(unknown)], &CHANGE))
            .code(4);
        let forgotten = target.run(&with(&["forget", &id(done)], &CHANGE));
        assert_eq!(forgotten.done().out(), format!("forgot {}\n", id(done)));
        assert!(forgotten.error().contains("a retry executes again"));
        assert!(target.store.get(&done).await.unwrap().is_none());
        assert_audit(target, &[("forget", "begun"), ("forget", "done")]);
    });
}

#[test]
fn many_unknown_records_are_resolved_at_once_within_a_bound() {
    on_each_store(async |target| {
        for n in 1..=3 {
            target.unknown(key(n, n), PAY).await;
        }
        target.unknown(key(0x99, 9), "POST /orders").await;
        let all = ["resolve", "--all", "--not-executed", "--endpoint", PAY];
        target.run(&with(&all, &CHANGE)).code(2);
        let bounded = with(&all, &["--max", "2"]);
        assert!(
            target
                .run(&with(&bounded, &CHANGE))
                .code(4)
                .error()
                .contains("more than 2")
        );
        assert_eq!(target.run(&["stats", "-o", "json"]).json()["unknown"], 4);
        let bounded = with(&all, &["--max", "3"]);
        assert_eq!(
            target
                .run(&with(&bounded, &CHANGE))
                .done()
                .out()
                .lines()
                .count(),
            3
        );
        assert_eq!(target.run(&["stats", "-o", "json"]).json()["unknown"], 1);
        target.run(&with(&bounded, &CHANGE)).code(3);
    });
}

#[test]
fn a_prefix_of_several_records_names_them_all() {
    on_each_store(async |target| {
        target.completed(key(0xaa, 1), PAY).await;
        let mut other = [1; 32];
        (other[0], other[31]) = (0xaa, 2);
        target.completed(StoreKey::from_bytes(other), PAY).await;
        let refused = target.run(&["show", "aa01"]);
        assert!(
            refused
                .code(4)
                .error()
                .contains(&id(StoreKey::from_bytes(other))),
            "{}",
            refused.error()
        );
        target.run(&["show", "aa"]).code(2);
    });
}

#[test]
fn nothing_that_a_client_sent_or_got_is_printed_unless_revealed() {
    on_each_store(async |target| {
        target.completed(key(0x22, 1), PAY).await;
        let id = id(key(0x22, 1));
        for arguments in [
            &["list"][..],
            &["list", "-o", "json"],
            &["stats"],
            &["show", &id],
            &["show", &id, "-o", "json"],
            &["audit"],
            &["check"],
            &["show", "--endpoint", PAY, "--key-stdin"],
        ] {
            let ran = target.run_with(arguments, SECRET);
            assert!(
                !ran.everything().contains(SECRET),
                "{arguments:?}: {}",
                ran.everything()
            );
        }
        let reveal = [
            "show",
            &id,
            "--body",
            "--reason",
            "a complaint",
            "--allow-writes",
        ];
        let revealed = target.run(&reveal);
        assert!(revealed.done().out().contains(SECRET));
        let kept = target.run(&["audit", "-o", "json"]);
        assert!(!kept.everything().contains(SECRET));
        target
            .run(&["show", &id, "--body", "--reason", "a complaint"])
            .code(4);
    });
}

#[test]
fn purge_needs_consent_to_writes_and_says_what_it_did() {
    on_each_store(async |target| {
        target.run(&["purge"]).code(4);
        assert_eq!(
            target.run(&["purge", "--allow-writes"]).done().out(),
            "purged 0\n"
        );
    });
}

#[test]
fn a_store_that_is_not_there_is_an_error_without_its_password() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut target = runtime.block_on(sqlite());
    let closed = servers::free_port();
    for (url, says) in [
        (
            format!("postgres://ann:{SECRET}@127.0.0.1:{closed}/db"),
            "postgres",
        ),
        (format!("redis://:{SECRET}@127.0.0.1:{closed}"), "Redis"),
        (format!("ftp://ann:{SECRET}@host"), "ftp"),
        ("sqlite:///nowhere/records.db".to_owned(), "no file"),
    ] {
        target.url = url;
        let ran = target.run(&["list"]);
        assert!(ran.code(1).error().contains(says), "{}", ran.error());
        assert!(!ran.everything().contains(SECRET), "{}", ran.everything());
    }
    target.url = "memory:".into();
    target.run(&["list"]).code(2);
}

/// Actions and stages of the audit, oldest first, by the user of the system.
#[track_caller]
fn assert_audit(target: &Target, acts: &[(&str, &str)]) {
    let kept = target.run(&["audit", "-o", "json"]).json();
    let kept: Vec<_> = kept.as_array().unwrap().iter().rev().collect();
    let told: Vec<_> = kept
        .iter()
        .map(|event| {
            (
                event["action"].as_str().unwrap(),
                event["stage"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, acts);
    assert!(kept.iter().all(|event| event["actor"] == "ann"), "{kept:?}");
}
