//! Processes that stop in their transaction, and go on when another has taken their key over: they commit nothing, and hold
//! their locks no longer than the idle limit of their session, which is the lease.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    Guarantee,
    database::Database,
    points::Point,
    servers::until,
    service::{Answer, Service, send},
};

/// The lease of the service.
const LEASE: Duration = Duration::from_secs(1);

/// Well beyond the lease, the idle limit after it, a wait for a lock and the start of a process, on a slow machine.
const LONGEST: Duration = Duration::from_secs(10);

fn is_overtaken(database: &Database, point: Point) {
    let case = format!("zombie-{point:?}").to_lowercase();
    database.prepare(&case);
    let service = Service::new(database, Guarantee::Transaction.name(), &case);
    let zombie = service.start(Some((point, "stop")));
    let next = service.start(None);
    let port = zombie.port;
    thread::scope(|scope| {
        let name = &case;
        let begun = Instant::now();
        let late = scope.spawn(move || send(port, name));
        until("the zombie's claim", || {
            (database.record(name) == "a record in flight").then_some(())
        });
        // The next process executes as soon as it may, and waits for the row that both change.
        let answer = next.send_until_final(true);
        let waited = begun.elapsed();
        assert_eq!(
            answer,
            Answer::Done {
                attempt: 2,
                replayed: false
            },
            "{case}: the next process executes"
        );
        assert!(
            waited > LEASE / 2,
            "{case}: {waited:?}, nothing was stopped"
        );
        assert!(
            waited < LONGEST,
            "{case}: the locks were held for {waited:?}"
        );
        assert_eq!(database.effects(&case), "one effect", "{case}");

        service.go_on(&zombie);
        let late = late.join().expect("an answer");
        assert!(
            late.is_the_same(&answer) || matches!(late, Answer::Later(_) | Answer::Unknown),
            "{case}: {late:?}"
        );
        assert_eq!(
            zombie.send_until_final(true),
            answer.clone().again(),
            "{case}"
        );
        assert_eq!(
            database.effects(&case),
            "one effect",
            "{case}: the zombie's"
        );
        assert_eq!(database.record(&case), "the outcome", "{case}");
        let count = format!("select n from counters where name = '{case}'");
        assert_eq!(database.number(&count), 1, "{case}");
    });
}

impl Answer {
    /// As it is replayed.
    fn again(self) -> Self {
        match self {
            Self::Done { attempt, .. } => Self::Done {
                attempt,
                replayed: true,
            },
            other => other,
        }
    }
}

fn are_overtaken(database: Option<Database>) {
    let Some(database) = database else { return };
    thread::scope(|scope| {
        for point in [
            Point::BeforeItsEffect,
            Point::AfterItsEffect,
            Point::AfterTheHandler,
            Point::CompletionLost,
            Point::CompletionDone,
            Point::CommitLost,
        ] {
            let database = &database;
            scope.spawn(move || is_overtaken(database, point));
        }
    });
}

#[test]
fn a_stopped_process_commits_nothing_and_holds_its_locks_no_longer_than_its_lease_on_postgres() {
    are_overtaken(Database::postgres());
}

#[test]
fn a_stopped_process_commits_nothing_and_holds_its_locks_no_longer_than_its_lease_on_mariadb() {
    are_overtaken(Database::mariadb());
}
