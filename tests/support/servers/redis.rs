//! A private Redis.

use std::{
    io::{self, BufRead, BufReader, Read as _, Write as _},
    net::TcpStream,
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
    // Before the folder, so that it is gone when that is removed.
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
            let answer = self.try_ask(&["PING"])?;
            // A server that asks for a password is ready; one that still loads its data is not.
            (answer.starts_with("+PONG") || answer.starts_with("-NOAUTH")).then_some(())
        });
    }

    /// Sends a command over a connection of its own and returns the raw reply.
    pub(crate) fn ask(&self, command: &[&str]) -> String {
        self.try_ask(command).expect("a reply of Redis")
    }

    fn try_ask(&self, command: &[&str]) -> Option<String> {
        let parts: Vec<_> = command.iter().map(|part| part.as_bytes()).collect();
        let reply = ask(self.port, &parts)?;
        Some(String::from_utf8_lossy(&reply).into_owned())
    }

    /// As [`ask`](Self::ask), with bytes of any kind.
    pub(crate) fn ask_bytes(&self, command: &[&[u8]]) -> Vec<u8> {
        ask(self.port, command).expect("a reply of Redis")
    }

    /// As [`ask`](Self::ask), for a reply of many lines.
    pub(crate) fn ask_all(&self, command: &[&str]) -> String {
        ask_inline(self.port, &command.join(" "))
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

/// Sends one inline command and returns the complete raw reply.
pub(crate) fn ask_inline(port: u16, command: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("Redis");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a time-out");
    stream
        .write_all(format!("{command}\r\n").as_bytes())
        .expect("Redis listens");
    let mut reply = Vec::new();
    read_reply(&mut BufReader::new(stream), &mut reply).expect("a complete reply");
    String::from_utf8_lossy(&reply).into_owned()
}

/// Reads one reply with all its elements and appends its bytes.
fn read_reply(reader: &mut impl BufRead, reply: &mut Vec<u8>) -> io::Result<()> {
    let start = reply.len();
    reader.read_until(b'\n', reply)?;
    let [kind, number @ ..] = reply[start..].trim_ascii_end() else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let number = std::str::from_utf8(number).ok();
    // Negative for null, which has neither bytes nor elements.
    let number = number.and_then(|number| number.parse::<usize>().ok());
    match (kind, number) {
        (b'$', Some(length)) => {
            let bytes = reply.len();
            reply.resize(bytes + length + 2, 0);
            reader.read_exact(&mut reply[bytes..])
        }
        (b'*', Some(elements)) => (0..elements).try_for_each(|_| read_reply(reader, reply)),
        _ => Ok(()),
    }
}

/// Sends one command and returns its reply: a line, or a length and its bytes.
fn ask(port: u16, command: &[&[u8]]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let mut request = format!("*{}\r\n", command.len()).into_bytes();
    for part in command {
        request.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        request.extend_from_slice(part);
        request.extend_from_slice(b"\r\n");
    }
    stream.write_all(&request).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    let text = String::from_utf8_lossy(&line);
    let length = text
        .strip_prefix('$')
        .and_then(|length| length.trim().parse().ok());
    if let Some(length) = length {
        let mut bytes = vec![0; length];
        reader.read_exact(&mut bytes).ok()?;
        return Some(bytes);
    }
    (!line.is_empty()).then_some(line)
}
