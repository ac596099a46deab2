//! The answer to `CLUSTER SLOTS`: which nodes a Cluster has, and which slots have no known primary.

use std::{
    collections::HashSet,
    fmt::{self, Write as _},
};

use redis::{ConnectionAddr, ConnectionInfo, Value, cluster::NodeAddress};

/// The number of slots in a Cluster.
pub(super) const SLOTS: u16 = 16384;

/// A node's view of the Cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    /// The first and last slot of each range, in order, and its primary.
    ranges: Vec<(u16, u16, NodeAddress)>,
    replicas: HashSet<NodeAddress>,
    /// The ids of the nodes, which stay the same when addresses change.
    pub(super) ids: HashSet<String>,
}

impl View {
    /// Reads the answer. Rows that cannot be read are skipped, and their slots are a gap. `by` is the host of the node
    /// that answered, for nodes that do not know their own address.
    pub(super) fn read(answer: Value, by: Option<&str>) -> Self {
        let mut view = Self::default();
        for row in list(answer) {
            let row = list(row);
            let (first, last) = (number(row.first()), number(row.get(1)));
            let nodes = row.into_iter().skip(2).map(list);
            let mut addresses = nodes.map(|node| {
                let id = node.get(2).and_then(text);
                view.ids.extend(id.map(str::to_owned));
                address(&node, by)
            });
            let primary = addresses.next().flatten();
            view.replicas.extend(addresses.flatten());
            if let (Some(first), Some(last), Some(primary)) = (first, last, primary) {
                view.ranges.push((first, last, primary));
            }
        }
        view.ranges.sort_by_key(|(first, ..)| *first);
        view
    }

    /// The primaries, each once.
    pub(super) fn primaries(&self) -> HashSet<&NodeAddress> {
        self.ranges.iter().map(|(.., primary)| primary).collect()
    }

    /// The primary that has this record.
    pub(super) fn owner(&self, record: &[u8]) -> Option<&NodeAddress> {
        let slot = slot(record);
        let range = self
            .ranges
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&slot));
        range.map(|(.., primary)| primary)
    }

    /// All nodes.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &NodeAddress> {
        self.primaries().into_iter().chain(&self.replicas)
    }

    /// The slots without a primary, or whose primary could not be read.
    pub(super) fn gaps(&self) -> Gaps {
        let (mut gaps, mut next) = (Vec::new(), 0);
        for (first, last, _) in &self.ranges {
            if *first > next {
                gaps.push((next, first - 1));
            }
            next = next.max(last.saturating_add(1));
        }
        if next < SLOTS {
            gaps.push((next, SLOTS - 1));
        }
        Gaps(gaps)
    }

    /// Whether this is a view of the same Cluster as the other one: another Cluster has none of its nodes. True if the
    /// nodes of one are unknown.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        let unknown = other.ids.is_empty() || self.ids.is_empty();
        unknown || !self.ids.is_disjoint(&other.ids)
    }
}

/// The slots without a known owner, as the first and last of each run.
#[derive(Debug, PartialEq)]
pub(super) struct Gaps(Vec<(u16, u16)>);

impl Gaps {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many slots.
    pub(super) fn count(&self) -> u16 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{first}")?;
            if last > first {
                f.write_char('-')?;
                write!(f, "{last}")?;
            }
        }
        Ok(())
    }
}

/// What a node says of itself: which slots it has. It alone knows whether one of them is being moved.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Own {
    /// The first and last slot of each range, in order.
    pub(super) slots: Vec<(u16, u16)>,
    /// Whether a slot is being moved to it or from it.
    pub(super) moving: bool,
}

impl Own {
    /// Reads the answer to `CLUSTER NODES`.
    pub(super) fn read(nodes: &str) -> Self {
        let mut own = Self::default();
        let line = nodes.lines().find(|line| {
            let flags = line.split(' ').nth(2).unwrap_or_default();
            flags.split(',').any(|flag| flag == "myself")
        });
        for word in line.unwrap_or_default().split(' ').skip(8) {
            if word.starts_with('[') {
                own.moving = true;
                continue;
            }
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            if let (Ok(first), Ok(last)) = (first.parse(), last.parse()) {
                own.slots.push((first, last));
            }
        }
        own.slots.sort_unstable();
        own
    }

    /// Of a single server.
    pub(super) fn all() -> Self {
        Self {
            slots: vec![(0, SLOTS - 1)],
            moving: false,
        }
    }

    pub(super) fn first(&self) -> Option<u16> {
        self.slots.first().map(|(first, _)| *first)
    }

    /// Whether each slot is that of one of these nodes, and of no other.
    pub(super) fn cover<'a>(nodes: impl Iterator<Item = &'a Self>) -> bool {
        let mut slots: Vec<_> = nodes.flat_map(|node| &node.slots).collect();
        slots.sort_unstable();
        let mut next = 0;
        slots.iter().all(|(first, last)| {
            let follows = *first == next;
            next = last.saturating_add(1);
            follows
        }) && next == SLOTS
    }
}

/// The slot of a name without braces: its CRC16 (XMODEM). The client computes it too, and does not tell it.
fn slot(name: &[u8]) -> u16 {
    let shifted = |crc: u16, _| crc << 1 ^ if crc >> 15 == 1 { 0x1021 } else { 0 };
    let next = |crc, byte: &u8| (0..8).fold(crc ^ u16::from(*byte) << 8, shifted);
    name.iter().fold(0, next) % SLOTS
}

/// The node at this address, with the credentials and TLS settings of another one.
pub(super) fn node_like(other: &ConnectionInfo, address: &NodeAddress) -> ConnectionInfo {
    let (host, port) = (address.host().to_owned(), address.port());
    let address = match other.addr() {
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
    };
    other.clone().set_addr(address)
}

