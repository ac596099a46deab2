//! Where the slots of a Cluster are: what `CLUSTER SLOTS` says, and which slot a key has.

use std::{
    collections::{HashMap, HashSet},
    fmt::{self, Write as _},
};

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

/// Slots that follow each other, and the primary that has them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Range<P> {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) primary: P,
}

/// Who has which slot: ranges in their order, each slot in one of them at most.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slots<P>(Vec<Range<P>>);

/// What a node says of the Cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    pub(super) slots: Slots<Place>,
    pub(super) replicas: HashSet<Place>,
    /// The names that nodes keep for ever, also when their addresses change hands.
    pub(super) ids: HashSet<String>,
}

/// What is held against a node whose last operation failed.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) enum Doubt {
    /// Nothing was heard of it: the way there may be to blame.
    Silent,
    /// It said itself that it does not serve.
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

    /// The slots that nobody has, or whose primary could not be read.
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

    /// How many slots of these primaries there are.
    fn count(&self, of: impl Fn(&P) -> bool) -> u16 {
        let ranges = self.0.iter().filter(|range| of(&range.primary));
        ranges.map(|range| range.last - range.first + 1).sum()
    }

    /// The same slots, with something else for each primary.
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
    /// These slots, and in their gaps what was known before: a partial answer does not make the rest unknown.
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

/// Slots that nobody is known to have, as first and last of each run.
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

