//! Clients: each retries a request until it gets an answer, whatever happens to the processes.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{app::App, random::Random};

/// How a client's retries ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The body of a 201: it was executed.
    Done(String),
    /// The body of a refusal that is an outcome: nothing was done, and nothing will be.
    Refused(String),
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

/// What a client does: it sends to one random process after another until there is an answer.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    pub(crate) app: App,
    pub(crate) ports: &'a [u16],
    /// Whether it loses some replies: it sends a request, and goes before the answer.
    pub(crate) loses: bool,
}

impl Client<'_> {
    pub(crate) fn ask(&self, name: &str, key: u64, random: &mut Random) -> Answer {
        let until = Instant::now() + RETRY_BUDGET;
        while Instant::now() < until {
            let port = self.ports[random.index(self.ports.len())];
            let delay = random.between(0, 20);
            let leaves = self.loses && random.between(1, 16) == 1;
            if let Ok(Some(answer)) = self.send(port, name, key, delay, leaves) {
                return answer;
            }
            std::thread::sleep(random.millis(2, 20));
        }
        Answer::None
    }

    /// Sends one request. On an error or without an answer it is to be sent again.
    fn send(
        &self,
        port: u16,
        name: &str,
        key: u64,
        delay: u64,
        leaves: bool,
    ) -> io::Result<Option<Answer>> {
        let address = ([127, 0, 0, 1], port).into();
        let mut stream = TcpStream::connect_timeout(&address, REQUEST_TIMEOUT)?;
        stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
        stream.set_nodelay(true)?;
        let (path, body) = (self.app.path(), self.app.body(key));
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: demo\r\nconnection: close\r\ncontent-type: application/json\r\n\
             idempotency-key: {name}\r\nx-delay-ms: {delay}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        if leaves {
            return Ok(None);
        }
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(parse(&response).and_then(|(status, body)| self.app.answer(status, body)))
    }
}

/// Status and body of a response; nothing if it is not complete.
fn parse(response: &str) -> Option<(&str, &str)> {
    let (head, body) = response.split_once("\r\n\r\n")?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?;
    if length.parse() != Ok(body.len()) {
        return None;
    }
    Some((head.split(' ').nth(1)?, body))
}
