//! Handlers of other crates, with other editions, lints and names for the runtime.
//!
//! That they compile says most; they deny all warnings.

use crate::support::{empty, exercise, json};

#[tokio::test]
async fn edition_2021() {
    use idempotent_tests_edition2021::router;
    assert_eq!(exercise(router(), empty("/none")).await.body, "");
    assert_eq!(
        exercise(router(), json("/all", "3")).await.body,
        "2021 POST 3 true"
    );
    assert_eq!(exercise(router(), json("/generic", "3")).await.body, "3");
    assert_eq!(
        exercise(router(), json("/by-path", "\"x\"")).await.body,
        "xPOST1"
    );
}

#[tokio::test]
async fn no_prelude_and_the_runtime_renamed() {
    use idempotent_tests_austere::router;
    assert_eq!(exercise(router(), empty("/none")).await.body, "");
    assert_eq!(
        exercise(router(), json("/all", "3")).await.body,
        "austere POST 3 true"
    );
}

#[tokio::test]
async fn the_runtime_reexported() {
    let answer = exercise(idempotent_tests_reexported::router(), json("/", "3")).await;
    assert_eq!(answer.body, "3 true");
}