impl Told {
    /// The answer to `CLUSTER SLOTS`. What cannot be read is left out, and its slots are a gap.
    pub(super) fn read(answer: Value, by: &Place) -> Self {
        let (mut ranges, mut replicas, mut ids) = (Vec::new(), HashSet::new(), HashSet::new());
        for row in list(answer) {
            let row = list(row);
            let (first, last) = (number(row.first()), number(row.get(1)));
            let nodes = row.into_iter().skip(2).map(list);
            let mut places = nodes.map(|node| {
                ids.extend(node.get(2).and_then(text).map(str::to_owned));
                place(&node, by)
            });
            let primary = places.next().flatten();
            replicas.extend(places.flatten());
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

    /// The one to believe of several answers, none of which has a date:
    ///
    /// 1. The fullest: a gap is what a node does not know.
    /// 2. The one with the fewest slots on nodes that refused us: what we met ourselves is newer than what a node that
    ///    is cut off from the others remembers, a former primary above all, which names itself.
    /// 3. The one that most nodes give.
    /// 4. The one with the fewest slots on nodes of which we heard nothing. That counts for less than what the others
    ///    say: it may have been one connection.
    pub(super) fn best(answers: Vec<Self>, doubted: &HashMap<Place, Doubt>) -> Option<Self> {
        let worth = |told: &Self| {
            let known = told.slots.count(|_| true);
            let serving = |place: &Place| doubted.get(place) != Some(&Doubt::Refused);
            let serving = told.slots.count(serving);
            let heard = told.slots.count(|place| !doubted.contains_key(place));
            (known, serving, told.among(&answers), heard)
        };
        let best = (0..answers.len()).max_by_key(|&at| worth(&answers[at]))?;
        answers.into_iter().nth(best)
    }

    /// Whether this is the Cluster of these nodes: of another there is none of them. If nothing is known, it is.
    pub(super) fn is_of(&self, ids: &HashSet<String>) -> bool {
        ids.is_empty() || self.ids.is_empty() || !self.ids.is_disjoint(ids)
    }

    /// How many of these answers say the same of the slots.
    pub(super) fn among(&self, answers: &[Self]) -> usize {
        let same = answers.iter().filter(|other| other.slots == self.slots);
        same.count()
    }

    /// Whether nothing speaks against the answer.
    pub(super) fn is_sound(&self, doubted: &HashMap<Place, Doubt>) -> bool {
        let mut primaries = self.slots.primaries();
        self.slots.gaps().is_empty() && primaries.all(|place| !doubted.contains_key(place))
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

/// The place of a node in an answer.
fn place(node: &[Value], by: &Place) -> Option<Place> {
    let port = number(node.get(1))?;
    let host = match node.first()? {
        Value::Nil => "",
        host => text(host)?,
    };
    Place::told(host, port, by)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(text) => std::str::from_utf8(text).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
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

    fn slots(ranges: &[(u16, u16, &str)]) -> Slots<Place> {
        let range = |&(first, last, host): &(u16, u16, &str)| Range {
            first,
            last,
            primary: place(host, 1),
        };
        Slots::new(ranges.iter().map(range).collect())
    }

    fn told(ranges: &[(u16, u16, &str)]) -> Told {
        Told {
            slots: slots(ranges),
            replicas: HashSet::new(),
            ids: HashSet::new(),
        }
    }

    #[test]
    fn answers_are_read_and_what_cannot_be_is_a_gap() {
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
        let by = place("asked", 1);
        let read = Told::read(answer, &by);
        let expected = [
            (0, 9, "a"),
            (10, 19, "asked"),
            (20, 29, "asked"),
            (50, 59, "\u{fffd}"),
        ];
        assert_eq!(read.slots, slots(&expected));
        assert_eq!(read.replicas, HashSet::from([place("other", 9)]));
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
            let owner = owner.map(|host| place(host, 1));
            assert_eq!(read.slots.owner(slot), owner.as_ref(), "{slot}");
        }
        assert_eq!(Told::read(Value::Okay, &by), told(&[]));
    }

    #[test]
    fn a_gap_is_named() {
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
    fn gaps_are_filled_with_what_was_known() {
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
    fn the_fullest_answer_is_believed_then_the_one_without_nodes_that_refused_then_the_most_common()
    {
        use Doubt::{Refused, Silent};
        let old = told(&[(0, 9999, "old"), (10_000, 16_383, "other")]);
        let new = told(&[(0, 9999, "new"), (10_000, 16_383, "other")]);
        let partial = told(&[(0, 9999, "new")]);
        let doubted = |nodes: &[(&str, Doubt)]| {
            let nodes = nodes.iter().map(|&(host, doubt)| (place(host, 1), doubt));
            nodes.collect::<HashMap<_, _>>()
        };
        for (answers, failed, expected) in [
            (vec![&partial, &old], &[("old", Refused)][..], Some(&old)),
            (vec![&old, &partial, &partial], &[], Some(&old)),
            (vec![&old, &old, &new], &[("old", Refused)], Some(&new)),
            (vec![&old, &old, &new], &[("old", Silent)], Some(&old)),
            (vec![&old, &new], &[("old", Silent)], Some(&new)),
            (vec![&new, &old], &[("old", Silent)], Some(&new)),
            (vec![&old, &old, &new], &[("other", Refused)], Some(&old)),
            (
                vec![&new, &old, &new],
                &[("old", Refused), ("new", Refused)],
                Some(&new),
            ),
            (
                vec![&old, &new, &new],
                &[("old", Silent), ("new", Refused)],
                Some(&old),
            ),
            (vec![&old, &new, &new], &[], Some(&new)),
            (vec![], &[], None),
        ] {
            let answers = answers.into_iter().cloned().collect();
            let best = Told::best(answers, &doubted(failed));
            assert_eq!(best.as_ref(), expected, "{failed:?}");
        }
        assert!(new.is_sound(&doubted(&[("old", Silent)])));
        assert!(!new.is_sound(&doubted(&[("new", Silent)])));
        assert!(!partial.is_sound(&doubted(&[])));
    }

    #[test]
    fn addresses_of_six_parts_are_read_with_brackets_and_without() {
        let by = place("asked", 7);
        for told in ["::1", "[::1]"] {
            let place = Place::told(told, 7000, &by).expect("a place");
            assert_eq!(place.to_string(), "[::1]:7000");
            let info = redis::IntoConnectionInfo::into_connection_info("redis://localhost");
            let address = place.like(&info.expect("an address"));
            assert_eq!(address, ConnectionAddr::Tcp("::1".to_owned(), 7000));
        }
        assert_eq!(Place::told("::", 7, &by), Some(by));
    }
}
