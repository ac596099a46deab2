//! A proxy in the process, between its store and the database's server, so that the process ends with a message on its way.

use std::{
    error::Error,
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::{fate::Fate, points::Point};

/// What only an outcome contains.
pub(crate) const OUTCOME: &str = "receipt of attempt";

const COMMIT: &str = "COMMIT";

/// The words of a message, the point when it was sent, and the point when the server has answered it.
const MESSAGES: [(&str, Point, Point); 2] = [
    (OUTCOME, Point::CompletionLost, Point::CompletionDone),
    (COMMIT, Point::CommitLost, Point::CommitDone),
];

/// Whether the request has come: what was sent before is none of its messages.
static ARMED: AtomicBool = AtomicBool::new(false);

pub(crate) fn arm() {
    ARMED.store(true, Ordering::SeqCst);
}

/// The URL of a proxy before this database; a file has none.
pub(crate) fn behind_a_proxy(url: &str) -> Result<String, Box<dyn Error>> {
    let Some((before, after)) = url.split_once("@127.0.0.1:") else {
        return Ok(url.to_owned());
    };
    let (server, rest) = after.split_once('/').ok_or("a URL with a path")?;
    let server: u16 = server.parse()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if let Err(error) = pass(client, server) {
                eprintln!("a connection of the proxy: {error}");
            }
        }
    });
    Ok(format!("{before}@127.0.0.1:{port}/{rest}"))
}

fn pass(client: TcpStream, server: u16) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (requests, replies) = (client.try_clone()?, server.try_clone()?);
    let awaited = Arc::new(AtomicBool::new(false));
    let awaits = Arc::clone(&awaited);
    thread::spawn(move || {
        let _closed = copy(requests, server, |message| {
            for (words, sent, done) in MESSAGES {
                if ARMED.load(Ordering::SeqCst) && contains(message, words) {
                    Fate::meet(sent);
                    awaits.store(Fate::is(done), Ordering::SeqCst);
                }
            }
        });
    });
    thread::spawn(move || {
        let _closed = copy(replies, client, |_| {
            if awaited.swap(false, Ordering::SeqCst) {
                Fate::meet(Point::CompletionDone);
                Fate::meet(Point::CommitDone);
            }
        });
    });
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream, seen: impl Fn(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        seen(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    from.shutdown(Shutdown::Both)?;
    to.shutdown(Shutdown::Both)
}

fn contains(message: &[u8], words: &str) -> bool {
    message
        .windows(words.len())
        .any(|part| part == words.as_bytes())
}
