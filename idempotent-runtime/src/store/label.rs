//! [`EndpointLabel`]: the endpoint of a claim, in two bytes.

use std::{
    fmt,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    num::NonZeroU16,
    sync::OnceLock,
};

/// The endpoint of a claim, as logs and metrics name it: `POST /orders/{id}`, or the route's name.
///
/// Every claim and every record in memory has one, so it is two bytes that are copied: the text stands once per process in
/// a table, of at most 4,096 endpoints of at most 128 bytes each. The table never forgets, which is bounded for the same
/// reason as the labels of a metric are: an application chooses its endpoints, its clients do not.
///
/// It is for people who look at records. No decision depends on it, and the identity of a record contains the endpoint by
/// other means ([`StoreKey`](crate::StoreKey)).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointLabel(NonZeroU16);

/// The most bytes of a label; what is longer is cut at the border of a character.
const MAX_LEN: usize = 128;
/// How many endpoints a process remembers.
const SLOTS: usize = 4_096;
/// How many slots may hold one endpoint, so that a full table costs a bounded look-up.
const PROBES: usize = 256;

static TABLE: Table<SLOTS> = Table::new();

impl EndpointLabel {
    /// The label of this endpoint, cut to 128 bytes at the border of a character.
    ///
    /// `None` for an endpoint that is first named when the process knows 4,096 others: its claims carry none.
    #[must_use]
    pub fn new(endpoint: &str) -> Option<Self> {
        TABLE.label(cut(endpoint))
    }

    /// The text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        TABLE.text(self)
    }
}

/// As much of an endpoint as a label has.
pub(super) fn cut(endpoint: &str) -> &str {
    &endpoint[..endpoint.floor_char_boundary(MAX_LEN)]
}

impl fmt::Display for EndpointLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for EndpointLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointLabel({:?})", self.as_str())
    }
}

/// An open hash table that only grows. Reading it writes nothing, so all threads share it.
struct Table<const N: usize>([OnceLock<Box<str>>; N]);

impl<const N: usize> Table<N> {
    const fn new() -> Self {
        Self([const { OnceLock::new() }; N])
    }

    fn label(&self, text: &str) -> Option<EndpointLabel> {
        // Not keyed: applications choose their endpoints, and the texts are compared.
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(text);
        let first = usize::try_from(hash % N as u64).unwrap_or_default();
        (0..PROBES.min(N))
            .map(|probe| (first + probe) % N)
            .find(|slot| **self.0[*slot].get_or_init(|| text.into()) == *text)
            .and_then(|slot| NonZeroU16::new(u16::try_from(slot + 1).ok()?))
            .map(EndpointLabel)
    }

    fn text(&self, label: EndpointLabel) -> &str {
        let slot = usize::from(label.0.get() - 1);
        self.0[slot].get().map_or("", |text| text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_endpoint_has_one_label() {
        let label = EndpointLabel::new("POST /orders/{id}").unwrap();
        assert_eq!(label.as_str(), "POST /orders/{id}");
        assert_eq!(EndpointLabel::new("POST /orders/{id}"), Some(label));
        assert_ne!(EndpointLabel::new("PUT /orders/{id}"), Some(label));
    }

    #[test]
    fn a_long_endpoint_is_cut_at_the_border_of_a_character() {
        let whole = "a".repeat(MAX_LEN);
        let cut = |text: &str| EndpointLabel::new(text).unwrap().as_str();
        assert_eq!(cut(&whole), whole);
        assert_eq!(cut(&format!("{whole}b")), whole);
        // Two bytes a character, and one of them would be the 129th.
        let odd = format!("a{}", "ö".repeat(MAX_LEN / 2));
        assert_eq!(cut(&odd), &odd[..MAX_LEN - 1]);
    }

    #[test]
    fn a_full_table_gives_the_labels_that_it_has_and_no_others() {
        let table: Table<4> = Table::new();
        let texts = ["a", "b", "c", "d"];
        let labels = texts.map(|text| table.label(text).unwrap());
        assert_eq!(labels.map(|label| table.text(label)), texts);
        assert_eq!(table.label("e"), None);
        assert_eq!(texts.map(|text| table.label(text).unwrap()), labels);
    }
}
