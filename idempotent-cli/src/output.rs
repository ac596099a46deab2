//! Prints rows: in columns for people, as JSON or CSV for programs.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use serde::Serialize;

use crate::{cli::Format, failure::Failure};

/// Something that is listed.
pub(crate) trait Tabular: Serialize {
    /// The headings of the columns that people see.
    const COLUMNS: &'static [&'static str];

    /// What stands in these columns.
    fn cells(&self) -> Vec<String>;
}

/// Prints these rows; none in JSON is `[]`, and in a table a line that says so.
pub(crate) fn rows<T: Tabular>(format: Format, rows: &[T], none: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match format {
        Format::Table if rows.is_empty() => writeln!(out, "{none}")?,
        Format::Table => out.write_all(columns(rows).as_bytes())?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, rows)?;
            writeln!(out)?;
        }
        Format::Jsonl => {
            for row in rows {
                serde_json::to_writer(&mut out, row)?;
                writeln!(out)?;
            }
        }
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(&mut out);
            for row in rows {
                writer.serialize(row)?;
            }
            writer.flush()?;
        }
    }
    Ok(out.flush()?)
}

/// Prints one thing: its lines for people, or the same as one JSON object or row.
pub(crate) fn one<T: Tabular>(
    format: Format,
    row: &T,
    lines: &[(&str, String)],
) -> Result<(), Failure> {
    if format == Format::Csv {
        return rows(format, std::slice::from_ref(row), "");
    }
    let mut out = io::stdout().lock();
    match format {
        Format::Table => {
            let width = lines
                .iter()
                .map(|(name, _)| name.len())
                .max()
                .unwrap_or_default();
            for (name, value) in lines {
                writeln!(out, "{name:width$}  {}", printable(value))?;
            }
        }
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, row)?;
            writeln!(out)?;
        }
        Format::Jsonl | Format::Csv => {
            serde_json::to_writer(&mut out, row)?;
            writeln!(out)?;
        }
    }
    Ok(out.flush()?)
}

fn columns<T: Tabular>(rows: &[T]) -> String {
    let mut lines = vec![T::COLUMNS.iter().map(|name| (*name).to_owned()).collect()];
    lines.extend(rows.iter().map(|row| {
        row.cells()
            .iter()
            .map(|cell| printable(cell))
            .collect::<Vec<_>>()
    }));
    let widths: Vec<_> = (0..T::COLUMNS.len())
        .map(|column| {
            lines
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for line in &lines {
        let mut written = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            // Writing to a string does not fail.
            let _ = write!(written, "{cell:width$}  ");
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    text
}

/// The text without characters that would move a terminal's cursor or change its colours: endpoints come from elsewhere.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Pair(&'static str, &'static str);

    impl Tabular for Pair {
        const COLUMNS: &'static [&'static str] = &["ONE", "TWO"];

        fn cells(&self) -> Vec<String> {
            vec![self.0.into(), self.1.into()]
        }
    }

    #[test]
    fn columns_stand_below_each_other_and_carry_no_control_characters() {
        let text = columns(&[Pair("a", "b"), Pair("wider", "\x1b[31mred\n")]);
        assert_eq!(
            text,
            "ONE    TWO\na      b\nwider  \u{fffd}[31mred\u{fffd}\n"
        );
    }
}
