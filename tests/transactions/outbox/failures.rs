//! Receivers that fail.

use std::time::Duration;

use idempotent_runtime::store::{
    Token,
    outbox::{Mark, MessageClaim, MessageState},
};

use super::shop::{Got, Receiver, Shop, quick};
use crate::database::{TestDatabase, World, on_each_database};

on_each_database! {
    later_messages_of_a_key_wait_for_one_that_fails,
    a_key_of_the_applications_orders_messages_of_many_requests,
    a_message_is_dead_after_its_last_attempt_and_can_be_requeued,
    the_mark_of_an_attempt_before_a_requeue_comes_too_late,
    a_message_that_nobody_can_read_is_dead_at_once,
    a_delivery_that_panics_or_takes_too_long_is_tried_again,
    attempts_that_never_end_are_counted,
}

const ALWAYS: usize = usize::MAX;

fn topics(got: &[Got]) -> Vec<&str> {
    got.iter().map(|got| got.topic.as_str()).collect()
}

async fn later_messages_of_a_key_wait_for_one_that_fails<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    let receiver = Receiver::default();
    receiver.fail("down", ALWAYS);
    let relay = shop.relay(&receiver);
    shop.ordered("a", "first down last").await;
    shop.ordered("b", "other").await;
    let several = |got: &[Got]| got.iter().filter(|got| got.topic == "down").count() >= 3;
    receiver.until("several attempts", several).await;
    let got = receiver.got();
    let topics = topics(&got);
    assert!(topics.contains(&"other") && !topics.contains(&"last"));
    receiver.fail("down", 0);
    receiver.until_taken(4).await;
    let got = receiver.got();
    let of_a: Vec<_> = got.iter().filter(|got| got.payload == "a").collect();
    let taken: Vec<_> = of_a.iter().filter(|got| got.taken).collect();
    assert_eq!(
        taken.iter().map(|got| &*got.topic).collect::<Vec<_>>(),
        ["first", "down", "last"]
    );
    // Attempts rise by one, with one id.
    let down: Vec<_> = of_a.iter().filter(|got| got.topic == "down").collect();
    assert!(down.iter().all(|got| got.id == down[0].id));
    assert!(
        down.iter()
            .map(|got| got.attempt)
            .eq((1..).take(down.len()))
    );
    relay.stop(Duration::from_secs(5)).await;
}

async fn a_key_of_the_applications_orders_messages_of_many_requests<Db: TestDatabase>(
    world: World<Db>,
) {
    let shop = Shop::new(world);
    let receiver = Receiver::default();
    receiver.fail("n0", 2);
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.extend(
            shop.ordered(&format!("k{n}"), &format!("n{n}@account"))
                .await,
        );
    }
    let relay = shop.relay(&receiver);
    receiver.until_taken(4).await;
    assert_eq!(receiver.taken(), ids);
    relay.stop(Duration::from_secs(5)).await;
}

async fn a_message_is_dead_after_its_last_attempt_and_can_be_requeued<Db: TestDatabase>(
    world: World<Db>,
) {
    let shop = Shop::new(world);
    let receiver = Receiver::default();
    receiver.fail("down", ALWAYS);
    let ids = shop.ordered("a", "down last").await;
    let relay = shop.relay_with(quick().max_attempts(3), &receiver);
    shop.until_messages(2, 1).await;
    // The later one goes on without it.
    receiver.until_taken(1).await;
    let outbox = shop.engine.outbox();
    let dead = outbox.dead_letters(0, 10).await.expect("a list");
    let [letter] = &dead[..] else {
        panic!("{dead:?}");
    };
    assert_eq!(
        (letter.id.as_str(), &*letter.topic, letter.attempts),
        (&*ids[0], "down", 3)
    );
    assert_eq!(letter.error.as_deref(), Some("the receiver is away"));
    assert!(letter.died_at > letter.created_at);
    let behind = outbox
        .dead_letters(letter.number, 10)
        .await
        .expect("a list");
    assert!(behind.is_empty());
    assert_eq!(receiver.got().len(), 4);
    receiver.fail("down", 0);
    assert!(outbox.requeue(letter.number).await.expect("requeued"));
    receiver.until_taken(2).await;
    assert_eq!(receiver.got()[4].attempt, 1);
    shop.until_messages(1, 2).await;
    assert!(!outbox.requeue(letter.number).await.expect("not dead"));
    assert!(!outbox.discard(letter.number).await.expect("not dead"));
    let relayed = relay.stop(Duration::from_secs(5)).await;
    assert_eq!((relayed.delivered, relayed.failed, relayed.dead), (2, 2, 1));
}

