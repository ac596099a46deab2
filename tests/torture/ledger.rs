//! The audit: the clients' answers against the effects in the ledger.

use std::{collections::HashMap, fmt, fs, path::Path, time::Duration};

use crate::client::Answer;

/// The findings of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) keys: usize,
    pub(crate) answers: usize,
    pub(crate) executions: usize,
    pub(crate) kills: u32,
    pub(crate) store_kills: u32,
    pub(crate) unknown: usize,
    pub(crate) unanswered: usize,
    pub(crate) twice: Vec<String>,
    pub(crate) lost: Vec<String>,
    pub(crate) differing: Vec<String>,
    pub(crate) unexpected: Vec<String>,
}

impl Report {
    /// Whether every guarantee held.
    pub(crate) fn is_clean(&self) -> bool {
        let broken = [&self.twice, &self.lost, &self.differing, &self.unexpected];
        broken.iter().all(|list| list.is_empty()) && self.unanswered == 0
    }

    /// Compares the answers of each key, in their order, with the ledger.
    pub(crate) fn audit(&mut self, answers: &HashMap<u64, Vec<Answer>>, ledger: &Path) {
        let effects = read(ledger);
        self.executions = effects.values().map(Vec::len).sum();
        self.keys = answers.len();
        for (amount, ids) in &effects {
            if ids.len() > 1 {
                self.twice.push(format!("key {amount}: {}", ids.join(", ")));
            }
        }
        for (&key, answers) in answers {
            self.answers += answers.len();
            self.audit_key(key, answers, effects.get(&key));
        }
    }

    fn audit_key(&mut self, key: u64, answers: &[Answer], effects: Option<&Vec<String>>) {
        let mut paid: Option<&String> = None;
        for answer in answers {
            match (answer, paid) {
                (Answer::Paid(body), Some(first)) if body != first => {
                    self.differing
                        .push(format!("key {key}: {first}, then {body}"));
                }
                (Answer::Paid(body), None) => {
                    let in_ledger = |id: &String| body.contains(&format!("\"{id}\""));
                    if !effects.is_some_and(|ids| ids.iter().any(in_ledger)) {
                        self.unexpected
                            .push(format!("key {key}: {body} is not in the ledger"));
                    }
                    paid = Some(body);
                }
                // From the first one on, every answer must be the acknowledged outcome.
                (Answer::Unknown | Answer::None, Some(_)) => {
                    self.lost.push(format!("key {key}: {answers:?}"));
                }
                (Answer::Unexpected(response), _) => {
                    self.unexpected.push(format!("key {key}: {response}"));
                }
                (Answer::None, None) => self.unanswered += 1,
                (Answer::Paid(_) | Answer::Unknown, _) => {}
            }
        }
        if answers.last() == Some(&Answer::Unknown) {
            self.unknown += 1;
        }
    }
}

/// The ids of the payments, by amount. The amount is the key's number.
fn read(ledger: &Path) -> HashMap<u64, Vec<String>> {
    let lines = fs::read_to_string(ledger).unwrap_or_default();
    let mut effects: HashMap<u64, Vec<String>> = HashMap::new();
    for line in lines.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [_, amount, id] = words[..] else {
            panic!("{line:?} is not a line of the ledger");
        };
        let amount = amount.parse().expect("an amount");
        effects.entry(amount).or_default().push(id.to_owned());
    }
    effects
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} keys, {} answers, {} executions, {} outcomes unknown, in {:.1} s",
            self.keys,
            self.answers,
            self.executions,
            self.unknown,
            self.time.as_secs_f64()
        )?;
        writeln!(
            f,
            "{} kills of processes, {} of the store, seed {}",
            self.kills, self.store_kills, self.seed
        )?;
        write!(
            f,
            "{} executed twice, {} acknowledged outcomes lost, {} differing, {} unexpected, {} unanswered",
            self.twice.len(),
            self.lost.len(),
            self.differing.len(),
            self.unexpected.len(),
            self.unanswered
        )?;
        for list in [&self.twice, &self.lost, &self.differing, &self.unexpected] {
            for found in list.iter().take(3) {
                write!(f, "\n  {found}")?;
            }
        }
        Ok(())
    }
}
