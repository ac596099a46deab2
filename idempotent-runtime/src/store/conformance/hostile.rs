//! Stored bytes that nobody sane wrote.

use std::sync::Arc;

use super::{
    Subject,
    toolbox::{answer, completed, key},
};
use crate::store::error::StoreErrorKind;

/// A record whose response cannot be read is an error of kind
/// [`Corrupt`](crate::store::StoreErrorKind::Corrupt): never a panic, never an outcome, and above all never
/// a lease. A store whose bytes cannot be reached passes.
pub async fn an_unreadable_record_is_an_error_and_no_lease(subject: Arc<Subject>) {
    completed(&subject, key(1), &answer("done")).await;
    let store = subject.store();
    for stored in [&b""[..], b"\0", b"\xff", &[0xff; 64], &[0; 3]] {
        if !subject.corrupt(&key(1), stored).await {
            return;
        }
        for take_over in [false, true] {
            let error = store
                .acquire(&subject.claim(key(1)).take_over(take_over))
                .await;
            let error = error.expect_err("a record that cannot be read has no answer");
            assert_eq!(
                error.kind(),
                StoreErrorKind::Corrupt,
                "acquire of {stored:?}"
            );
        }
        let error = store
            .get(&key(1))
            .await
            .expect_err("a record that cannot be read cannot be shown");
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "get of {stored:?}");
    }
}
