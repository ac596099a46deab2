//! The slots of a Cluster: the answer to `CLUSTER SLOTS`, and the slot of a key.

use std::{
    collections::{HashMap, HashSet},
    fmt::{self, Write as _},
};

use redis::{ConnectionAddr, ConnectionInfo, Value};

/// The number of slots in a Cluster.
pub(super) const SLOTS: u16 = 16384;

/// The host and port of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct NodeAddress {
    host: String,
    port: u16,
}

impl NodeAddress {
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

    /// An address as the node `by` announces it: an empty host means the node's own, and `?` an unknown one.
    pub(super) fn announced(host: &str, port: u16, by: &Self) -> Option<Self> {
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

    /// The address with the TLS settings of `other`.
    pub(super) fn address_like(&self, other: &ConnectionInfo) -> ConnectionAddr {
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

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// Consecutive slots, and the primary that owns them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Range<P> {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) primary: P,
}

/// The slot map: ranges in order, each slot in one of them at most.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slots<P>(Vec<Range<P>>);

/// A node's view of the Cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NodeView {
    pub(super) slots: Slots<NodeAddress>,
    pub(super) replicas: HashSet<NodeAddress>,
    /// The ids of the nodes, which stay the same when addresses change.
    pub(super) ids: HashSet<String>,
}

/// Why the views that name a node are doubted: the result of the last operation on it.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) enum Doubt {
    /// It was unreachable; the cause may be the connection.
    Unreachable,
    /// It reported itself that it does not serve the slot.
    Refused,
}

