//! Consent to a change: a switch, the audit's reason, and a question where a person sits.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::{
    cli::{Consent, Global},
    failure::Failure,
};

/// Refuses a change unless `--allow-writes` is given.
pub(crate) fn writes_allowed(global: &Global) -> Result<(), Failure> {
    if global.allow_writes {
        return Ok(());
    }
    Err(Failure::Refused(
        "this changes the store, and `--allow-writes` is not given; nothing was changed".into(),
    ))
}

/// The reason, unless it says nothing.
pub(crate) fn reason(text: &str) -> Result<&str, Failure> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::Usage(
            "`--reason` is empty: say why, for the audit".into(),
        ));
    }
    Ok(text)
}

/// Asks the person at the terminal, who may say no. Where nobody sits there, only `-y` is consent.
pub(crate) fn consent(consent: &Consent, question: &str) -> Result<(), Failure> {
    if consent.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::Refused(
            "this asks before it changes the store, and nobody is there to answer: give `-y`; nothing was changed".into(),
        ));
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::Refused(
        "not confirmed; nothing was changed".into(),
    ))
}
