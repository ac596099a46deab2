//! The service's processes, and what clients hear of them.

use std::{
    ffi::OsString,
    fmt, fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    thread::sleep,
    time::Duration,
};

use crate::{
    database::Database,
    points::Point,
    servers::{Folder, Process, free_port, until},
};

/// What its processes have in common.
pub(crate) struct Service<'a> {
    database: &'a Database,
    guarantee: &'static str,
    case: &'a str,
    folder: Folder,
}

/// A process of the service.
pub(crate) struct Running {
    process: Process,
    pub(crate) port: u16,
    case: String,
}

/// What a client hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Nothing,
    Done {
        attempt: u64,
        replayed: bool,
    },
    /// It is unknown what happened.
    Unknown,
    /// To be sent again.
    Later(String),
}

impl<'a> Service<'a> {
    pub(crate) fn new(database: &'a Database, guarantee: &'static str, case: &'a str) -> Self {
        Self {
            database,
            guarantee,
            case,
            folder: Folder::new("service"),
        }
    }

    /// Lets a process go on that has stopped.
    pub(crate) fn go_on(&self, stopped: &Running) {
        fs::write(self.folder.path().join("go-on"), "").expect("a file");
        stopped.process.signal("-CONT");
    }

    /// Starts a process, with what it does where.
    pub(crate) fn start(&self, fate: Option<(Point, &str)>) -> Running {
        let port = free_port();
        let (point, action) = fate.map_or(("", ""), |(point, action)| (point.name(), action));
        let set = |name: &str, value: &str| OsString::from(format!("{name}={value}"));
        let arguments = [
            set("PORT", &port.to_string()),
            set("DATABASE_URL", &self.database.url),
            set("GUARANTEE", self.guarantee),
            set("CASE", self.case),
            set("POINT", point),
            set("ACTION", action),
            env!("CARGO_BIN_EXE_failpoints-app").into(),
        ];
        let process = Process::start(Path::new("env"), arguments, self.folder.path());
        until("the service", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Running {
            process,
            port,
            case: self.case.into(),
        }
    }
}

impl Running {
    pub(crate) fn send(&self) -> Answer {
        send(self.port, &self.case)
    }

    /// Sends the request until there is an answer that is final.
    pub(crate) fn send_until_final(&self, unknown_is_decided: bool) -> Answer {
        until("an answer that is final", || match self.send() {
            Answer::Nothing | Answer::Later(_) => {
                sleep(Duration::from_millis(20));
                None
            }
            Answer::Unknown if unknown_is_decided => None,
            answer => Some(answer),
        })
    }

    pub(crate) fn end(&mut self) {
        self.process.kill();
    }
}

/// Sends the request of this case.
pub(crate) fn send(port: u16, case: &str) -> Answer {
    exchange(port, case).map_or(Answer::Nothing, |response| Answer::parse(&response))
}

fn exchange(port: u16, case: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let request = format!(
        "POST /{case} HTTP/1.1\r\nhost: service\r\nconnection: close\r\nidempotency-key: {case}\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

impl Answer {
    fn parse(response: &str) -> Self {
        let status = response.split(' ').nth(1);
        match status {
            None => Self::Nothing,
            Some("201") => {
                let attempt = response.rsplit(' ').next().and_then(|n| n.parse().ok());
                Self::Done {
                    attempt: attempt.unwrap_or_default(),
                    replayed: response.contains("idempotent-replay: true"),
                }
            }
            Some("409") if response.contains("\"outcome_unknown\"") => Self::Unknown,
            Some(_) => Self::Later(response.to_owned()),
        }
    }

    /// Whether this is the same answer, first-hand or not.
    pub(crate) fn is_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Done { attempt, .. }, Self::Done { attempt: same, .. }) => attempt == same,
            (one, other) => one == other,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no answer"),
            Self::Done { .. } => f.write_str("201"),
            Self::Unknown => f.write_str("`outcome_unknown`"),
            Self::Later(response) => f.write_str(response),
        }
    }
}
