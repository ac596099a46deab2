//! With all rules every invariant holds, nobody is stuck, and what the model is there for does happen.
//!
//! Each exploration has its own bounds: many faults with few requests, or few with many. `--cfg idempotent_wide` adds
//! wider ones, which take minutes.

use idempotent_model::{
    Check, Invariant, Policy,
    request::{Answer, Execution},
    world::World,
};

fn refuse() -> Check {
    Check::new(Policy::Refuse)
}

fn retry() -> Check {
    Check::new(Policy::Retry)
}

fn recover() -> Check {
    Check::new(Policy::Recover)
}

mod every_invariant_holds {
    use super::{recover, refuse, retry};

    #[test]
    fn with_faults_and_a_crash() {
        refuse().faults(3).crashes(1).holds();
    }

    #[test]
    fn with_faults_and_take_overs() {
        retry().faults(2).holds();
    }

    #[test]
    fn with_faults_and_a_recovery_function() {
        recover().faults(1).crashes(1).holds();
    }

    #[test]
    fn with_faults_in_one_process() {
        refuse().requests(2, 0).faults(3).holds();
        retry().requests(2, 0).faults(2).holds();
    }

    #[test]
    fn with_three_requests_and_a_fault() {
        refuse().requests(2, 1).faults(1).lives(1).holds();
    }

    #[test]
    fn with_three_requests_and_a_crash() {
        refuse().requests(2, 1).crashes(1).holds();
    }

    #[test]
    fn with_three_requests_a_crash_and_take_overs() {
        retry()
            .requests(2, 1)
            .crashes(1)
            .lives(1)
            .times(1, 2, 0)
            .holds();
    }

    #[test]
    fn with_three_requests_and_a_recovery_function() {
        recover().requests(2, 1).lives(1).times(1, 2, 0).holds();
    }

    #[test]
    fn with_longer_times() {
        refuse().faults(1).crashes(1).times(2, 3, 2).holds();
        retry().faults(1).times(2, 3, 2).holds();
    }

    #[test]
    fn with_another_payload() {
        refuse().faults(2).other_payload().holds();
        retry().faults(1).other_payload().holds();
    }

    #[test]
    fn with_a_client_that_leaves() {
        refuse().faults(2).departures(1).holds();
        retry().faults(1).departures(1).holds();
    }

    #[test]
    fn with_a_shutdown() {
        refuse().faults(2).shutdowns(1).holds();
        retry().faults(1).shutdowns(1).holds();
    }

    #[test]
    fn with_lost_notifications() {
        refuse().requests(2, 1).lost_notifications().holds();
        refuse()
            .requests(2, 0)
            .faults(2)
            .lost_notifications()
            .holds();
    }
}

mod everybody_has_an_answer_within_reach {
    use super::{recover, refuse, retry};

    #[test]
    fn after_faults_and_a_crash() {
        refuse().faults(1).crashes(1).stays_within_reach();
    }

    #[test]
    fn after_a_crash_and_take_overs() {
        retry().crashes(1).stays_within_reach();
    }

    #[test]
    fn after_a_crash_and_with_a_recovery_function() {
        recover().crashes(1).stays_within_reach();
    }

    #[test]
    fn after_lost_notifications() {
        refuse()
            .requests(2, 0)
            .faults(1)
            .lost_notifications()
            .stays_within_reach();
    }

    #[test]
    fn with_three_requests() {
        refuse()
            .requests(2, 1)
            .lives(1)
            .times(1, 2, 0)
            .stays_within_reach();
    }
}

/// A model in which nothing happens satisfies every invariant.
mod it_can_happen_that {
    use super::{Answer, Execution, World, recover, refuse, retry};

    #[test]
    fn an_outcome_is_replayed() {
        let replayed = |world: &World| {
            world
                .all()
                .any(|(id, one)| matches!(one.answer, Some(Answer::Outcome(of)) if of != id))
        };
        refuse().can(replayed);
    }

