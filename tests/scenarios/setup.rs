//! Setting up an engine, and the errors that say what is wrong with the settings.

use std::{error::Error, time::Duration};

use http::StatusCode;
use idempotent_runtime::{
    BuildError, Idempotency, Policy,
    store::{StoreError, StoreErrorKind},
};

#[test]
#[should_panic(expected = "header must be a header name")]
fn a_policy_with_an_invalid_header_name_panics_where_it_is_made() {
    let _ = Policy::new().header("Idempotency Key");
}

#[test]
fn settings_that_cannot_work_are_refused_when_the_engine_is_built() {
    let second = Duration::from_secs(1);
    let built = [
        Idempotency::builder().secret("short"),
        Idempotency::builder().policy(Policy::new().name("all")),
        Idempotency::builder().policy(Policy::new().lease(second * 2).max_lifetime(second)),
        Idempotency::builder().mismatch_status(StatusCode::OK),
        Idempotency::builder().store_timeout(Duration::ZERO),
        Idempotency::builder().store_timeout(Duration::MAX),
        Idempotency::builder().max_detached(0),
        Idempotency::builder().require_transactions(),
    ];
    let expected = [
        BuildError::ShortSecret { length: 5 },
        BuildError::DefaultName { name: "all".into() },
        BuildError::LeaseOverLifetime {
            lease: second * 2,
            max_lifetime: second,
        },
        BuildError::MismatchStatus {
            status: StatusCode::OK,
        },
        BuildError::StoreTimeout {
            timeout: Duration::ZERO,
        },
        BuildError::StoreTimeout {
            timeout: Duration::MAX,
        },
        BuildError::NoRoom,
        BuildError::NoTransactions { store: "memory" },
    ];
    for (built, expected) in built.into_iter().zip(expected) {
        let error = built.build().unwrap_err();
        assert_eq!(error, expected);
        let text = error.to_string();
        assert!(
            text.chars()
                .next()
                .is_some_and(|first| !first.is_uppercase()),
            "{text}"
        );
        assert!(error.source().is_none());
    }
}

#[test]
fn a_store_error_names_its_store_says_whether_a_retry_may_help_and_keeps_its_source() {
    for (kind, transient) in [
        (StoreErrorKind::Unavailable, true),
        (StoreErrorKind::Full, false),
        (StoreErrorKind::Corrupt, false),
        (StoreErrorKind::Refused, false),
    ] {
        let error = StoreError::new("example", kind).with_source("disk 7 failed");
        assert_eq!((error.kind(), error.is_transient()), (kind, transient));
        let text = error.to_string();
        assert!(
            text.contains("example") && !text.contains("disk 7"),
            "{text}"
        );
        assert_eq!(error.source().unwrap().to_string(), "disk 7 failed");
        assert!(StoreError::new("example", kind).source().is_none());
    }
}

#[test]
#[should_panic(expected = "would make one endpoint of all routes that the layer wraps")]
fn a_layer_refuses_a_policy_with_a_name() {
    let engine = Idempotency::builder().build().unwrap();
    let _ = idempotent_runtime::IdempotencyLayer::new(engine).policy(Policy::new().name("all"));
}

#[test]
#[should_panic(expected = "lease must be at least 100 milliseconds")]
fn a_lease_that_no_heartbeat_can_keep_is_refused() {
    let _ = Policy::new().lease(Duration::from_millis(20));
}
