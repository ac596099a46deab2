//! Keeps the panics that the run plans out of its output.

use std::{panic, sync::Once};

use crate::service::PLANNED;

/// What tokio says when a handler that blocked its thread goes on in a process that was killed meanwhile.
const KILLED: &str = "A Tokio 1.x context was found, but it is being shutdown.";

/// From here on only panics that are not planned are printed.
pub(crate) fn planned_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let printed = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let text = panic.payload().downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.payload().downcast_ref().map(String::as_str));
            if text != Some(PLANNED) && text != Some(KILLED) {
                printed(panic);
            }
        }));
    });
}
