//! The end of the process.

use std::{
    env,
    path::Path,
    pin::Pin,
    process::{Command, abort, id},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    thread::sleep,
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::FromRequestParts,
    http::request::Parts,
    response::{IntoResponse, Response},
};
use http_body::{Frame, SizeHint};

use crate::points::Point;

/// How long an execution keeps its key when its process has ended, and an idle transaction its locks.
pub(crate) const LEASE: Duration = Duration::from_secs(1);

/// A file in the process's folder: once it is there, a process that was stopped and continued goes on.
const GO_ON: &str = "go-on";

/// Where the process does what. As an argument of a handler, it is met when the key was claimed.
#[derive(Debug)]
pub(crate) struct Fate {
    point: Option<Point>,
    stops: bool,
}

static FATE: LazyLock<Fate> = LazyLock::new(|| Fate {
    point: env::var("POINT").ok().and_then(|name| {
        let named = |point: &Point| point.name() == name;
        Point::ALL.into_iter().find(named)
    }),
    stops: env::var("ACTION").is_ok_and(|action| action == "stop"),
});

/// Whether it was met: a process that was continued goes on.
static MET: AtomicBool = AtomicBool::new(false);

impl Fate {
    pub(crate) fn is(point: Point) -> bool {
        FATE.point == Some(point)
    }

    /// If this is the point, ends the process, or stops it until it is continued.
    pub(crate) fn meet(point: Point) {
        if !Self::is(point) || MET.swap(true, Ordering::SeqCst) {
            return;
        }
        if !FATE.stops {
            abort();
        }
        let stopped = Command::new("kill")
            .args(["-STOP", &id().to_string()])
            .status();
        if !stopped.is_ok_and(|status| status.success()) {
            abort();
        }
        // Other threads may stop before this one does.
        while !Path::new(GO_ON).exists() {
            sleep(Duration::from_millis(2));
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Fate {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Self::meet(Point::BeforeTheHandler);
        Ok(Self {
            point: None,
            stops: false,
        })
    }
}

/// A response that is met when the engine reads it: the handler has returned.
#[derive(Debug)]
pub(crate) struct Fatal(Option<Bytes>);

impl Fatal {
    pub(crate) fn new(text: String) -> Self {
        Self(Some(text.into()))
    }
}

impl http_body::Body for Fatal {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Fate::meet(Point::AfterTheHandler);
        Poll::Ready(self.0.take().map(|text| Ok(Frame::data(text))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, Bytes::len) as u64)
    }
}

impl IntoResponse for Fatal {
    fn into_response(self) -> Response {
        Body::new(self).into_response()
    }
}
