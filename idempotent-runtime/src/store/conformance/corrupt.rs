//! Stored bytes that cannot be read.

use std::sync::Arc;

use super::{
    Subject,
    toolbox::{completed, key, outcome_with},
};
use crate::store::{Claim, Token, error::StoreErrorKind};

/// A record whose response cannot be read is an error of kind [`Corrupt`](crate::store::StoreErrorKind::Corrupt): never
/// a panic, never an outcome, and above all never a lease. A store whose harness cannot overwrite bytes passes.
pub async fn an_unreadable_record_is_an_error_and_no_lease(subject: Arc<Subject>) {
    completed(&subject, key(1), &outcome_with("done")).await;
    let store = subject.store();
    for stored in [&b""[..], b"\0", b"\xff", &[0xff; 64], &[0; 3]] {
        if !subject.corrupt(&key(1), stored).await {
            return;
        }
        for take_over in [None, Some(Token::random())] {
            let error = store
                .acquire(&Claim {
                    take_over,
                    ..subject.claim(key(1))
                })
                .await;
            let error = error.expect_err("acquiring an unreadable record is an error");
            assert_eq!(
                error.kind(),
                StoreErrorKind::Corrupt,
                "acquire of {stored:?}"
            );
        }
        let error = store
            .get(&key(1))
            .await
            .expect_err("reading an unreadable record is an error");
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "get of {stored:?}");
    }
}
