//! A process ends at each point in the life of a request, and the client sends the request again to the next process. The
//! tables of the guide `crashes` say what the client sees, what the database holds and what the retry does; each row of
//! theirs is a test here, for each guarantee and on each database (contract, sections 1, 4 and 13).
//!
//! The points are outside of the library: in the handler and its arguments, in the response's body, around the router, and in
//! a proxy in the process that ends it when it sees a message or its reply. In SQLite, which has no messages, it is the
//! file's commit hook.

mod database;
mod points;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
mod service;
mod zombies;

use std::{fmt, thread};

use self::{
    database::Database,
    points::Point,
    service::{Answer, Service},
};

const GUIDE: &str = include_str!("../../idempotent-runtime/src/guide/crashes.md");

/// What a route promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guarantee {
    AtMostOnce,
    AtLeastOnce,
    Steps,
    Transaction,
}

/// A row of the guide's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    point: String,
    client: String,
    database: String,
    retry: String,
}

impl Guarantee {
    const ALL: [Self; 4] = [
        Self::AtMostOnce,
        Self::AtLeastOnce,
        Self::Steps,
        Self::Transaction,
    ];

    /// As the service calls it.
    fn name(self) -> &'static str {
        match self {
            Self::AtMostOnce => "at most once",
            Self::AtLeastOnce => "at least once",
            Self::Steps => "steps",
            Self::Transaction => "transaction",
        }
    }

    /// The heading of its table.
    fn heading(self) -> &'static str {
        match self {
            Self::AtMostOnce => "# At most once",
            Self::AtLeastOnce => "# At least once",
            Self::Steps => "# Steps",
            Self::Transaction => "# Exactly once, in the transaction",
        }
    }

    /// The points that its requests come to, in their order.
    fn points(self) -> Vec<Point> {
        let comes_to = |point: &Point| match point {
            Point::BeforeTheStep | Point::InTheStep | Point::AfterTheStep => self == Self::Steps,
            Point::CommitLost | Point::CommitDone => self == Self::Transaction,
            _ => self != Self::Steps,
        };
        Point::ALL.into_iter().filter(comes_to).collect()
    }

    /// The rows of its table.
    fn rows(self) -> Vec<Row> {
        let (_, section) = GUIDE.split_once(self.heading()).expect("its heading");
        let section = section.split("\n# ").next().unwrap_or_default();
        let lines = section.lines().filter(|line| line.starts_with("| "));
        let rows = lines.skip(1).map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [point, client, database, retry] = cells[..] else {
                panic!("{line}: expected four cells");
            };
            Row {
                point: point.into(),
                client: client.into(),
                database: database.into(),
                retry: retry.into(),
            }
        });
        rows.collect()
    }
}

/// What is seen of a request whose process ends at this point, and of its retry.
fn crash(database: &Database, guarantee: Guarantee, point: Point) -> Row {
    let case = format!("{guarantee:?}-{point:?}").to_lowercase();
    database.prepare(&case);
    let service = Service::new(database, guarantee.name(), &case);
    let mut first = service.start(Some((point, "abort")));
    let client = first.send();
    first.end();
    let (effects, record) = (database.effects(&case), database.record(&case));

    let second = service.start(None);
    let answer = second.send_until_final(guarantee == Guarantee::Transaction);
    let did = match &answer {
        Answer::Unknown => "`outcome_unknown`".to_owned(),
        Answer::Done { replayed: true, .. } => "replays the answer".to_owned(),
        Answer::Done { attempt: 1, .. } => "executes".to_owned(),
        Answer::Done { attempt, .. } => format!("executes as attempt {attempt}"),
        other => format!("{other:?}"),
    };
    let after = database.effects(&case);
    // Whatever it was, every later retry gets the same.
    let again = second.send_until_final(false);
    assert!(
        again.is_the_same(&answer),
        "{case}: {answer:?}, then {again:?}"
    );
    assert_eq!(database.effects(&case), after, "{case}: a later retry");
    Row {
        point: point.name().into(),
        client: client.to_string(),
        database: format!("{effects}, {record}"),
        retry: format!("{did}: {after}"),
    }
}

/// Every row of the guide's table is what is seen.
fn assert_rows(database: Option<Database>, guarantee: Guarantee) {
    let Some(database) = database else { return };
    let rows = guarantee.rows();
    thread::scope(|scope| {
        let cases: Vec<_> = guarantee
            .points()
            .into_iter()
            .filter(|point| database.has(*point))
            .map(|point| {
                let database = &database;
                (
                    point,
                    scope.spawn(move || crash(database, guarantee, point)),
                )
            })
            .collect();
        let mut wrong = Vec::new();
        for (point, case) in cases {
            let seen = case.join().expect("the case ends");
            let row = rows.iter().find(|row| row.point == point.name());
            if row != Some(&seen) {
                wrong.push(seen.to_string());
            }
        }
        assert!(
            wrong.is_empty(),
            "the guide does not have these rows:\n{}",
            wrong.join("\n")
        );
    });
}

/// The guide has a row for each case and no others, in their order.
#[test]
fn the_guide_has_a_row_for_each_point() {
    for guarantee in Guarantee::ALL {
        let rows = guarantee.rows();
        let rows: Vec<_> = rows.iter().map(|row| &*row.point).collect();
        let points: Vec<_> = guarantee.points().into_iter().map(Point::name).collect();
        assert_eq!(rows, points, "{guarantee:?}");
    }
}

#[test]
fn the_guide_says_what_a_crash_leads_to_at_most_once_on_postgres() {
    assert_rows(Database::postgres(), Guarantee::AtMostOnce);
}

#[test]
fn the_guide_says_what_a_crash_leads_to_at_most_once_on_mariadb() {
    assert_rows(Database::mariadb(), Guarantee::AtMostOnce);
}

#[test]
fn the_guide_says_what_a_crash_leads_to_at_least_once_on_postgres() {
    assert_rows(Database::postgres(), Guarantee::AtLeastOnce);
}

#[test]
fn the_guide_says_what_a_crash_leads_to_at_least_once_on_mariadb() {
    assert_rows(Database::mariadb(), Guarantee::AtLeastOnce);
}

#[test]
fn the_guide_says_what_a_crash_leads_to_around_steps_on_postgres() {
    assert_rows(Database::postgres(), Guarantee::Steps);
}

#[test]
fn the_guide_says_what_a_crash_leads_to_around_steps_on_mariadb() {
    assert_rows(Database::mariadb(), Guarantee::Steps);
}

#[test]
fn the_guide_says_what_a_crash_leads_to_in_a_transaction_on_postgres() {
    assert_rows(Database::postgres(), Guarantee::Transaction);
}

#[test]
fn the_guide_says_what_a_crash_leads_to_in_a_transaction_on_mariadb() {
    assert_rows(Database::mariadb(), Guarantee::Transaction);
}

#[test]
fn the_guide_says_what_a_crash_leads_to_in_a_transaction_on_sqlite() {
    assert_rows(Some(Database::sqlite()), Guarantee::Transaction);
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            point,
            client,
            database,
            retry,
        } = self;
        write!(f, "| {point} | {client} | {database} | {retry} |")
    }
}
