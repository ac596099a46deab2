//! The measurement that all stores share: clients, rounds and medians.

use std::{
    fmt::Write as _,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use idempotent_runtime::{
    Fingerprint, StoreKey,
    store::{Acquisition, Claim, Outcome, Store, Token, Write, conformance::response},
};

/// Connections of each side where rates are compared.
pub(crate) const CLIENTS: usize = 64;
pub(crate) const ROUNDS: usize = 5;
const BODY: [u8; 200] = [b'x'; 200];
/// Pairs in a round, and in a round with a single connection.
const PAIRS: u64 = 20_000;
const PAIRS_ALONE: u64 = 2_000;
/// The least ratio of pairs per second.
const LEAST_RATE: f64 = 0.8;
/// The largest ratio of times at p50.
const MOST_TIME: f64 = 1.2;

/// A server whose store is measured.
pub(crate) trait Server {
    type Store: Store + Clone;
    type Bare: Client;

    /// The store, with this many connections.
    async fn store(&self, connections: usize) -> Self::Store;
    /// Bare clients with one connection each.
    async fn bare(&self, clients: usize) -> Vec<Self::Bare>;
    /// Removes all records.
    async fn empty(&self);
    /// Pairs per second of a benchmark program that comes with the server, if there is one.
    fn program(&self, clients: usize) -> Option<f64>;
}

/// A client that sends pairs, one after another.
pub(crate) trait Client: Send + 'static {
    /// Acquires this claim and completes it.
    fn pair(&mut self, claim: &Claim) -> impl Future<Output = ()> + Send;
}

/// A client that uses the store.
#[derive(Clone, Debug)]
pub(crate) struct StoreClient<S> {
    store: S,
    outcome: Outcome,
}

/// The result of one round of one side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Pairs per second.
    pub(crate) rate: f64,
    /// The median time of one pair.
    pub(crate) p50: Duration,
}

/// The rounds of both sides.
#[derive(Debug, Default)]
pub(crate) struct Sides {
    ours: Vec<Round>,
    bare: Vec<Round>,
}

impl<S> StoreClient<S> {
    pub(crate) fn new(store: S) -> Self {
        let outcome = Outcome::Response(response(201, &[], &BODY));
        Self { store, outcome }
    }
}

impl<S: Store> Client for StoreClient<S> {
    async fn pair(&mut self, claim: &Claim) {
        let acquired = self.store.acquire(claim).await.expect("acquire");
        assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
        let completed = self.store.complete(&claim.held(), &self.outcome).await;
        assert_eq!(completed.expect("complete"), Write::Applied);
    }
}

/// Draws this many consecutive numbers that no other call in this process gets, and returns the first.
pub(crate) fn draw(count: u64) -> u64 {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    DRAWN.fetch_add(count, Ordering::Relaxed)
}

/// Sends this many pairs, as many at once as there are clients.
pub(crate) async fn drive<C: Client>(clients: Vec<C>, pairs: u64) -> Round {
    let first = draw(pairs);
    let (next, end) = (Arc::new(AtomicU64::new(first)), first + pairs);
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut client in clients {
        let next = Arc::clone(&next);
        tasks.spawn(async move {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return times;
                }
                let claim = claim(number);
                let sent = Instant::now();
                client.pair(&claim).await;
                times.push(sent.elapsed());
            }
        });
    }
    let mut times = tasks.join_all().await.concat();
    let rate = rate(pairs, started.elapsed());
    times.sort_unstable();
    Round {
        rate,
        p50: times[times.len() / 2],
    }
}

/// The statement in this file as the store sends it, without comments.
pub(crate) fn statement(file: &str, words: &[(&str, &str)]) -> String {
    let lines = file
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"));
    let lines: Vec<_> = lines.collect();
    let text = lines.join("\n").replace("{table}", "idempotency_records");
    words
        .iter()
        .fold(text, |text, (word, sql)| text.replace(word, sql))
}

/// A duration as the statements take it.
pub(crate) fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).expect("short")
}

/// The bytes of a response as long as the store's.
pub(crate) fn stored_response() -> Vec<u8> {
    response(201, &[], &BODY).as_bytes().to_vec()
}

/// A claim whose key is derived from this number.
pub(crate) fn claim(number: u64) -> Claim {
    // Spread over the index as digests are.
    let mut key = [7; 32];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let fingerprint = Fingerprint::from_bytes([1; 32]);
    let (lease, ttl) = (Duration::from_secs(30), Duration::from_secs(86_400));
    Claim::new(
        StoreKey::from_bytes(key),
        fingerprint,
        Token::random(),
        lease,
        ttl,
    )
}

pub(crate) fn rate(calls: u64, time: Duration) -> f64 {
    let calls = u32::try_from(calls).map_or(f64::MAX, f64::from);
    calls / time.as_secs_f64()
}

impl Sides {
    pub(crate) fn push(&mut self, ours: Round, bare: Round) {
        println!(
            "  store {:6.0} pairs/s, p50 {:6} us; bare {:6.0} pairs/s, p50 {:6} us",
            ours.rate,
            ours.p50.as_micros(),
            bare.rate,
            bare.p50.as_micros()
        );
        self.ours.push(ours);
        self.bare.push(bare);
    }

    /// Whether the store sends pairs fast enough.
    pub(crate) fn is_fast(&self) -> bool {
        self.ratio_of_rates() >= LEAST_RATE
    }

    pub(crate) fn ratio_of_rates(&self) -> f64 {
        let ratio = median(rates(&self.ours)) / median(rates(&self.bare));
        println!("ratio per second {ratio:.2}");
        ratio
    }

    /// Whether a pair of the store takes little longer.
    fn is_prompt(&self) -> bool {
        let ratio = median(times(&self.ours)) / median(times(&self.bare));
        println!("ratio of times at p50 {ratio:.2}");
        ratio <= MOST_TIME
    }
}

fn rates(rounds: &[Round]) -> Vec<f64> {
    rounds.iter().map(|round| round.rate).collect()
}

fn times(rounds: &[Round]) -> Vec<f64> {
    rounds.iter().map(|round| round.p50.as_secs_f64()).collect()
}

/// Measures at many connections and at one, and says whether the store is fast enough at both.
pub(crate) async fn compare(server: &impl Server) -> bool {
    let store = server.store(CLIENTS).await;
    let mut enough = true;
    for (clients, pairs) in [(CLIENTS, PAIRS), (1, PAIRS_ALONE)] {
        println!("{clients} connections");
        let (mut sides, mut programs) = (Sides::default(), Vec::new());
        for _ in 0..ROUNDS {
            server.empty().await;
            let bare = drive(server.bare(clients).await, pairs).await;
            server.empty().await;
            let ours = drive(vec![StoreClient::new(store.clone()); clients], pairs).await;
            sides.push(ours, bare);
            server.empty().await;
            programs.extend(server.program(clients));
        }
        if !programs.is_empty() {
            let (ours, program) = (median(rates(&sides.ours)), median(programs));
            println!(
                "the server's own benchmark program {program:6.0} pairs/s, ratio {:.2}",
                ours / program
            );
        }
        enough &= if clients == 1 {
            sides.is_prompt()
        } else {
            sides.is_fast()
        };
    }
    enough
}

/// The hexadecimal digits of these bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("writing to a string");
        digits
    })
}

pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
