//! Processes of this build and of one before it on the same records, as during a rolling deploy. The scripts in `earlier/`
//! are those of that build, word for word.

use std::time::Duration;

use idempotent_runtime::store::{
    Acquisition, Claim, ClaimMode, EndpointLabel, Outcome, Store, Token, Write,
    conformance::{Harness as _, key},
};

use super::{RedisHarness, installed};
use crate::toolbox::{FIRST, done, new_claim, replays};

const ACQUIRE: &str = include_str!("earlier/acquire.lua");
const COMPLETE: &str = include_str!("earlier/complete.lua");
const RENEW: &str = include_str!("earlier/renew.lua");

/// A process of the earlier build.
struct Earlier(RedisHarness);

impl Earlier {
    fn run(&self, script: &str, claim: &Claim, arguments: &[&[u8]]) -> String {
        let record = self.0.record(&claim.key);
        let head: [&[u8]; 5] = [
            b"EVAL",
            script.as_bytes(),
            b"1",
            record.as_bytes(),
            claim.token.as_bytes(),
        ];
        let reply = RedisHarness::server().ask_bytes(&[&head[..], arguments].concat());
        String::from_utf8_lossy(&reply).into_owned()
    }

    fn acquire(&self, claim: &Claim, take_over: &[u8]) -> String {
        let fingerprint = claim.fingerprint.as_bytes();
        let arguments: [&[u8]; 6] = [fingerprint, b"60000", b"120000", take_over, b"", b"0"];
        self.run(ACQUIRE, claim, &arguments)
    }

    fn complete(&self, claim: &Claim) -> String {
        self.run(
            COMPLETE,
            claim,
            &[b"T", b"", b"60000", b"channel", b"message"],
        )
    }
}

const APPLIED: &str = ":1\r\n";
const FIRST_ATTEMPT: &str = "*2\r\n:0\r\n:1\r\n";

fn labelled(claim: Claim) -> Claim {
    claim
        .endpoint(EndpointLabel::new("POST /pay"))
        .mode(ClaimMode::Transactional)
}

#[tokio::test]
async fn both_builds_complete_what_the_other_claimed() {
    if !installed() {
        return;
    }
    let earlier = Earlier(RedisHarness::open().await);
    let store = earlier.0.store();
    let [old, new] = [new_claim(key(1)), labelled(new_claim(key(2)))];

    assert_eq!(earlier.acquire(&old, b""), FIRST_ATTEMPT);
    let record = store.get(&old.key).await.unwrap().unwrap();
    assert_eq!((record.mode, record.endpoint), (ClaimMode::Plain, None));
    assert_eq!((record.created_at, record.completed_at), (None, None));
    assert_eq!(store.renew(&old.held()).await.unwrap(), Write::Applied);
    assert_eq!(
        store.complete(&old.held(), &done()).await.unwrap(),
        Write::Applied
    );
    replays(store, old.key, &done()).await;
    let record = store.get(&old.key).await.unwrap().unwrap();
    assert!(record.created_at.is_none() && record.completed_at.is_some());
    assert!(
        earlier
            .acquire(&new_claim(key(1)), b"")
            .starts_with("*2\r\n:3\r\n")
    );

    assert_eq!(store.acquire(&new).await.unwrap(), FIRST);
    assert_eq!(earlier.run(RENEW, &new, &[b"60000", b"120000"]), APPLIED);
    assert_eq!(earlier.complete(&new), APPLIED);
    replays(store, new.key, &Outcome::Tombstone).await;
    let record = store.get(&new.key).await.unwrap().unwrap();
    assert_eq!(record.endpoint.as_deref(), Some("POST /pay"));
    assert!(record.created_at.is_some() && record.completed_at.is_none());
}

/// What an earlier build executes is plain, whatever the lease was that it took over.
#[tokio::test]
async fn a_lease_that_an_earlier_build_took_over_is_plain() {
    if !installed() {
        return;
    }
    let earlier = Earlier(RedisHarness::open().await);
    let store = earlier.0.store();
    let first = labelled(new_claim(key(1)));
    assert_eq!(store.acquire(&first).await.unwrap(), FIRST);
    let lapse = Duration::from_secs(90);
    earlier.0.advance(lapse).await;
    let unknown = async |lease: Token, mode| {
        let next = store.acquire(&new_claim(key(1))).await.unwrap();
        assert_eq!(next, Acquisition::Unknown { lease, mode });
    };
    unknown(first.token, ClaimMode::Transactional).await;
    let second = new_claim(key(1));
    let taken = earlier.acquire(&second, first.token.as_bytes());
    assert_eq!(taken, "*2\r\n:0\r\n:2\r\n");
    earlier.0.advance(lapse).await;
    unknown(second.token, ClaimMode::Plain).await;
}