/// The claim under which it died ends with the requeue: a repetition of its mark would bury the message again.
async fn the_mark_of_an_attempt_before_a_requeue_comes_too_late<Db: TestDatabase>(
    world: World<Db>,
) {
    let shop = Shop::new(world);
    shop.ordered("a", "mail").await;
    let outbox = shop.world.store_outbox();
    let token = Token::random();
    let claim = MessageClaim::new(token, Duration::from_secs(60), 10);
    let claimed = outbox.claim(&claim).await.expect("a claim");
    let number = claimed[0].number;
    let dead = Mark::new(number, token, MessageState::Dead, None);
    assert!(outbox.mark(&dead).await.expect("a mark"));
    assert!(outbox.mark(&dead).await.expect("the same once more"));
    assert!(outbox.requeue(number).await.expect("requeued"));
    for state in [
        MessageState::Dead,
        MessageState::Delivered(Duration::from_secs(60)),
        MessageState::Pending(Duration::from_secs(60)),
    ] {
        let late = Mark::new(number, token, state, None);
        assert!(!outbox.mark(&late).await.expect("a mark"), "{state:?}");
    }
    assert_eq!((shop.messages(0).await, shop.messages(2).await), (1, 0));
}

async fn a_message_that_nobody_can_read_is_dead_at_once<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    let receiver = Receiver::default();
    let relay = shop.relay(&receiver);
    shop.ordered("a", "poison").await;
    shop.until_messages(2, 1).await;
    assert_eq!(receiver.got().len(), 1);
    let outbox = shop.engine.outbox();
    let dead = outbox.dead_letters(0, 10).await.expect("a list");
    assert_eq!(dead[0].error.as_deref(), Some("nobody can read it"));
    assert!(outbox.discard(dead[0].number).await.expect("deleted"));
    assert_eq!(shop.messages(2).await, 0);
    relay.stop(Duration::from_secs(5)).await;
}

async fn a_delivery_that_panics_or_takes_too_long_is_tried_again<Db: TestDatabase>(
    world: World<Db>,
) {
    let shop = Shop::new(world);
    let receiver = Receiver::default();
    receiver.fail("panics", 1);
    let relay = shop.relay_with(quick().time_out(Duration::from_millis(100)), &receiver);
    shop.ordered("a", "panics gate").await;
    let again = |got: &[Got]| topics(got).ends_with(&["gate", "gate"]);
    receiver.until("a second attempt", again).await;
    receiver.open(1);
    shop.until_messages(1, 2).await;
    let got = receiver.got();
    assert!(topics(&got).starts_with(&["panics", "panics", "gate", "gate"]));
    relay.stop(Duration::from_secs(5)).await;
}

/// A message whose delivery ends its process each time is dead in the end.
async fn attempts_that_never_end_are_counted<Db: TestDatabase>(world: World<Db>) {
    let shop = Shop::new(world);
    shop.ordered("a", "mail").await;
    let outbox = shop.world.store_outbox();
    for attempt in 1..=3 {
        let claim = MessageClaim::new(Token::random(), Duration::ZERO, 5);
        let claimed = outbox.claim(&claim).await.expect("a claim");
        assert_eq!(claimed[0].attempt, attempt);
    }
    let receiver = Receiver::default();
    let relay = shop.relay_with(quick().max_attempts(3), &receiver);
    shop.until_messages(2, 1).await;
    assert_eq!(receiver.got(), []);
    let dead = shop
        .engine
        .outbox()
        .dead_letters(0, 10)
        .await
        .expect("a list");
    let error = dead[0].error.as_deref().expect("an error");
    assert!(
        error.contains("none of 3 attempts came to an end"),
        "{error}"
    );
    relay.stop(Duration::from_secs(5)).await;
}
