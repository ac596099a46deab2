//! What is stored on the server, what it costs to read and write it, and what is rejected as unreadable.

use std::time::Duration;

use idempotent_runtime::store::{
    Outcome, StepLog as _, Store, StoreErrorKind, Token, TraceId, Write,
    conformance::{Harness as _, key, response},
};

use super::{RedisHarness, installed, on, open};
use crate::{
    servers::redis::Redis,
    toolbox::{FIRST, execute, new_claim, replays},
};

/// An outcome whose bytes are not all text.
fn binary() -> Outcome {
    Outcome::Response(response(201, &[("location", "/1")], b"\0done\xff"))
}

#[tokio::test]
async fn a_first_execution_costs_two_commands_and_a_replay_one() {
    let Some(redis) = Redis::start() else { return };
    let store = open(on(&redis)).await;
    // Without INFO, with which the commands are counted, and the two commands with which each connection of this test
    // begins.
    let sent = || {
        let commands = ["evalsha", "eval", "script", "get", "ping", "wait", "multi"];
        commands.map(|command| redis.calls(command))
    };
    let mut expected = sent();
    execute(&store, &new_claim(key(1)), &binary()).await;
    expected[0] += 2;
    assert_eq!(sent(), expected, "a first execution");
    replays(&store, key(1), &binary()).await;
    expected[0] += 1;
    assert_eq!(sent(), expected, "a replay");
}

#[tokio::test]
async fn a_record_is_one_hash_of_plain_bytes_that_outlives_its_lease() {
    if !installed() {
        return;
    }
    let harness = RedisHarness::open().await;
    let (store, record) = (harness.store(), harness.record(&key(1)));
    let server = RedisHarness::server();
    let field = |name: &str| server.ask_bytes(&[b"HGET", record.as_bytes(), name.as_bytes()]);
    let left = || {
        let reply = server.ask(&["PTTL", &record]);
        reply[1..].trim().parse::<i64>().expect("a time")
    };

    let trace = TraceId::from_bytes([9; 16]);
    let mine = new_claim(key(1)).trace_id(trace);
    store.acquire(&mine).await.unwrap();
    assert_eq!(field("s"), b"R");
    assert_eq!(field("f"), mine.fingerprint.as_bytes());
    assert_eq!(field("t"), mine.token.as_bytes());
    assert_eq!(field("a"), b"1");
    assert_eq!(field("i"), [9; 16]);
    // A lease of ten seconds and a ttl of a hundred.
    assert!((100_000..=110_000).contains(&left()), "{}", left());
    let mut shorter = mine.held();
    shorter.lease = Duration::from_secs(1);
    store.renew(&shorter).await.unwrap();
    assert!(left() > 101_000, "a renewal never shortens the expiry");
    assert_eq!(store.get(&key(1)).await.unwrap().unwrap().trace_id, trace);

    store.complete(&mine.held(), &binary()).await.unwrap();
    let Outcome::Response(stored) = binary() else {
        unreachable!()
    };
    assert_eq!(field("s"), b"D");
    assert_eq!(field("r"), stored.as_bytes()[..]);
    assert_eq!(field("l"), b"$-1\r\n", "the lease is removed");
    assert!((99_000..=100_000).contains(&left()), "{}", left());
}

