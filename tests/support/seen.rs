//! What a client has seen of a response that is not whole yet.

use std::sync::{Arc, Mutex};

/// What has arrived of a response so far: nothing, or its head and these bytes. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Option<Vec<u8>>>>);

impl Seen {
    /// `None` before the head has arrived.
    pub(crate) fn so_far(&self) -> Option<String> {
        let seen = self.0.lock().unwrap();
        Some(String::from_utf8(seen.clone()?).unwrap())
    }

    pub(super) fn head(&self) {
        self.0.lock().unwrap().get_or_insert_default();
    }

    pub(super) fn piece(&self, piece: &[u8]) {
        let mut seen = self.0.lock().unwrap();
        seen.get_or_insert_default().extend_from_slice(piece);
    }
}