    #[test]
    fn a_key_executes_again_after_it_expired() {
        let both = |world: &World| {
            world
                .requests
                .iter()
                .filter(|one| one.execution == Execution::Effect)
                .count()
                == 2
                && world.life == 1
        };
        refuse().can(both);
    }

    #[test]
    fn a_key_executes_after_it_was_released() {
        let both = |world: &World| {
            let did = |what: Execution| world.requests.iter().any(|one| one.execution == what);
            did(Execution::Released) && did(Execution::Effect) && world.life == 0
        };
        refuse().can(both);
    }

    #[test]
    fn an_outcome_is_stored_after_its_client_heard_that_it_is_unknown() {
        let late = |world: &World| {
            let outcome = world.record.and_then(|record| record.outcome);
            outcome.is_some_and(|outcome| world[outcome].answer == Some(Answer::OutcomeUnknown))
        };
        refuse().faults(2).can(late);
    }

    #[test]
    fn a_crashed_execution_is_executed_again() {
        let again = |world: &World| {
            world
                .record
                .is_some_and(|record| record.attempt == 2 && !record.in_flight())
                && world
                    .requests
                    .iter()
                    .any(|one| one.lost && one.execution == Execution::Started)
        };
        retry().crashes(1).can(again);
    }

    #[test]
    fn an_execution_that_was_fenced_out_shows_the_outcome_of_the_winner() {
        let fenced = |world: &World| {
            world.all().any(|(id, one)| {
                one.execution == Execution::Effect
                    && matches!(one.answer, Some(Answer::Outcome(of)) if of != id)
            })
        };
        retry().can(fenced);
    }

    #[test]
    fn a_recovery_function_finds_the_outcome_of_a_dead_process() {
        let found = |world: &World| {
            world.all().any(|(id, one)| {
                one.execution == Execution::Recovered && one.answer == Some(Answer::Outcome(id))
            })
        };
        recover().crashes(1).can(found);
    }
}

/// What the contract builds on: stores bound the time that an operation may be on its way, below the ttl.
#[test]
fn an_acquire_that_arrives_after_the_ttl_is_beyond_every_rule() {
    refuse()
        .faults(1)
        .times(1, 1, 3)
        .breaks(Invariant::NoKeyBlocked);
}

#[cfg(idempotent_wide)]
mod wider {
    use super::{recover, refuse, retry};

    #[test]
    fn refuse_with_three_requests_and_a_fault() {
        refuse().requests(2, 1).faults(1).holds();
    }

    #[test]
    fn refuse_with_three_requests_and_two_faults() {
        refuse().requests(2, 1).faults(2).lives(1).holds();
    }

    #[test]
    fn refuse_with_three_requests_and_each_mishap() {
        refuse()
            .requests(2, 1)
            .faults(1)
            .departures(1)
            .lives(1)
            .holds();
        refuse()
            .requests(2, 1)
            .faults(1)
            .shutdowns(1)
            .lives(1)
            .holds();
        refuse()
            .requests(2, 1)
            .faults(1)
            .lives(1)
            .other_payload()
            .holds();
    }

    #[test]
    fn retry_with_three_requests_a_fault_and_a_crash() {
        retry()
            .requests(2, 1)
            .faults(1)
            .crashes(1)
            .lives(1)
            .times(1, 2, 0)
            .holds();
    }

    #[test]
    fn retry_with_three_requests_and_a_crash() {
        retry().requests(2, 1).crashes(1).times(1, 2, 0).holds();
    }

    #[test]
    fn recover_with_three_requests_and_a_fault() {
        recover()
            .requests(2, 1)
            .faults(1)
            .lives(1)
            .times(1, 2, 0)
            .holds();
    }

    #[test]
    fn recover_with_three_requests_and_a_crash() {
        recover().requests(2, 1).crashes(1).lives(1).holds();
    }

    #[test]
    fn retry_and_recover_with_more_faults() {
        retry().faults(3).holds();
        recover().faults(2).crashes(1).holds();
    }
}
