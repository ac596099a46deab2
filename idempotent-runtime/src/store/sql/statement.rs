//! Statements: read from their files, written in a database's own syntax, and sent with their values by name.
//!
//! A file writes `{table}` for the table and `{key}` for a value. So one file serves several databases, whatever their
//! placeholders are, and one list of values serves all statements.

use std::{fmt::Write as _, sync::Arc};

use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

use super::{
    TableName,
    row::{columns, micros},
};
use crate::{
    hex::Hex,
    scope::StoreKey,
    store::{
        EndpointLabel,
        record::{Claim, ClaimMode, Held, Outcome},
        token::Token,
    },
};

/// How a database writes what a file names in braces.
#[derive(Clone, Copy)]
pub(super) struct Syntax {
    /// What encloses identifiers.
    pub(super) quote: char,
    pub(super) placeholder: Placeholder,
    /// `{now}`: the time by the database's clock.
    pub(super) now: &'static str,
    /// `{now + lease}`: that many microseconds later, written `%` here and in the following.
    pub(super) later: &'static str,
    /// `{left lease_until}`: the microseconds until that time.
    pub(super) left: &'static str,
    /// `{since created_at}`: that time in microseconds since 1970.
    pub(super) since: &'static str,
    /// `{int state}`: the column as a 64-bit integer.
    pub(super) int: &'static str,
    /// `{held}`: the record is in flight under the token.
    pub(super) held: &'static str,
}

/// How a database writes the place of a value.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(all(feature = "mysql", feature = "postgres", feature = "sqlite")),
    expect(dead_code, reason = "each is that of one database")
)]
pub(super) enum Placeholder {
    /// `$1`, the same for each use of a value.
    Dollar,
    /// `?1`, the same for each use of a value.
    Numbered,
    /// `?`, one for each use.
    Question,
}

/// A record in flight under the token, where columns have the types that they were declared with.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(super) const HELD: &str = "store_key = {key} and token = {token} and state = 0";

/// The name of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    Key,
    Fingerprint,
    Token,
    Lease,
    Ttl,
    TakeOver,
    TraceId,
    /// The token again, if the claim is transactional.
    TxToken,
    Endpoint,
    /// The token of the record that was found.
    Found,
    State,
    Response,
    Bytes,
    /// The time by this machine's clock, in microseconds since 1970.
    Clock,
    From,
    Limit,
    Attempt,
    /// A JSON object, in UTF-8.
    Event,
    /// Between which keys to list.
    After,
    Lowest,
    Highest,
    Offset,
    Kind,
    Age,
    /// What marks the transaction that was begun.
    Marker,
    /// Where a step begins in the log, and what is appended.
    At,
    Steps,
    MessageId,
    OrderKey,
    Topic,
    Payload,
    /// A message's place in the outbox.
    Seq,
    Error,
}

const PARAMETERS: [(&str, Parameter); 33] = [
    ("key", Parameter::Key),
    ("fingerprint", Parameter::Fingerprint),
    ("token", Parameter::Token),
    ("lease", Parameter::Lease),
    ("ttl", Parameter::Ttl),
    ("take_over", Parameter::TakeOver),
    ("trace_id", Parameter::TraceId),
    ("tx_token", Parameter::TxToken),
    ("endpoint", Parameter::Endpoint),
    ("found", Parameter::Found),
    ("state", Parameter::State),
    ("response", Parameter::Response),
    ("bytes", Parameter::Bytes),
    ("clock", Parameter::Clock),
    ("from", Parameter::From),
    ("limit", Parameter::Limit),
    ("attempt", Parameter::Attempt),
    ("event", Parameter::Event),
    ("after", Parameter::After),
    ("lowest", Parameter::Lowest),
    ("highest", Parameter::Highest),
    ("offset", Parameter::Offset),
    ("kind", Parameter::Kind),
    ("age", Parameter::Age),
    ("marker", Parameter::Marker),
    ("at", Parameter::At),
    ("steps", Parameter::Steps),
    ("message_id", Parameter::MessageId),
    ("order_key", Parameter::OrderKey),
    ("topic", Parameter::Topic),
    ("payload", Parameter::Payload),
    ("seq", Parameter::Seq),
    ("error", Parameter::Error),
];

