//! What is enqueued, and what is delivered of it.

use std::time::Duration;

use idempotent_runtime::{
    Idempotency, Keyring,
    store::{Token, outbox::MessageClaim},
};

use super::shop::{Receiver, Shop, quick, run};
use crate::database::{TestDatabase, World, on_each_database};

on_each_database! {
    messages_of_a_commit_are_delivered_in_order,
    what_is_rolled_back_delivers_nothing,
    a_repeated_attempt_enqueues_the_same_ids,
    limits_are_errors_that_name_them,
    a_message_that_the_database_refuses_commits_nothing,
    delivered_messages_are_deleted_when_their_time_is_over,
    a_payload_is_encrypted_as_responses_are,
    a_table_of_an_earlier_build_gets_its_outbox,
}

async fn messages_of_a_commit_are_delivered_in_order<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    let receiver = Receiver::default();
    let relay = shop.relay(&receiver);
    let ids = shop.ordered("a", "mail invoice mail").await;
    assert_eq!(ids.len(), 3);
    receiver.until_taken(3).await;
    let got = receiver.got();
    assert_eq!(receiver.taken(), ids);
    assert_eq!(
        (&*got[1].topic, &*got[1].payload, got[1].attempt),
        ("invoice", "a", 1)
    );
    // The retry replays, and enqueues nothing.
    assert_eq!(shop.ordered("a", "mail invoice mail").await, ids);
    shop.until_messages(1, 3).await;
    let relayed = relay.stop(Duration::from_secs(5)).await;
    assert_eq!((relayed.delivered, relayed.failed), (3, 0));
    assert_eq!((receiver.got().len(), shop.messages(0).await), (3, 0));
}

async fn what_is_rolled_back_delivers_nothing<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    for (act, status) in [
        ("refuse", 402),
        ("panic", 500),
        ("rollback-only", 201),
        ("release", 429),
    ] {
        let (answered, text) = shop.order(act, "mail", act).await;
        assert_eq!(answered, status, "{text}");
    }
    assert_eq!(shop.messages(0).await, 0);
    assert_eq!(shop.world.effects().await, 0);
    shop.ordered("committed", "mail").await;
    assert_eq!(shop.messages(0).await, 1);
}

async fn a_repeated_attempt_enqueues_the_same_ids<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    // Nothing happened: the key is free again.
    let (status, first) = shop.order("a", "mail mail", "release").await;
    assert_eq!(status, 429);
    let second = shop.ordered("a", "mail mail").await;
    assert_eq!(first, second.join(" "));
    assert_ne!(second[0], second[1]);
    let others = shop.ordered("b", "mail").await;
    assert!(!second.contains(&others[0]));
}

async fn limits_are_errors_that_name_them<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    let (status, errors) = shop.order("a", "", "limits").await;
    assert_eq!(status, 201, "{errors}");
    for (error, named) in errors.lines().zip([
        "the topic \"\" is not valid",
        "the topic \"line\\nbreak\" is not valid",
        "is not valid: write 1 to 128 bytes",
        "the payload has 1048577 bytes",
        "could not be written as JSON",
        "256 messages",
    ]) {
        assert!(error.contains(named), "{error}");
    }
    assert_eq!(errors.lines().count(), 6);
    assert_eq!(shop.messages(0).await, 256);
}

async fn a_message_that_the_database_refuses_commits_nothing<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    run(
        &shop.world,
        format!("drop table {}_outbox", shop.world.records),
    )
    .await;
    let (status, text) = shop.order("a", "", "swallow").await;
    assert_eq!(status, 500, "{text}");
    assert!(text.contains("transaction_failed"), "{text}");
    assert_eq!(shop.world.effects().await, 0);
}

async fn delivered_messages_are_deleted_when_their_time_is_over<Db: TestDatabase>(
    world: World<Db>,
) {
    let shop = Shop::new(world);
    let receiver = Receiver::default();
    shop.ordered("a", "mail mail").await;
    let kept = shop.relay(&receiver);
    shop.until_messages(1, 2).await;
    kept.stop(Duration::from_secs(5)).await;
    let outbox = shop.world.store_outbox();
    assert_eq!(outbox.purge_delivered(10).await.expect("a purge"), 0);
    shop.ordered("b", "mail mail mail").await;
    let relay = shop.relay_with(quick().keep_delivered(Duration::ZERO), &receiver);
    shop.until_messages(1, 5).await;
    relay.stop(Duration::from_secs(5)).await;
    assert_eq!(outbox.purge_delivered(2).await.expect("a purge"), 2);
    assert_eq!(outbox.purge_delivered(2).await.expect("a purge"), 1);
    assert_eq!(shop.messages(1).await, 2);
}

async fn a_payload_is_encrypted_as_responses_are<Db: TestDatabase>(world: World<Db>) {
    let sealed = Idempotency::builder().store(world.store.clone());
    let sealed = sealed.encrypt(Keyring::new(7, [7; 32]));
    let shop = Shop::of(sealed, world.clone());
    let ids = shop.ordered("a-secret", "mail other").await;
    let claim = MessageClaim::new(Token::random(), Duration::ZERO, 5);
    let claimed = world.store_outbox().claim(&claim).await.expect("a claim");
    let at_rest = &claimed[0].payload;
    let found = at_rest.windows(8).any(|window| window == b"a-secret");
    assert!(!found, "{at_rest:?}");
    // A row that was moved to another topic does not open, nor does it without the key.
    let table = world.records.to_string();
    let moved = format!("update {table}_outbox set topic = 'moved' where topic = 'other'");
    run(&world, moved).await;
    let receiver = Receiver::default();
    let without_key = Shop::new(world).relay(&receiver);
    let again = Duration::from_millis(200);
    tokio::time::timeout(again, receiver.until_taken(1))
        .await
        .expect_err("sealed");
    without_key.stop(Duration::from_secs(5)).await;
    let relay = shop.relay_with(quick().max_attempts(12), &receiver);
    shop.until_messages(1, 1).await;
    shop.until_messages(2, 1).await;
    relay.stop(Duration::from_secs(5)).await;
    assert_eq!(
        (receiver.taken(), &*receiver.got()[0].payload),
        (ids[..1].to_vec(), "a-secret")
    );
    let dead = shop
        .engine
        .outbox()
        .dead_letters(0, 9)
        .await
        .expect("a list");
    assert!(
        dead[0].to_string().contains("belongs to another record"),
        "{}",
        dead[0]
    );
}

/// Of a build of this version before there was an outbox, or of version 1: `migrate()` makes it beside the records.
async fn a_table_of_an_earlier_build_gets_its_outbox<Db: TestDatabase>(world: World<Db>) {
    let before = Shop::new(world.clone());
    before.ordered("a", "mail").await;
    let table = world.records.to_string();
    run(&world, format!("drop table {table}_outbox")).await;
    let reopened = Db::open(&world.url(), &world.records, 5).await;
    let shop = Shop::over(world, reopened);
    shop.ordered("a", "mail").await;
    assert_eq!(shop.messages(0).await, 0, "the record is still there");
    shop.ordered("b", "mail").await;
    assert_eq!(shop.messages(0).await, 1);
}
