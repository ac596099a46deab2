//! What lies on the server, what it costs to get there, and what is not believed when it comes back.

use std::time::Duration;

use idempotent_runtime::store::{
    Acquisition, Outcome, Store, StoreErrorKind, TraceId, Write,
    conformance::{Harness as _, key, response},
};

use super::{RedisHarness, installed};
use crate::{servers::redis::Redis, toolbox::new_claim};

fn done() -> Outcome {
    Outcome::Response(response(201, &[("location", "/1")], b"\0done\xff"))
}

/// A first execution costs two commands, a replay one; and no other is sent.
#[tokio::test]
async fn an_execution_costs_two_round_trips_and_a_replay_one() {
    let Some(redis) = Redis::start() else { return };
    let store = idempotent_runtime::store::redis::RedisStore::connect(redis.url())
        .await
        .unwrap();
    // INFO itself counts, as do the two commands with which each of our connections asks.
    let sent = || {
        let asked = ["evalsha", "eval", "script", "get", "ping", "wait", "multi"];
        asked.map(|command| redis.calls(command))
    };
    let before = sent();
    let mine = new_claim(key(1));
    store.acquire(&mine).await.unwrap();
    store.complete(&mine.held(), &done()).await.unwrap();
    let mut expected = before;
    expected[0] += 2;
    assert_eq!(sent(), expected, "a first execution");
    store.acquire(&new_claim(key(1))).await.unwrap();
    expected[0] += 1;
    assert_eq!(sent(), expected, "a replay");
    println!("commands: {} for a first execution, {} for a replay", 2, 1);
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
    // Ten seconds of lease and a hundred of ttl.
    assert!((100_000..=110_000).contains(&left()), "{}", left());
    let mut shorter = mine.held();
    shorter.lease = Duration::from_secs(1);
    store.renew(&shorter).await.unwrap();
    assert!(left() > 101_000, "a renewal never shortens the expiry");
    assert_eq!(store.get(&key(1)).await.unwrap().unwrap().trace_id, trace);

    store.complete(&mine.held(), &done()).await.unwrap();
    let Outcome::Response(stored) = done() else {
        unreachable!()
    };
    assert_eq!(field("s"), b"D");
    assert_eq!(field("r"), stored.as_bytes()[..]);
    assert_eq!(field("l"), b"$-1\r\n", "no lease");
    assert!((99_000..=100_000).contains(&left()), "{}", left());
}

/// Whatever else lies under the key: an error, and never a lease, an outcome or a change.
#[tokio::test]
async fn hostile_records_are_errors_and_stay_as_they_are() {
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
    let mut hostile: Vec<Vec<(&str, &[u8])>> = vec![vec![("other", b"field")]];
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
            hostile.push(fields);
        }
        let mut fields = good.to_vec();
        fields.remove(place);
        hostile.push(fields);
    }
    for fields in &hostile {
        set(fields);
        let before = server.ask_bytes(&[b"DUMP", record.as_bytes()]);
        for take_over in [false, true] {
            let error = store.acquire(&new_claim(key(1)).take_over(take_over)).await;
            let error = error.expect_err("no answer to an unreadable record");
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{fields:?}");
        }
        let after = server.ask_bytes(&[b"DUMP", record.as_bytes()]);
        assert_eq!(before, after, "{fields:?}");
    }

    for other in [&["SET"][..], &["RPUSH"], &["SADD"]] {
        server.ask(&["DEL", &record]);
        server.ask(&[other, &[&record, "other"]].concat());
        let mine = new_claim(key(1));
        let errors = [
            store.acquire(&mine).await.map(drop),
            store.complete(&mine.held(), &done()).await.map(drop),
            store.get(&key(1)).await.map(drop),
        ];
        for error in errors {
            assert_eq!(
                error.expect_err("not a record").kind(),
                StoreErrorKind::Corrupt
            );
        }
    }
}

/// An eviction, a failover, a hand that deletes: the lease is lost, and nothing is made up.
#[tokio::test]
async fn a_record_that_vanished_is_missing_and_stays_so() {
    if !installed() {
        return;
    }
    let harness = RedisHarness::open().await;
    let (store, record) = (harness.store(), harness.record(&key(1)));
    let mine = new_claim(key(1));
    store.acquire(&mine).await.unwrap();
    RedisHarness::server().ask(&["DEL", &record]);
    assert_eq!(
        store.complete(&mine.held(), &done()).await.unwrap(),
        Write::Missing
    );
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Missing);
    assert!(store.get(&key(1)).await.unwrap().is_none());
}

/// A server that was restarted, or took over, has not seen the scripts.
#[tokio::test]
async fn scripts_that_the_server_forgot_are_sent_again() {
    let Some(redis) = Redis::start() else { return };
    let store = idempotent_runtime::store::redis::RedisStore::connect(redis.url())
        .await
        .unwrap();
    let mine = new_claim(key(1));
    for n in 0..2 {
        redis.ask(&["SCRIPT", "FLUSH"]);
        assert_eq!(
            store.acquire(&mine).await.unwrap(),
            Acquisition::Acquired { attempt: 1 }
        );
        redis.ask(&["SCRIPT", "FLUSH"]);
        assert_eq!(
            store.renew(&mine.held()).await.unwrap(),
            Write::Applied,
            "{n}"
        );
    }
    redis.ask(&["SCRIPT", "FLUSH"]);
    assert_eq!(
        store.complete(&mine.held(), &done()).await.unwrap(),
        Write::Applied
    );
}

/// No scripts that were left behind, and no number of times: what the contract calls a repetition.
#[tokio::test]
async fn responses_of_a_megabyte_come_back_as_they_went() {
    if !installed() {
        return;
    }
    let harness = RedisHarness::open().await;
    let body: Vec<u8> = (0..1_u32 << 20)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let outcome = Outcome::Response(response(200, &[("content-type", "application/x")], &body));
    let mine = new_claim(key(1));
    harness.store().acquire(&mine).await.unwrap();
    harness
        .store()
        .complete(&mine.held(), &outcome)
        .await
        .unwrap();
    let again = harness.store().acquire(&new_claim(key(1))).await.unwrap();
    assert_eq!(again, Acquisition::Completed(outcome));
}