/// A value of a statement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Int(i64),
    Bytes(Option<&'a [u8]>),
    Text(Option<&'a str>),
}

/// The values of a statement, by name. One that was not set is null.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a>([Value<'a>; PARAMETERS.len()]);

/// A statement for one table.
#[derive(Clone)]
pub(super) struct Statement {
    pub(super) sql: SqlStr,
    /// Its values, in the order of their placeholders.
    pub(super) parameters: Vec<Parameter>,
    /// Whether the values are sent as part of the text, since a message of several statements takes no parameters.
    pub(super) inline: bool,
    /// Whether the server should forget it at once: it is of the set-up.
    pub(super) once: bool,
}

/// The size of a response.
fn size(response: &[u8]) -> i64 {
    i64::try_from(response.len()).unwrap_or(i64::MAX)
}

impl<'a> Values<'a> {
    pub(super) fn new() -> Self {
        Self([Value::Bytes(None); PARAMETERS.len()]).with(Parameter::Endpoint, Value::Text(None))
    }

    pub(super) fn with(mut self, parameter: Parameter, value: Value<'a>) -> Self {
        self.0[parameter as usize] = value;
        self
    }

    pub(super) fn int(self, parameter: Parameter, value: i64) -> Self {
        self.with(parameter, Value::Int(value))
    }

    pub(super) fn key(self, key: &'a StoreKey) -> Self {
        self.with(Parameter::Key, Value::Bytes(Some(key.as_bytes())))
    }

    pub(super) fn token(self, parameter: Parameter, token: Option<&'a Token>) -> Self {
        let bytes = token.map(|token| &token.as_bytes()[..]);
        self.with(parameter, Value::Bytes(bytes))
    }

    pub(super) fn held(self, held: &Held) -> Self {
        self.int(Parameter::Lease, micros(held.lease))
            .int(Parameter::Ttl, micros(held.ttl))
    }

    pub(super) fn completed(self, held: &Held, outcome: &'a Outcome) -> Self {
        let (state, response) = columns(outcome);
        self.held(held)
            .int(Parameter::State, state)
            .int(Parameter::Bytes, response.map_or(0, size))
            .with(Parameter::Response, Value::Bytes(response))
    }

    pub(super) fn claim(claim: &'a Claim) -> Self {
        let trace_id = claim.trace_id.as_ref().map(|id| &id.as_bytes()[..]);
        Self::new()
            .key(&claim.key)
            .with(
                Parameter::Fingerprint,
                Value::Bytes(Some(claim.fingerprint.as_bytes())),
            )
            .token(Parameter::Token, Some(&claim.token))
            .token(Parameter::TakeOver, claim.take_over.as_ref())
            .held(&claim.held())
            .with(Parameter::TraceId, Value::Bytes(trace_id))
            .token(
                Parameter::TxToken,
                Some(&claim.token).filter(|_| claim.mode == ClaimMode::Transactional),
            )
            .with(
                Parameter::Endpoint,
                Value::Text(claim.endpoint.map(EndpointLabel::as_str)),
            )
    }

    pub(super) fn get(&self, parameter: Parameter) -> Value<'a> {
        self.0[parameter as usize]
    }
}

impl Syntax {
    /// A statement for this table.
    ///
    /// The only text that is ever inserted is the table's name. A [`TableName`] cannot contain a character that ends a
    /// quoted identifier, so inserting it is safe.
    ///
    /// # Panics
    ///
    /// If the file names in braces what is neither a value nor a word. The files are part of this crate, and a test reads
    /// all of them.
    pub(super) fn statement(&self, file: &str, table: &TableName) -> Statement {
        let (mut sql, mut parameters) = (String::new(), Vec::new());
        self.expand(&uncommented(file), table, &mut sql, &mut parameters);
        Statement {
            // Shared, so that each use costs a reference count and no copy.
            sql: AssertSqlSafe(Arc::<str>::from(sql)).into_sql_str(),
            parameters,
            inline: false,
            once: false,
        }
    }

    fn expand(
        &self,
        template: &str,
        table: &TableName,
        sql: &mut String,
        parameters: &mut Vec<Parameter>,
    ) {
        let mut rest = template;
        while let Some((before, behind)) = rest.split_once('{') {
            sql.push_str(before);
            let (word, behind) = behind.split_once('}').expect("every brace is closed");
            rest = behind;
            let parameter = PARAMETERS.iter().find(|(name, _)| *name == word);
            if let Some((_, parameter)) = parameter {
                self.place(*parameter, sql, parameters);
                continue;
            }
            let template = match word.split_once(' ') {
                None => match word {
                    "table" => self.qualified(table, ""),
                    "versions" => self.qualified(table, "_versions"),
                    "audit" => self.qualified(table, "_audit"),
                    "outbox" => self.qualified(table, "_outbox"),
                    "index" => self.quoted(table.name(), "_expiry"),
                    "purge_index" => self.quoted(table.name(), "_purge"),
                    "in_schema" => table
                        .schema()
                        .map(|schema| self.quoted(schema, "") + ".")
                        .unwrap_or_default(),
                    "name" => table.name().to_owned(),
                    "schema" => table.schema().unwrap_or_default().to_owned(),
                    "now" => self.now.to_owned(),
                    "held" => self.held.to_owned(),
                    _ => panic!("{{{word}}} is neither a value nor a word"),
                },
                Some(("now", after)) => {
                    let sum = after.replace("+ ", "{").replace(' ', "} + ") + "}";
                    self.later.replace('%', &sum)
                }
                Some(("left", column)) => self.left.replace('%', column),
                Some(("since", column)) => self.since.replace('%', column),
                Some(("int", column)) => self.int.replace('%', column),
                Some(_) => panic!("{{{word}}} is neither a value nor a word"),
            };
            self.expand(&template, table, sql, parameters);
        }
        sql.push_str(rest);
    }

