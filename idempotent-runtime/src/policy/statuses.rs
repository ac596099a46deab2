//! The statuses that prove, on one route, that nothing happened.

use std::{fmt, sync::Arc};

use http::StatusCode;

/// A list of statuses: written in the code, or known only at run time. A clone copies no list.
#[derive(Clone)]
pub(crate) enum Statuses {
    /// Each checked by [`check`].
    Static(&'static [u16]),
    Shared(Arc<[StatusCode]>),
}

impl Statuses {
    pub(crate) fn contains(&self, status: StatusCode) -> bool {
        match self {
            Self::Static(list) => list.contains(&status.as_u16()),
            Self::Shared(list) => list.contains(&status),
        }
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Self::Static(&[])
    }
}

impl fmt::Debug for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(list) => list.fmt(f),
            Self::Shared(list) => f
                .debug_list()
                .entries(list.iter().map(StatusCode::as_u16))
                .finish(),
        }
    }
}

/// Panics if one of them is no status of a final response, or is listed twice.
pub(crate) const fn check(statuses: &[u16]) {
    let mut at = 0;
    while at < statuses.len() {
        assert!(
            statuses[at] >= 200 && statuses[at] <= 599,
            "release takes statuses of final responses: 200 to 599"
        );
        let mut before = 0;
        while before < at {
            assert!(
                statuses[before] != statuses[at],
                "release lists a status twice: keep one"
            );
            before += 1;
        }
        at += 1;
    }
}
