//! A private Redis.

use std::{
    io::{self, BufRead, BufReader, Write as _},
    net::TcpStream,
    ops::Range,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use super::{Folder, Process, free_port, server, until};

/// A private Redis server without snapshots. Its settings decide about the append-only file.
#[derive(Debug)]
pub(crate) struct Redis {
    program: PathBuf,
    settings: Vec<String>,
    port: u16,
    // Before the folder: fields are dropped in order, and the process must have ended before its folder is removed.
    process: Option<Process>,
    folder: Folder,
}

/// The settings with which a server flushes every write before it acknowledges it.
pub(crate) const FLUSHING: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

impl Redis {
    /// A server with an append-only file that is flushed once a second; nothing if Redis is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::with(&["--appendonly", "yes"])
    }

    /// A server that may be killed: it flushes every write before it acknowledges it.
    ///
    /// Without that, acknowledged writes stay in the server's memory while a flush is running, up to two seconds on a
    /// slow disk, and a SIGKILL loses them.
    pub(crate) fn flushing() -> Option<Self> {
        Self::with(&FLUSHING)
    }

    /// A server with these settings in addition to the port and the folder.
    pub(crate) fn with(settings: &[&str]) -> Option<Self> {
        let mut redis = Self::new(settings)?;
        redis.restart();
        Some(redis)
    }

    /// A server with these settings on this port, which another one had before.
    pub(crate) fn at(port: u16, settings: &[&str]) -> Option<Self> {
        let mut redis = Self {
            port,
            ..Self::new(settings)?
        };
        redis.restart();
        Some(redis)
    }

    /// The server that all tests of this process share; each test uses a prefix of its own.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Redis>> = OnceLock::new();
        // Checked each time, so that each skipped test is reported.
        server("redis-server")?;
        SHARED.get_or_init(Self::start).as_ref()
    }

    fn new(settings: &[&str]) -> Option<Self> {
        Some(Self {
            program: server("redis-server")?,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            port: free_port(),
            process: None,
            folder: Folder::new("redis"),
        })
    }

    /// The address, as a URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The folder with all its files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it on its port and folder, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let port = self.port.to_string();
        let common = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--daemonize",
            "no",
        ];
        let settings = self.settings.iter().map(String::as_str);
        let arguments = common.into_iter().chain(settings);
        self.process = Some(Process::start(&self.program, arguments, self.folder.path()));
        until("Redis", || {
            let answer = try_ask(self.port, &[b"PING"])?;
            // A server that asks for a password is ready; one that still loads its data is not.
            (answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH")).then_some(())
        });
    }

    /// A replica of this server, in sync with it.
    pub(crate) fn replica(&self) -> Option<Self> {
        let port = self.port.to_string();
        let replica = Self::with(&["--appendonly", "yes", "--replicaof", "127.0.0.1", &port])?;
        replica.wait_for_sync();
        Some(replica)
    }

    /// Waits until this replica is in sync with its primary.
    pub(crate) fn wait_for_sync(&self) {
        until("the replica", || {
            let info = self.ask(&["INFO", "replication"]);
            info.contains("master_link_status:up").then_some(())
        });
    }

    /// Waits until this replica has every write that its primary has accepted so far: a primary answers before that.
    pub(crate) fn wait_for_writes_of(&self, primary: &Self) {
        let offset = |node: &Self, name: &str| {
            let info = node.ask(&["INFO", "replication"]);
            let mut lines = info.lines();
            let offset = lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
            offset.unwrap_or_else(|| panic!("no {name} in {info}"))
        };
        let written = offset(primary, "master_repl_offset:");
        until("the replica to have the writes", || {
            (offset(self, "slave_repl_offset:") >= written).then_some(())
        });
    }

    /// Sends a command over a connection of its own and returns the reply: the content of a string, and any other reply
    /// as it was sent.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        ask(self.port, command)
    }

    /// As [`ask`](Self::ask), with bytes of any kind.
    pub(crate) fn ask_bytes(&self, command: &[&[u8]]) -> Vec<u8> {
        try_ask(self.port, command).expect("a reply of Redis")
    }

    /// How often the server ran this command. A script counts as one `evalsha`, besides the commands that it runs.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let stats = self.ask(&["INFO", "commandstats"]);
        let line = format!("cmdstat_{command}:calls=");
        let calls = stats.lines().find_map(|stat| stat.strip_prefix(&line));
        calls.map_or(0, |calls| {
            calls
                .split(',')
                .next()
                .expect("a number")
                .parse()
                .expect("a number")
        })
    }
}

/// As [`Redis::ask`], for the server or the sentinel on this port.
pub(crate) fn ask(port: u16, command: &[&str]) -> String {
    let parts: Vec<_> = command.iter().map(|part| part.as_bytes()).collect();
    let reply = try_ask(port, &parts).expect("a reply of Redis");
    String::from_utf8_lossy(&reply).into_owned()
}

fn try_ask(port: u16, command: &[&[u8]]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .ok()?;
    let mut request = format!("*{}\r\n", command.len()).into_bytes();
    for part in command {
        request.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        request.extend_from_slice(part);
        request.extend_from_slice(b"\r\n");
    }
    stream.write_all(&request).ok()?;
    let mut reply = Vec::new();
    let string = read_reply(&mut BufReader::new(stream), &mut reply).ok()?;
    Some(string.map_or_else(|| reply.clone(), |string| reply[string].to_vec()))
}

/// Appends one reply as it is sent; if it is a string, returns where its content is.
fn read_reply(reader: &mut impl BufRead, reply: &mut Vec<u8>) -> io::Result<Option<Range<usize>>> {
    let begin = reply.len();
    if reader.read_until(b'\n', reply)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = String::from_utf8_lossy(&reply[begin..]).into_owned();
    let (kind, count) = line.split_at(1);
    // Minus one stands for a string or an array that is missing.
    let count = count.trim_end().parse::<usize>();
    match (kind, count) {
        ("$", Ok(length)) => {
            let content = reply.len();
            reply.resize(content + length + "\r\n".len(), 0);
            reader.read_exact(&mut reply[content..])?;
            Ok(Some(content..content + length))
        }
        ("*", Ok(elements)) => {
            for _ in 0..elements {
                read_reply(reader, reply)?;
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}