/// Anything else under the key is an error: never a lease or an outcome, and it is not changed.
#[tokio::test]
async fn unreadable_records_are_errors_and_stay_as_they_are() {
    if !installed() {
        return;
    }
    let harness = RedisHarness::open().await;
    let (store, record) = (harness.store(), harness.record(&key(1)));
    let server = RedisHarness::server();
    let set = |fields: &[(&str, &[u8])]| {
        server.ask(&["DEL", &record]);
        let mut command: Vec<&[u8]> = vec![b"HSET", record.as_bytes()];
        for (name, value) in fields {
            command.extend([name.as_bytes(), *value]);
        }
        server.ask_bytes(&command);
    };
    let good: [(&str, &[u8]); 5] = [
        ("s", b"R"),
        ("f", &[0xf1; 32]),
        ("t", &[1; 16]),
        ("a", b"1"),
        ("l", b"1"),
    ];
    let mut unreadable: Vec<Vec<(&str, &[u8])>> = vec![vec![("other", b"field")]];
    let wrong: [(usize, &[&[u8]]); 5] = [
        (0, &[b"", b"X", b"D", b"RR"]),
        (1, &[b"", b"short", &[0xf1; 33]]),
        (2, &[b"", &[1; 15]]),
        (
            3,
            &[
                b"",
                b"x",
                b"nan",
                b"inf",
                b"-1",
                b"1.5",
                b"99999999999999999999",
            ],
        ),
        (4, &[b"", b"nan", b"-inf", b"-1", b"soon", b"1e300"]),
    ];
    for (place, values) in wrong {
        for value in values {
            let mut fields = good.to_vec();
            fields[place].1 = value;
            unreadable.push(fields);
        }
        let mut fields = good.to_vec();
        fields.remove(place);
        unreadable.push(fields);
    }
    for fields in &unreadable {
        set(fields);
        let before = server.ask_bytes(&[b"DUMP", record.as_bytes()]);
        for take_over in [None, Some(Token::from_bytes([1; 16]))] {
            let mut claim = new_claim(key(1));
            claim.take_over = take_over;
            let error = store.acquire(&claim).await;
            let error = error.expect_err("the record is unreadable");
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{fields:?}");
        }
        let after = server.ask_bytes(&[b"DUMP", record.as_bytes()]);
        assert_eq!(before, after, "{fields:?}");
    }

    for other in [&["SET"][..], &["RPUSH"], &["SADD"]] {
        server.ask(&["DEL", &record]);
        server.ask(&[other, &[&record, "other"]].concat());
        let mine = new_claim(key(1));
        for error in [
            store.acquire(&mine).await.map(drop),
            store.complete(&mine.held(), &binary()).await.map(drop),
            store.get(&key(1)).await.map(drop),
        ] {
            let error = error.expect_err("not a record");
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{other:?}");
        }
    }
}

/// After an eviction, a failover or a deletion by hand the lease is lost, and no record is made.
#[tokio::test]
async fn a_record_that_vanished_is_missing_and_is_not_made_again() {
    if !installed() {
        return;
    }
    let harness = RedisHarness::open().await;
    let (store, record) = (harness.store(), harness.record(&key(1)));
    let mine = new_claim(key(1));
    store.acquire(&mine).await.unwrap();
    RedisHarness::server().ask(&["DEL", &record]);
    let completed = store.complete(&mine.held(), &binary()).await;
    assert_eq!(completed.unwrap(), Write::Missing);
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Missing);
    assert!(store.get(&key(1)).await.unwrap().is_none());
}

/// A server that was restarted, or took over, does not know the scripts.
#[tokio::test]
async fn scripts_that_the_server_does_not_know_are_sent_again() {
    let Some(redis) = Redis::start() else { return };
    let store = open(on(&redis)).await;
    let mine = new_claim(key(1));
    let forget = || redis.ask(&["SCRIPT", "FLUSH"]);
    for round in 0..2 {
        forget();
        assert_eq!(store.acquire(&mine).await.unwrap(), FIRST, "{round}");
        forget();
        let renewed = store.renew(&mine.held()).await.unwrap();
        assert_eq!(renewed, Write::Applied, "{round}");
    }
    forget();
    let completed = store.complete(&mine.held(), &binary()).await;
    assert_eq!(completed.unwrap(), Write::Applied);
}

#[tokio::test]
async fn a_response_of_a_megabyte_is_replayed_byte_for_byte() {
    if !installed() {
        return;
    }
    let harness = RedisHarness::open().await;
    let body: Vec<u8> = (0..1_u32 << 20)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let outcome = Outcome::Response(response(200, &[("content-type", "application/x")], &body));
    execute(harness.store(), &new_claim(key(1)), &outcome).await;
    replays(harness.store(), key(1), &outcome).await;
}

/// Not only is nothing read of them: what other services answered is not at rest for the ttl.
#[tokio::test]
async fn a_completed_record_stores_no_steps() {
    if !installed() {
        return;
    }
    let harness = RedisHarness::open().await;
    let (store, claim) = (harness.store(), new_claim(key(1)));
    assert_eq!(store.acquire(&claim).await.unwrap(), FIRST);
    let append = store.append_step(&claim.key, &claim.token, 0, b"one");
    assert_eq!(append.await.unwrap(), Write::Applied);
    let record = harness.record(&claim.key);
    let kept = || {
        RedisHarness::server()
            .ask(&["HEXISTS", &record, "w"])
            .trim()
            .to_owned()
    };
    assert_eq!(kept(), ":1");
    let completed = store.complete(&claim.held(), &binary()).await.unwrap();
    assert_eq!((completed, &*kept()), (Write::Applied, ":0"));
}
