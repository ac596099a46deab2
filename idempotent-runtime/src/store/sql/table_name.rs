//! [`TableName`]: the name of the table that holds the records.

use std::{error::Error, fmt, str::FromStr};

/// The length of the longest name. PostgreSQL truncates identifiers to 63 bytes, and the names of the index and of the
/// table of versions are this one and a suffix.
const MAX_LENGTH: usize = 48;

/// The name of the table that holds the records, with or without a schema (for MySQL: a database).
///
/// ```
/// use idempotent_runtime::store::sql::TableName;
///
/// let name: TableName = "billing.idempotency_records".parse()?;
/// assert_eq!(name.schema(), Some("billing"));
/// assert!("records; drop table users".parse::<TableName>().is_err());
/// # Ok::<(), idempotent_runtime::store::sql::TableNameError>(())
/// ```
///
/// Each part is 1 to 48 ASCII letters, digits and `_`, and does not begin with a digit. Statements quote it, so that
/// reserved words are allowed and PostgreSQL keeps capital letters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableName {
    schema: Option<Box<str>>,
    name: Box<str>,
}

/// A text that is not a valid [`TableName`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableNameError {
    given: Box<str>,
}

impl TableName {
    /// The schema, if one was given.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The same table with its schema: the one in which the database found it, unless it has one.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(super) fn found_in(self, schema: Option<String>) -> Self {
        Self {
            schema: self.schema.or(schema.map(Into::into)),
            name: self.name,
        }
    }

    /// The name without the schema.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Default for TableName {
    /// `idempotency_records`, without a schema.
    fn default() -> Self {
        Self {
            schema: None,
            name: "idempotency_records".into(),
        }
    }
}

impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(text: &str) -> Result<Self, TableNameError> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        if !schema.is_none_or(is_identifier) || !is_identifier(name) {
            return Err(TableNameError { given: text.into() });
        }
        Ok(Self {
            schema: schema.map(Into::into),
            name: name.into(),
        })
    }
}

impl TryFrom<&str> for TableName {
    type Error = TableNameError;

    fn try_from(text: &str) -> Result<Self, TableNameError> {
        text.parse()
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

impl fmt::Display for TableNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a valid table name: write `name` or `schema.name`, each 1 to {MAX_LENGTH} ASCII letters, \
             digits and `_`, not beginning with a digit",
            self.given
        )
    }
}

impl Error for TableNameError {}

fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= MAX_LENGTH
        && bytes
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_a_schema_are_valid() {
        for text in [
            "r",
            "_r",
            "Records_2",
            "billing.records",
            "select",
            &"x".repeat(48),
        ] {
            assert_eq!(text.parse::<TableName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_name_that_could_end_a_quoted_identifier_is_not_valid() {
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a.b.c",
            "1a",
            "a b",
            "a\"",
            "a`",
            "a;--",
            "ä",
            "a\0",
            "a-b",
            &"x".repeat(49),
        ] {
            assert!(text.parse::<TableName>().is_err(), "{text:?}");
        }
    }
}
