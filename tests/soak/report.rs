//! What a run found, as text.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::ledger::Rule;

/// What was found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// The samples of memory, in MiB.
    pub(crate) rss: Vec<f64>,
    pub(crate) violations: Vec<(Rule, String)>,
}

/// At most so many samples are shown.
const SHOWN: usize = 24;

impl Report {
    /// Whether every rule held.
    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// How often this was counted.
    pub(crate) fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// How often this rule was broken.
    pub(crate) fn broken(&self, rule: Rule) -> usize {
        self.violations
            .iter()
            .filter(|(broken, _)| *broken == rule)
            .count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.counts {
            writeln!(f, "{count:9}  {what}")?;
        }
        let step = self.rss.len().div_ceil(SHOWN).max(1);
        let rss = self.rss.iter().step_by(step);
        let rss: Vec<_> = rss.map(|mib| format!("{mib:.0}")).collect();
        writeln!(f, "memory over the run, in MiB: {}", rss.join(" "))?;
        let mut rules: BTreeMap<Rule, (usize, &str)> = BTreeMap::new();
        for (rule, what) in &self.violations {
            rules.entry(*rule).or_insert((0, what)).0 += 1;
        }
        for (rule, (count, what)) in &rules {
            writeln!(f, "{rule:?}: {count}, such as {what}")?;
        }
        let verdict = if self.is_clean() {
            "every rule held"
        } else {
            "RULES WERE BROKEN"
        };
        write!(
            f,
            "seed {}, {:.0} s: {verdict}",
            self.seed,
            self.time.as_secs_f64()
        )
    }
}
