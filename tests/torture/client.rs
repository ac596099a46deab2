//! Clients: each retries a payment until it gets an answer, whatever happens to the processes.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::random::Random;

/// How a client's retries ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 201 and its body: the payment was made.
    Paid(String),
    /// `outcome_unknown`: the execution crashed, and the key does not execute again.
    Unknown,
    /// Anything else: a failure of the run.
    Unexpected(String),
    /// No answer within the retry budget.
    None,
}

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client retries.
const RETRY_BUDGET: Duration = Duration::from_secs(60);

/// Sends the payment of this key to one random process after another until there is an answer.
pub(crate) fn pay(ports: &[u16], key: &str, amount: u64, random: &mut Random) -> Answer {
    let until = Instant::now() + RETRY_BUDGET;
    while Instant::now() < until {
        let port = ports[random.index(ports.len())];
        let delay = random.between(0, 20);
        if let Ok(Some(answer)) = send(port, key, amount, delay) {
            return answer;
        }
        std::thread::sleep(random.millis(2, 20));
    }
    Answer::None
}

/// Sends one request. On an error or without an answer it is to be sent again.
fn send(port: u16, key: &str, amount: u64, delay: u64) -> io::Result<Option<Answer>> {
    let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), REQUEST_TIMEOUT)?;
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
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
    Ok(parse(&response))
}

/// The answer in a response; none in an incomplete response, or in one that asks for the same request again.
fn parse(response: &str) -> Option<Answer> {
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
        _ => Some(Answer::Unexpected(response.to_owned())),
    }
}