/// The address of a node in the answer. An empty host means that of the node that answered, and `?` an unknown one.
fn address(node: &[Value], by: Option<&str>) -> Option<NodeAddress> {
    let port = number(node.get(1))?;
    let host = match node.first()? {
        Value::Nil => "",
        host => text(host)?,
    };
    let host = match host.trim_start_matches('[').trim_end_matches(']') {
        "?" => return None,
        "" | "0.0.0.0" | "::" => by?,
        host => host,
    };
    Some(NodeAddress::new(host, port))
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        _ => Vec::new(),
    }
}

fn number(value: Option<&Value>) -> Option<u16> {
    match value {
        Some(Value::Int(number)) => u16::try_from(*number).ok(),
        _ => None,
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fake, *};

    /// A view as a node at the host `asked` sends it.
    fn view(rows: &[fake::Row<'_>]) -> View {
        let answer = redis::parse_redis_value(fake::slots(rows).as_bytes());
        View::read(answer.expect("an answer"), Some("asked"))
    }

    #[test]
    fn primaries_replicas_and_ids_are_read() {
        let found = view(&[
            (5001, 16_383, &[("b", 2), ("", 3)]),
            (0, 5000, &[("::", 1), ("?", 4), ("[::1]", 5)]),
        ]);
        let at = NodeAddress::new;
        let primaries = [at("asked", 1), at("b", 2)];
        assert_eq!(found.primaries(), primaries.iter().collect());
        assert_eq!(found.replicas, [at("asked", 3), at("::1", 5)].into());
        assert_eq!(found.ids, ["id".to_owned()].into());
        assert!(found.gaps().is_empty());
        assert_eq!(View::read(Value::Okay, None), View::default());
    }

    #[test]
    fn a_slot_is_the_one_that_the_client_sends_to() {
        use redis::cluster_routing::Slot;

        for name in ["", "a", "123456789", "idempotent:00ff", &"p".repeat(128)] {
            assert_eq!(Slot::new(slot(name.as_bytes())), Some(Slot::for_key(name)));
        }
        let found = view(&[(0, 9_000, &[("a", 1)]), (9_001, 16_000, &[("b", 1)])]);
        // Slot 12739.
        assert_eq!(found.owner(b"123456789").map(NodeAddress::host), Some("b"));
        let gap = view(&[(0, 12_738, &[("a", 1)]), (12_740, 16_383, &[("b", 1)])]);
        assert_eq!(gap.owner(b"123456789"), None);
    }

    #[test]
    fn a_node_says_which_slots_it_has_and_whether_one_moves() {
        let nodes = |own: &str| {
            let other = "b 127.0.0.1:2@12 master - 0 0 2 connected 9-16383 [3->-c]";
            format!("{other}\na 127.0.0.1:1@11 myself,master - 0 0 1 connected {own}\n")
        };
        let own = |text: &str| Own::read(&nodes(text));
        let of = |slots: &[(u16, u16)], moving| Own {
            slots: slots.to_vec(),
            moving,
        };
        assert_eq!(own("7 0-5"), of(&[(0, 5), (7, 7)], false));
        assert_eq!(own("0-8 [3->-c]"), of(&[(0, 8)], true));
        assert_eq!(own("0-8 [9-<-b]"), of(&[(0, 8)], true));
        assert_eq!(own("").first(), None);
        assert_eq!(Own::read(""), Own::default());
        let rest = of(&[(6, 6), (8, 16_383)], false);
        assert!(Own::cover([&own("7 0-5"), &rest].into_iter()));
        assert!(!Own::cover([&own("0-5"), &rest].into_iter()));
        assert!(!Own::cover([&own("0-7"), &rest].into_iter()));
        assert!(!Own::cover([&own("0-5 7-8"), &rest].into_iter()));
        assert!(Own::cover(std::iter::once(&Own::all())));
        assert!(!Own::cover(std::iter::empty()));
    }

    #[test]
    fn gaps_are_printed_as_ranges() {
        let node: &[(&str, u16)] = &[("a", 1)];
        let unknown: &[(&str, u16)] = &[("?", 1)];
        for (rows, gaps, count) in [
            (&[(0, 16_383, node)][..], "", 0),
            (&[], "0-16383", 16_384),
            (&[(1, 16_382, node)], "0, 16383", 2),
            (&[(200, 16_383, node), (0, 99, node)], "100-199", 100),
            (&[(0, 99, unknown), (100, 16_383, node)], "0-99", 100),
        ] {
            let found = view(rows).gaps();
            assert_eq!((&*found.to_string(), found.count()), (gaps, count));
            assert_eq!(found.is_empty(), count == 0);
        }
    }

    #[test]
    fn another_cluster_has_other_nodes() {
        let with = |ids: &[&str]| View {
            ids: ids.iter().map(|&id| id.to_owned()).collect(),
            ..View::default()
        };
        assert!(with(&["a", "b"]).is_of(&with(&["b", "c"])));
        assert!(!with(&["a"]).is_of(&with(&["b"])));
        assert!(with(&["a"]).is_of(&with(&[])) && with(&[]).is_of(&with(&["a"])));
    }

    #[test]
    fn a_node_has_the_tls_settings_of_the_others() {
        let info = |url| redis::IntoConnectionInfo::into_connection_info(url).expect("a URL");
        let node = node_like(
            &info("redis://u:p@localhost"),
            &NodeAddress::new("::1", 7000),
        );
        assert_eq!(*node.addr(), ConnectionAddr::Tcp("::1".to_owned(), 7000));
        assert_eq!(node.redis_settings().username(), Some("u"));
    }
}
