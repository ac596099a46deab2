//! What push costs a Redis server: completions per second with 0, 100 and 300 processes that listen, compared with
//! completions that publish nothing. redis-benchmark runs the store's own script, so that the server is what limits both.
//!
//! Each process listens as one does in which a request waits: on a connection of its own, for the record of another key.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    driver::{ROUNDS, median},
    redis::completions,
    servers::{redis::Redis, server},
};

const LISTENERS: [usize; 3] = [0, 100, 300];
/// The least ratio of completions per second.
const LEAST: f64 = 0.8;

/// Whether push is cheap enough for every number of processes; nothing if that cannot be measured here.
pub(crate) async fn measure() -> Option<bool> {
    let redis = Redis::start()?;
    server("redis-benchmark")?;
    let mut listening = Vec::new();
    let mut cheap = true;
    for listeners in LISTENERS {
        while listening.len() < listeners {
            listening.push(listen(&redis, listening.len()).await);
        }
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            without.push(completions(&redis, ""));
            with.push(completions(&redis, "SPUBLISH"));
        }
        let (with, without) = (median(with), median(without));
        let ratio = with / without;
        println!(
            "{listeners:3} processes listen: {with:6.0} completions/s with push, {without:6.0} without; ratio {ratio:.2}"
        );
        cheap &= ratio >= LEAST;
    }
    Some(cheap)
}

/// Listens for the record of one key, until it is dropped.
async fn listen(redis: &Redis, number: usize) -> TcpStream {
    let connected = TcpStream::connect(("127.0.0.1", redis.port())).await;
    let mut stream = connected.expect("a connection");
    let record = format!("idempotent:{number:064x}");
    let subscribe = format!("SSUBSCRIBE idempotent:done:{{{record}}}\r\n");
    let sent = stream.write_all(subscribe.as_bytes()).await;
    sent.expect("a command");
    let mut reply = [0; 256];
    let length = stream.read(&mut reply).await.expect("a reply");
    assert!(reply[..length].starts_with(b"*3"), "not subscribed");
    stream
}
