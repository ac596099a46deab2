//! The effects that must not happen twice.
//!
//! 1. Each execution draws a number just before its effect, after its delay. Numbers count from one for each kind and
//!    become ids: `payment-1`, or `payment-a-1` on the node `a`.
//! 2. An effect is a line in the ledger: its kind, one word about it, its id. The line is one write in append mode, so
//!    that processes can share a file and a killed process leaves no half line.
//! 3. An order that is refused draws a number, since its handler ran, but has no effect.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;

/// The executions of this process. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Effects(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    payments: AtomicU64,
    orders: AtomicU64,
    reports: AtomicU64,
    /// The part of an id between its kind and its number.
    infix: String,
    ledger: Option<File>,
}

/// A kind of execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Payment,
    Order,
    Report,
}

/// How often each kind was executed.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    payments: u64,
    orders: u64,
    reports: u64,
}

impl Effects {
    /// No effects yet. Ids contain the name of the `node`, effects are appended to the `ledger`.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be opened.
    pub(crate) fn new(node: Option<&str>, ledger: Option<&Path>) -> Result<Self, String> {
        let open = |path: &Path| {
            let file = OpenOptions::new().append(true).create(true).open(path);
            file.map_err(|error| format!("cannot open the ledger {}: {error}", path.display()))
        };
        Ok(Self(Arc::new(Inner {
            payments: AtomicU64::new(0),
            orders: AtomicU64::new(0),
            reports: AtomicU64::new(0),
            infix: node.map_or_else(|| "-".to_owned(), |node| format!("-{node}-")),
            ledger: ledger.map(open).transpose()?,
        })))
    }

    /// Counts an execution and makes its id.
    pub(crate) fn draw(&self, kind: Kind) -> String {
        let (name, counter) = match kind {
            Kind::Payment => ("payment", &self.0.payments),
            Kind::Order => ("order", &self.0.orders),
            Kind::Report => ("report", &self.0.reports),
        };
        // Relaxed, because only the count matters: nothing is published through it.
        let number = counter.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{name}{}{number}", self.0.infix)
    }

    /// Has the effect. `word` must be one word.
    ///
    /// # Errors
    ///
    /// If the line cannot be written.
    pub(crate) fn record(&self, kind: Kind, word: &str, id: &str) -> io::Result<()> {
        let Some(mut ledger) = self.0.ledger.as_ref() else {
            return Ok(());
        };
        let name = match kind {
            Kind::Payment => "payments",
            Kind::Order => "orders",
            Kind::Report => "reports",
        };
        let line = format!("{name} {word} {id}\n");
        // Blocks only for a few bytes into the page cache. Not `write_all`, which would complete a short write with a
        // second one, and another process's line could stand in between.
        if ledger.write(line.as_bytes())? == line.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// The counts so far.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            payments: self.0.payments.load(Ordering::Relaxed),
            orders: self.0.orders.load(Ordering::Relaxed),
            reports: self.0.reports.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_by_kind_and_contain_the_node() {
        let here = Effects::new(None, None).unwrap();
        assert_eq!(here.draw(Kind::Payment), "payment-1");
        assert_eq!(here.draw(Kind::Payment), "payment-2");
        assert_eq!(here.draw(Kind::Order), "order-1");
        let there = Effects::new(Some("a"), None).unwrap();
        assert_eq!(there.draw(Kind::Report), "report-a-1");
        let counts = Counts {
            payments: 2,
            orders: 1,
            reports: 0,
        };
        assert_eq!(here.counts(), counts);
    }

    #[test]
    fn processes_share_a_ledger() {
        let path = std::env::temp_dir().join(format!("ledger-{}", std::process::id()));
        let [a, b] = ["a", "b"].map(|node| Effects::new(Some(node), Some(&path)).unwrap());
        a.record(Kind::Payment, "100", "payment-a-1").unwrap();
        b.record(Kind::Order, "2", "order-b-1").unwrap();
        a.record(Kind::Report, "7", "report-a-1").unwrap();
        let ledger = std::fs::read_to_string(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            ledger.unwrap(),
            "payments 100 payment-a-1\norders 2 order-b-1\nreports 7 report-a-1\n"
        );
    }
}