    /// Writes the placeholder of a value.
    fn place(&self, parameter: Parameter, sql: &mut String, parameters: &mut Vec<Parameter>) {
        let known = parameters.iter().position(|known| *known == parameter);
        let (sign, position) = match self.placeholder {
            Placeholder::Question => ('?', None),
            Placeholder::Dollar => ('$', known),
            Placeholder::Numbered => ('?', known),
        };
        let position = position.unwrap_or_else(|| {
            parameters.push(parameter);
            parameters.len() - 1
        });
        sql.push(sign);
        if !matches!(self.placeholder, Placeholder::Question) {
            // Writing to a string does not fail.
            let _ = write!(sql, "{}", position + 1);
        }
    }

    fn qualified(&self, table: &TableName, suffix: &str) -> String {
        let name = self.quoted(table.name(), suffix);
        match table.schema() {
            Some(schema) => format!("{}.{name}", self.quoted(schema, "")),
            None => name,
        }
    }

    fn quoted(&self, name: &str, suffix: &str) -> String {
        let quote = self.quote;
        format!("{quote}{name}{suffix}{quote}")
    }
}

impl Statement {
    /// The statement with its values inserted as text: numbers, and everything else in hexadecimal.
    pub(super) fn inlined(&self, values: &Values<'_>) -> String {
        let mut pieces = self.sql.as_str().split('?');
        let mut sql = pieces.next().unwrap_or_default().to_owned();
        for (parameter, piece) in self.parameters.iter().zip(pieces) {
            // Writing to a string does not fail.
            let _ = match values.get(*parameter) {
                Value::Int(number) => write!(sql, "{number}"),
                Value::Bytes(Some(bytes)) => write!(sql, "x'{}'", Hex(bytes)),
                Value::Text(Some(text)) => write!(sql, "x'{}'", Hex(text.as_bytes())),
                Value::Bytes(None) | Value::Text(None) => write!(sql, "null"),
            };
            sql.push_str(piece);
        }
        sql
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

    const SYNTAX: Syntax = Syntax {
        quote: '"',
        placeholder: Placeholder::Dollar,
        now: "now()",
        later: "now() + (%) * interval '1 microsecond'",
        left: "% - now()",
        since: "extract(epoch from %)",
        int: "(%)::bigint",
        held: "store_key = {key} and token = {token}",
    };

    #[test]
    fn names_are_quoted_and_comments_removed() {
        let table = "app.order".parse().unwrap();
        let statement = SYNTAX.statement("-- why\nselect 1\nfrom {table};\n", &table);
        assert_eq!(statement.sql.as_str(), "select 1\nfrom \"app\".\"order\"");
        let backticks = Syntax {
            quote: '`',
            ..SYNTAX
        };
        let statement = backticks.statement("create index {index} on {versions}", &table);
        assert_eq!(
            statement.sql.as_str(),
            "create index `order_expiry` on `app`.`order_versions`"
        );
    }

    #[test]
    fn values_are_placed_by_name() {
        let (table, file) = (TableName::default(), "{now + lease + ttl}, {held}, {token}");
        let statement = SYNTAX.statement(file, &table);
        assert_eq!(
            statement.sql.as_str(),
            "now() + ($1 + $2) * interval '1 microsecond', store_key = $3 and token = $4, $4"
        );
        let questions = Syntax {
            placeholder: Placeholder::Question,
            ..SYNTAX
        };
        let statement = questions.statement(file, &table);
        let sql = statement.sql.as_str();
        assert!(sql.ends_with("store_key = ? and token = ?, ?"), "{sql}");
        assert_eq!(statement.parameters.last(), Some(&Parameter::Token));
        assert_eq!(statement.parameters.len(), 5);
    }

    #[test]
    fn inlined_values_are_numbers_and_hexadecimal_digits() {
        let questions = Syntax {
            placeholder: Placeholder::Question,
            ..SYNTAX
        };
        let statement = questions.statement("{token}, {ttl}, {trace_id}", &TableName::default());
        let token = Token::from_bytes([0xab; 16]);
        let values = Values::new()
            .token(Parameter::Token, Some(&token))
            .int(Parameter::Ttl, 7);
        let expected = format!("x'{}', 7, null", "ab".repeat(16));
        assert_eq!(statement.inlined(&values), expected);
    }
}
