//! A message consumer that gets every message twice, and handles each once.
//!
//! ```text
//! cargo run -p idempotent-examples --example consumer
//! IDEMPOTENT_STORE=sqlite:///tmp/consumer.db cargo run -p idempotent-examples --example consumer
//! ```
//!
//! Queues deliver at least once: a message comes again when its acknowledgement was lost, or when its consumer died. Here a
//! queue in the process delivers each message twice, to two consumers at the same time, and again what was not acknowledged.
//! The second run with a durable store executes nothing: its records outlive the process.

use std::{
    env,
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use idempotent_runtime::{Idempotency, NotDone, OnceError, store};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Payout {
    account: String,
    cents: u32,
}

/// A message, with the id that its producer gave it: the same in each delivery.
#[derive(Clone)]
struct Message {
    id: String,
    payout: Payout,
}

/// Why a payout failed for good.
#[derive(Debug, Serialize, Deserialize)]
enum Refused {
    AccountClosed,
}

/// A bank that is closed for the first payout that it is asked for.
#[derive(Default)]
struct Bank {
    asked: AtomicU32,
    paid: Mutex<Vec<String>>,
}

impl Bank {
    fn pay(&self, payout: &Payout) -> Result<u32, NotDone<Refused>> {
        if self.asked.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(NotDone::Nothing("the bank is closed".into()));
        }
        if payout.account == "closed" {
            return Err(NotDone::Failed(Refused::AccountClosed));
        }
        let mut paid = self.paid.lock().expect("nothing panics while it is held");
        paid.push(payout.account.clone());
        Ok(payout.cents)
    }
}

/// Handles one delivery. Whether it may be acknowledged.
async fn handle(idempotency: &Idempotency, bank: &Arc<Bank>, message: Message) -> bool {
    let (bank, payout) = (Arc::clone(bank), message.payout.clone());
    let paid = idempotency
        .once("payouts", &message.id)
        .fingerprint(&message.payout)
        .run(async move |_| bank.pay(&payout))
        .await;
    match paid {
        Ok(cents) => println!("{}: {cents} cents", message.id),
        Err(OnceError::Failed(refused)) => println!("{}: {refused:?}", message.id),
        Err(error) if error.is_retryable() => {
            println!("{}: later ({error})", message.id);
            return false;
        }
        Err(error) => println!("{}: for a person to look at ({error})", message.id),
    }
    true
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let url = env::var("IDEMPOTENT_STORE").unwrap_or_else(|_| "memory:".to_owned());
    let store = store::connect(&url).await?;
    let idempotency = Idempotency::builder().store(store).build()?;
    let bank = Arc::new(Bank::default());

    let (queue, mut deliveries) = mpsc::unbounded_channel();
    let accounts = ["ada", "ben", "closed"];
    for (n, account) in accounts.into_iter().enumerate() {
        let payout = Payout {
            account: account.to_owned(),
            cents: 100,
        };
        queue.send(Message {
            id: format!("message-{n}"),
            payout,
        })?;
    }
    let mut open = accounts.len();
    while open > 0
        && let Some(message) = deliveries.recv().await
    {
        let twice = [message.clone(), message.clone()];
        let handled = twice.map(|delivery| handle(&idempotency, &bank, delivery));
        let [one, other] = handled;
        let (one, other) = tokio::join!(one, other);
        if one || other {
            open -= 1;
        } else {
            queue.send(message)?;
        }
    }
    let paid = bank.paid.lock().expect("nothing panics while it is held");
    println!(
        "{} messages, {} payouts: {paid:?}",
        accounts.len(),
        paid.len()
    );
    Ok(())
}