impl<P> Slots<P> {
    fn new(mut ranges: Vec<Range<P>>) -> Self {
        ranges.sort_by_key(|range| range.first);
        let mut next = 0;
        ranges.retain(|range| {
            let new = range.first >= next && range.first <= range.last && range.last < SLOTS;
            if new {
                next = range.last + 1;
            }
            new
        });
        Self(ranges)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Range<P>> {
        self.0.iter()
    }

    pub(super) fn primaries(&self) -> impl Iterator<Item = &P> {
        self.0.iter().map(|range| &range.primary)
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&P> {
        let at = self.0.partition_point(|range| range.last < slot);
        let range = self.0.get(at).filter(|range| range.first <= slot)?;
        Some(&range.primary)
    }

    /// The slots without a primary, or whose primary could not be read.
    pub(super) fn gaps(&self) -> Gaps {
        let (mut gaps, mut next) = (Vec::new(), 0);
        for range in &self.0 {
            if range.first > next {
                gaps.push((next, range.first - 1));
            }
            next = range.last + 1;
        }
        if next < SLOTS {
            gaps.push((next, SLOTS - 1));
        }
        Gaps(gaps)
    }

    /// The number of slots whose primaries meet the condition.
    fn count(&self, of: impl Fn(&P) -> bool) -> u16 {
        let ranges = self.0.iter().filter(|range| of(&range.primary));
        ranges.map(|range| range.last - range.first + 1).sum()
    }

    /// The same slots with each primary mapped.
    pub(super) fn map<Q, E>(self, to: impl Fn(P) -> Result<Q, E>) -> Result<Slots<Q>, E> {
        let ranges = self.0.into_iter().map(|range| {
            Ok(Range {
                first: range.first,
                last: range.last,
                primary: to(range.primary)?,
            })
        });
        ranges.collect::<Result<_, _>>().map(Slots)
    }
}

impl<P: Clone> Slots<P> {
    /// These slots, with the gaps filled from the known map: a partial view does not make the rest unknown.
    pub(super) fn filled(mut self, known: &Self) -> Self {
        for (first, last) in self.gaps().0 {
            self.0.extend(known.iter().filter_map(|range| {
                let (first, last) = (range.first.max(first), range.last.min(last));
                (first <= last).then(|| Range {
                    first,
                    last,
                    primary: range.primary.clone(),
                })
            }));
        }
        Self::new(self.0)
    }
}

impl<P> Default for Slots<P> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// The slots without a known owner, as the first and last of each run.
#[derive(Debug, PartialEq)]
pub(super) struct Gaps(Vec<(u16, u16)>);

impl Gaps {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
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

impl NodeView {
    /// Reads the answer to `CLUSTER SLOTS`. Rows that cannot be read are skipped, and their slots are a gap.
    pub(super) fn read(answer: Value, by: &NodeAddress) -> Self {
        let (mut ranges, mut replicas, mut ids) = (Vec::new(), HashSet::new(), HashSet::new());
        for row in list(answer) {
            let row = list(row);
            let (first, last) = (number(row.first()), number(row.get(1)));
            let nodes = row.into_iter().skip(2).map(list);
            let mut addresses = nodes.map(|node| {
                ids.extend(node.get(2).and_then(text).map(str::to_owned));
                address(&node, by)
            });
            let primary = addresses.next().flatten();
            replicas.extend(addresses.flatten());
            if let (Some(first), Some(last), Some(primary)) = (first, last, primary) {
                ranges.push(Range {
                    first,
                    last,
                    primary,
                });
            }
        }
        Self {
            slots: Slots::new(ranges),
            replicas,
            ids,
        }
    }

    /// The best of several views, none of which has a version:
    ///
    /// 1. The one with the fewest gaps: a gap is what a node does not know.
    /// 2. The one with the fewest slots on nodes that refused an operation: that is newer than the view of a
    ///    partitioned node, above all of a former primary, which names itself.
    /// 3. The one that most nodes have.
    /// 4. The one with the fewest slots on unreachable nodes. That counts for less than the views of others, because
    ///    the cause may be a single connection.
    pub(super) fn best(answers: Vec<Self>, doubted: &HashMap<NodeAddress, Doubt>) -> Option<Self> {
        let worth = |view: &Self| {
            let known = view.slots.count(|_| true);
            let serving = |address: &NodeAddress| doubted.get(address) != Some(&Doubt::Refused);
            let serving = view.slots.count(serving);
            let heard = view.slots.count(|address| !doubted.contains_key(address));
            (known, serving, view.count_equal(&answers), heard)
        };
        let best = (0..answers.len()).max_by_key(|&at| worth(&answers[at]))?;
        answers.into_iter().nth(best)
    }

    /// Whether this is a view of the Cluster of these nodes: another Cluster has none of them. True if no node is
    /// known.
    pub(super) fn is_of(&self, ids: &HashSet<String>) -> bool {
        ids.is_empty() || self.ids.is_empty() || !self.ids.is_disjoint(ids)
    }

    /// How many of these views have the same slot map.
    pub(super) fn count_equal(&self, answers: &[Self]) -> usize {
        let same = answers.iter().filter(|other| other.slots == self.slots);
        same.count()
    }

    /// Whether the view is complete and names no doubted primary.
    pub(super) fn is_sound(&self, doubted: &HashMap<NodeAddress, Doubt>) -> bool {
        let mut primaries = self.slots.primaries();
        self.slots.gaps().is_empty() && primaries.all(|address| !doubted.contains_key(address))
    }
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

/// The address of a node in the answer.
fn address(node: &[Value], by: &NodeAddress) -> Option<NodeAddress> {
    let port = number(node.get(1))?;
    let host = match node.first()? {
        Value::Nil => "",
        host => text(host)?,
    };
    NodeAddress::announced(host, port, by)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// The slot of a key without braces: CRC-16/XMODEM by the Cluster specification.
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

    fn address(host: &str, port: u16) -> NodeAddress {
        NodeAddress {
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

    fn slots(ranges: &[(u16, u16, &str)]) -> Slots<NodeAddress> {
        let range = |&(first, last, host): &(u16, u16, &str)| Range {
            first,
            last,
            primary: address(host, 1),
        };
        Slots::new(ranges.iter().map(range).collect())
    }

    fn view(ranges: &[(u16, u16, &str)]) -> NodeView {
        NodeView {
            slots: slots(ranges),
            replicas: HashSet::new(),
            ids: HashSet::new(),
        }
    }

    #[test]
    fn rows_that_cannot_be_read_are_gaps() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host, port| Value::Array(vec![host, Value::Int(port), text("a1")]);
        let range = |first, last, node| {
            let replica = Value::Array(vec![text("other"), Value::Int(9), text("b2"), Value::Nil]);
            Value::Array(vec![Value::Int(first), Value::Int(last), node, replica])
        };
        let answer = Value::Array(vec![
            range(50, 59, node(text("\u{fffd}"), 1)),
            range(0, 9, node(text("a"), 1)),
            range(10, 19, node(text(""), 1)),
            range(20, 29, node(Value::Nil, 1)),
            range(30, 38, node(text("?"), 1)),
            range(40, 70_000, node(text("a"), 1)),
            range(41, 16_384, node(text("a"), 1)),
            range(49, 42, node(text("a"), 1)),
            range(40, 49, node(text("a"), -1)),
            range(51, 70, node(text("a"), 1)),
            Value::Nil,
        ]);
        let by = address("asked", 1);
        let read = NodeView::read(answer, &by);
        let expected = [
            (0, 9, "a"),
            (10, 19, "asked"),
            (20, 29, "asked"),
            (50, 59, "\u{fffd}"),
        ];
        assert_eq!(read.slots, slots(&expected));
        assert_eq!(read.replicas, HashSet::from([address("other", 9)]));
        let ids = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect();
        assert_eq!(read.ids, ids(&["a1", "b2"]));
        for known in [&[][..], &["b2", "c3"]] {
            assert!(read.is_of(&ids(known)), "{known:?}");
        }
        assert!(!read.is_of(&ids(&["c3"])));
        assert_eq!(read.slots.gaps().to_string(), "30-49, 60-16383");
        for (slot, owner) in [
            (0, Some("a")),
            (19, Some("asked")),
            (30, None),
            (60, None),
            (16_383, None),
        ] {
            let owner = owner.map(|host| address(host, 1));
            assert_eq!(read.slots.owner(slot), owner.as_ref(), "{slot}");
        }
        assert_eq!(NodeView::read(Value::Okay, &by), view(&[]));
    }

    #[test]
    fn gaps_are_printed_as_ranges() {
        for (ranges, gaps) in [
            (&[(0, 16_383, "a")][..], ""),
            (&[], "0-16383"),
            (&[(1, 16_382, "a")], "0, 16383"),
            (&[(0, 99, "a"), (200, 16_383, "b")], "100-199"),
        ] {
            assert_eq!(slots(ranges).gaps().to_string(), gaps);
            assert_eq!(slots(ranges).gaps().is_empty(), gaps.is_empty());
        }
    }

    #[test]
    fn gaps_are_filled_from_the_known_map() {
        let known = slots(&[(0, 99, "a"), (100, 199, "b"), (200, 16_383, "c")]);
        let partial = slots(&[(50, 79, "d"), (150, 249, "e")]);
        let expected = [
            (0, 49, "a"),
            (50, 79, "d"),
            (80, 99, "a"),
            (100, 149, "b"),
            (150, 249, "e"),
            (250, 16_383, "c"),
        ];
        assert_eq!(partial.filled(&known), slots(&expected));
        let full = slots(&[(0, 16_383, "f")]);
        assert_eq!(full.clone().filled(&known), full);
        assert_eq!(slots(&[]).filled(&known), known);
    }

    #[test]
    fn the_best_view_is_the_most_complete_then_the_one_without_refusals_then_the_most_common() {
        use Doubt::{Refused, Unreachable};
        let old = view(&[(0, 9999, "old"), (10_000, 16_383, "other")]);
        let new = view(&[(0, 9999, "new"), (10_000, 16_383, "other")]);
        let partial = view(&[(0, 9999, "new")]);
        let doubted = |nodes: &[(&str, Doubt)]| {
            let nodes = nodes.iter().map(|&(host, doubt)| (address(host, 1), doubt));
            nodes.collect::<HashMap<_, _>>()
        };
        for (answers, failed, expected) in [
            (vec![&partial, &old], &[("old", Refused)][..], Some(&old)),
            (vec![&old, &partial, &partial], &[], Some(&old)),
            (vec![&old, &old, &new], &[("old", Refused)], Some(&new)),
            (vec![&old, &old, &new], &[("old", Unreachable)], Some(&old)),
            (vec![&old, &new], &[("old", Unreachable)], Some(&new)),
            (vec![&new, &old], &[("old", Unreachable)], Some(&new)),
            (vec![&old, &old, &new], &[("other", Refused)], Some(&old)),
            (
                vec![&new, &old, &new],
                &[("old", Refused), ("new", Refused)],
                Some(&new),
            ),
            (
                vec![&old, &new, &new],
                &[("old", Unreachable), ("new", Refused)],
                Some(&old),
            ),
            (vec![&old, &new, &new], &[], Some(&new)),
            (vec![], &[], None),
        ] {
            let answers = answers.into_iter().cloned().collect();
            let best = NodeView::best(answers, &doubted(failed));
            assert_eq!(best.as_ref(), expected, "{failed:?}");
        }
        assert!(new.is_sound(&doubted(&[("old", Unreachable)])));
        assert!(!new.is_sound(&doubted(&[("new", Unreachable)])));
        assert!(!partial.is_sound(&doubted(&[])));
    }

    #[test]
    fn ipv6_addresses_are_read_with_and_without_brackets() {
        let by = address("asked", 7);
        for view in ["::1", "[::1]"] {
            let address = NodeAddress::announced(view, 7000, &by).expect("a address");
            assert_eq!(address.to_string(), "[::1]:7000");
            let info = redis::IntoConnectionInfo::into_connection_info("redis://localhost");
            let address = address.address_like(&info.expect("an address"));
            assert_eq!(address, ConnectionAddr::Tcp("::1".to_owned(), 7000));
        }
        assert_eq!(NodeAddress::announced("::", 7, &by), Some(by));
    }
}
