//! Handlers of other crates, with other editions, lints and names for the runtime.
//!
//! They deny all warnings, so the main check is that they compile.

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
async fn a_crate_without_prelude_that_renames_the_runtime() {
    use idempotent_tests_austere::router;
    assert_eq!(exercise(router(), empty("/none")).await.body, "");
    assert_eq!(
        exercise(router(), json("/all", "3")).await.body,
        "austere POST 3 true"
    );
}

#[tokio::test]
async fn a_crate_that_takes_the_runtime_from_another_one() {
    let response = exercise(idempotent_tests_reexported::router(), json("/", "3")).await;
    assert_eq!(response.body, "3 true");
}
