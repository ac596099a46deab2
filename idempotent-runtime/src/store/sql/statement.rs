//! Statements read from their files, with the table's name inserted.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use super::TableName;

/// How a database quotes identifiers.
#[derive(Clone, Copy)]
pub(super) struct Dialect {
    pub(super) quote: char,
}

impl Dialect {
    /// A statement for this table.
    ///
    /// The files write `{table}` for the table, `{versions}` for the table of its versions and `{index}` for the name
    /// of its index. Nothing else is ever inserted as text: values are bound. A [`TableName`] cannot contain a
    /// character that ends a quoted identifier, so inserting it is safe.
    pub(super) fn statement(self, file: &str, table: &TableName) -> SqlStr {
        let file = uncommented(file);
        let statement = file
            .replace("{table}", &self.qualified(table, ""))
            .replace("{versions}", &self.qualified(table, "_versions"))
            .replace("{index}", &self.quoted(table.name(), "_expiry"));
        // Shared, so that each use costs a reference count and no copy.
        AssertSqlSafe(Arc::<str>::from(statement)).into_sql_str()
    }

    fn qualified(self, table: &TableName, suffix: &str) -> String {
        let name = self.quoted(table.name(), suffix);
        match table.schema() {
            Some(schema) => format!("{}.{name}", self.quoted(schema, "")),
            None => name,
        }
    }

    fn quoted(self, name: &str, suffix: &str) -> String {
        let quote = self.quote;
        format!("{quote}{name}{suffix}{quote}")
    }
}

/// Removes the comment lines, which are for the reader of the file and would fill the server's log.
fn uncommented(file: &str) -> String {
    let lines = file
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"));
    lines
        .collect::<Vec<_>>()
        .join("\n")
        .trim()
        .trim_end_matches(';')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_comments_removed() {
        let table = "app.order".parse().unwrap();
        let statement =
            Dialect { quote: '"' }.statement("-- why\nselect 1\nfrom {table};\n", &table);
        assert_eq!(statement.as_str(), "select 1\nfrom \"app\".\"order\"");
        let statement =
            Dialect { quote: '`' }.statement("create index {index} on {versions}", &table);
        assert_eq!(
            statement.as_str(),
            "create index `order_expiry` on `app`.`order_versions`"
        );
    }
}
