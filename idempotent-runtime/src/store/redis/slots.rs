//! Where the slots of a Cluster are: what `CLUSTER SLOTS` says, and which slot a key has.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, Value};

/// Slots of a Cluster.
pub(super) const SLOTS: u16 = 16384;

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    host: String,
    port: u16,
}

impl Place {
    pub(super) fn of(address: &ConnectionAddr) -> Option<Self> {
        match address {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(Self {
                    host: host.clone(),
                    port: *port,
                })
            }
            _ => None,
        }
    }

    /// As this node tells it: an empty host is the node's own, and `?` nobody knows.
    pub(super) fn told(host: &str, port: u16, by: &Self) -> Option<Self> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = match host {
            "?" => return None,
            "" | "0.0.0.0" | "::" => &by.host,
            host => host,
        };
        Some(Self {
            host: host.to_owned(),
            port,
        })
    }

    /// The address, with TLS or without it as the given one.
    pub(super) fn like(&self, other: &ConnectionInfo) -> ConnectionAddr {
        let (host, port) = (self.host.clone(), self.port);
        match other.addr() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// First and last slot and primary of each range in the answer to `CLUSTER SLOTS`. What cannot be read is left out:
/// its slots belong to nobody until somebody else is asked.
pub(super) fn parse(answer: Value, by: &Place) -> Vec<(u16, u16, Place)> {
    let Value::Array(ranges) = answer else {
        return Vec::new();
    };
    let range = |range| {
        let Value::Array(range) = range else {
            return None;
        };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(primary),
            ..,
        ] = &range[..]
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = &primary[..] else {
            return None;
        };
        let host = match host {
            Value::BulkString(host) => std::str::from_utf8(host).ok()?,
            Value::SimpleString(host) => host,
            Value::Nil => "",
            _ => return None,
        };
        let place = Place::told(host, u16::try_from(*port).ok()?, by)?;
        Some((
            u16::try_from(*first).ok()?,
            u16::try_from(*last).ok()?,
            place,
        ))
    };
    ranges.into_iter().filter_map(range).collect()
}

/// The slot of a key without braces: CRC-16/XMODEM, as the Cluster's specification says.
pub(super) fn slot(key: &[u8]) -> u16 {
    let crc = key.iter().fold(0_u16, |crc, byte| {
        let shift = |crc: u16, _| (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 };
        (0..8).fold(crc ^ (u16::from(*byte) << 8), shift)
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str, port: u16) -> Place {
        Place {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b""), 0);
    }

    #[test]
    fn ranges_are_read_and_what_is_none_is_left_out() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let range = |first, last, node| {
            let replica = Value::Array(vec![text("other"), Value::Int(9)]);
            Value::Array(vec![Value::Int(first), Value::Int(last), node, replica])
        };
        let answer = Value::Array(vec![
            range(0, 9, node(text("a"), 1)),
            range(10, 19, node(text(""), 2)),
            range(20, 29, node(Value::Nil, 3)),
            range(30, 39, node(text("?"), 4)),
            range(40, 70_000, node(text("a"), 5)),
            range(40, 49, node(text("a"), -1)),
            range(50, 59, node(text("\u{fffd}"), 6)),
            Value::Nil,
        ]);
        let by = place("asked", 7);
        assert_eq!(
            parse(answer, &by),
            [
                (0, 9, place("a", 1)),
                (10, 19, place("asked", 2)),
                (20, 29, place("asked", 3)),
                (50, 59, place("\u{fffd}", 6)),
            ]
        );
        assert_eq!(parse(Value::Okay, &by), []);
    }
}
