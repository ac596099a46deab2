//! The audit: the clients' answers against the effects, in the ledger of the payments or in the books of the transfers.

use std::{collections::HashMap, fmt, fs, path::Path, time::Duration};

use crate::{
    app::App,
    client::Answer,
    transfers::{Books, TOTAL},
};

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
    pub(crate) lost_replies: u64,
    /// Keys whose outcome is a refusal, and keys whose outcome is unknown.
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
    pub(crate) unanswered: usize,
    /// What the accounts hold together at the end, of transfers.
    pub(crate) total: Option<i64>,
    pub(crate) twice: Vec<String>,
    pub(crate) torn: Vec<String>,
    pub(crate) lost: Vec<String>,
    pub(crate) differing: Vec<String>,
    pub(crate) unexpected: Vec<String>,
}

impl Report {
    /// Whether every guarantee held.
    pub(crate) fn is_clean(&self) -> bool {
        self.broken().iter().all(|list| list.is_empty())
            && self.unanswered == 0
            && self.total.is_none_or(|total| total == TOTAL)
    }

    fn broken(&self) -> [&Vec<String>; 5] {
        [
            &self.twice,
            &self.torn,
            &self.lost,
            &self.differing,
            &self.unexpected,
        ]
    }

    /// Compares the answers to payments, those of each key in their order, with the ledger.
    pub(crate) fn audit_payments(&mut self, answers: &HashMap<u64, Vec<Answer>>, ledger: &Path) {
        self.audit(App::Payments, answers, &read(ledger));
    }

    /// Compares the answers to transfers with the rows, and both with the records: each key has the rows of its answer,
    /// and a record with that outcome.
    pub(crate) fn audit_transfers(&mut self, answers: &HashMap<u64, Vec<Answer>>, books: Books) {
        self.audit(App::Transfers, answers, &books.rows);
        self.total = Some(books.total);
        self.torn.extend(books.strange);
        for (key, answers) in answers {
            let rows = books.rows.get(key).map_or(0, Vec::len);
            let done = matches!(answers.last(), Some(Answer::Done(_)));
            if done != (rows > 0) {
                let last = answers.last();
                self.torn.push(format!("key {key}: {rows} rows, {last:?}"));
            }
        }
        if (usize::try_from(books.completed), books.in_flight) != (Ok(answers.len()), 0) {
            let Books {
                completed,
                in_flight,
                ..
            } = books;
            self.torn.push(format!(
                "{completed} records with an outcome and {in_flight} without for {} keys",
                answers.len()
            ));
        }
    }

    fn audit(
        &mut self,
        app: App,
        answers: &HashMap<u64, Vec<Answer>>,
        effects: &HashMap<u64, Vec<String>>,
    ) {
        self.executions = effects.values().map(Vec::len).sum();
        self.keys = answers.len();
        for (key, ids) in effects {
            if ids.len() > 1 {
                self.twice.push(format!("key {key}: {}", ids.join(", ")));
            }
        }
        for (&key, answers) in answers {
            self.answers += answers.len();
            self.audit_key(app, key, answers, effects.get(&key));
        }
    }

    fn audit_key(&mut self, app: App, key: u64, answers: &[Answer], effects: Option<&Vec<String>>) {
        let mut outcome: Option<&Answer> = None;
        for answer in answers {
            match (answer, outcome) {
                (Answer::Done(_) | Answer::Refused(_), Some(first)) if answer != first => {
                    self.differing
                        .push(format!("key {key}: {first:?}, then {answer:?}"));
                }
                (Answer::Done(body), None) => {
                    let named = |id: &String| app.names(body, id);
                    if !effects.is_some_and(|ids| ids.iter().any(named)) {
                        self.unexpected
                            .push(format!("key {key}: there is no effect of {body}"));
                    }
                    outcome = Some(answer);
                }
                (Answer::Refused(_), None) => {
                    self.refused += 1;
                    outcome = Some(answer);
                }
                // From the first one on, every answer must be the acknowledged outcome.
                (Answer::Unknown | Answer::None, Some(_)) => {
                    self.lost.push(format!("key {key}: {answers:?}"));
                }
                (Answer::Unexpected(response), _) => {
                    self.unexpected.push(format!("key {key}: {response}"));
                }
                (Answer::None, None) => self.unanswered += 1,
                (Answer::Done(_) | Answer::Refused(_) | Answer::Unknown, _) => {}
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
            "{} keys, {} answers, {} executions, {} refused, {} outcomes unknown, in {:.1} s",
            self.keys,
            self.answers,
            self.executions,
            self.refused,
            self.unknown,
            self.time.as_secs_f64()
        )?;
        writeln!(
            f,
            "{} kills of processes, {} of the store, {} replies of it lost, seed {}",
            self.kills, self.store_kills, self.lost_replies, self.seed
        )?;
        write!(
            f,
            "{} executed twice, {} torn, {} acknowledged outcomes lost, {} differing, {} unexpected, {} unanswered",
            self.twice.len(),
            self.torn.len(),
            self.lost.len(),
            self.differing.len(),
            self.unexpected.len(),
            self.unanswered
        )?;
        if let Some(total) = self.total {
            write!(f, "; the accounts hold {total} of {TOTAL}")?;
        }
        for list in self.broken() {
            for found in list.iter().take(3) {
                write!(f, "\n  {found}")?;
            }
        }
        Ok(())
    }
}
