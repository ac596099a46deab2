//! Clients: each asks for a payment until somebody answers, whatever happens to whoever it asks.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::random::Random;

/// An answer that ends the asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 201 and its body: the payment was made.
    Paid(String),
    /// The execution crashed: nobody knows, and nobody executes again.
    Unknown,
    /// Anything else, which there should not be.
    Strange(String),
    /// None came in time.
    None,
}

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client goes on asking.
const PERSEVERANCE: Duration = Duration::from_secs(60);

/// Asks for the payment of this key, one node after the other, until there is an answer.
pub(crate) fn pay(ports: &[u16], key: &str, amount: u64, random: &mut Random) -> Answer {
    let until = Instant::now() + PERSEVERANCE;
    while Instant::now() < until {
        let port = ports[random.place(ports.len())];
        let delay = random.between(0, 20);
        if let Ok(Some(answer)) = ask(port, key, amount, delay) {
            return answer;
        }
        std::thread::sleep(random.millis(2, 20));
    }
    Answer::None
}

/// One request. Nothing, or an error: ask again.
fn ask(port: u16, key: &str, amount: u64, delay: u64) -> io::Result<Option<Answer>> {
    let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let body = format!("{{\"amount\":{amount}}}");
    let length = body.len();
    let request = format!(
        "POST /api/payments HTTP/1.1\r\nhost: demo\r\nconnection: close\r\ncontent-type: application/json\r\n\
         idempotency-key: {key}\r\nx-delay-ms: {delay}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(understand(&response))
}

/// Nothing for half a response, and for those that ask for the same request again.
fn understand(response: &str) -> Option<Answer> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?;
    if length.parse() != Ok(body.len()) {
        return None;
    }
    let status = head.split(' ').nth(1)?;
    match status {
        "201" => Some(Answer::Paid(body.to_owned())),
        "409" if body.contains("\"outcome_unknown\"") => Some(Answer::Unknown),
        "409" if body.contains("\"conflict\"") => None,
        "503" => None,
        _ => Some(Answer::Strange(response.to_owned())),
    }
}
