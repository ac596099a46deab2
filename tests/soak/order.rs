//! What each key asks for: its route, what its handler does, and its two request bodies.

use std::time::Duration;

use crate::{random::Random, support::TestRequest};

/// The lease of every route.
pub(crate) const LEASE: Duration = Duration::from_secs(1);
/// The longest that an execution keeps its lease.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(4);
/// The ttl of [`Route::Brief`].
pub(crate) const BRIEF_TTL: Duration = Duration::from_secs(2);
/// The largest response that is stored.
pub(crate) const MAX_RESPONSE: usize = 16 << 10;

/// What protects the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    Attribute,
    Layer,
    /// Nothing: the control, which finds executions to be double.
    None,
}

/// The policy of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// All defaults: a crash makes the outcome unknown.
    Refuse,
    /// The same, and duplicates do not wait.
    NoWait,
    /// A crash is executed again.
    Retry,
    /// As `Refuse`, with outcomes that expire within the run.
    Brief,
}

/// What the handler of a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Takes this long, without blocking.
    Takes(Duration),
    /// Blocks its thread for this long.
    Blocks(Duration),
    /// Blocks for this long in `block_in_place`.
    BlocksInPlace(Duration),
    /// Streams a response of unknown size, with a pause of this length before each piece.
    Streams(Duration),
    /// Responds with an error of its own, which is an outcome.
    Fails,
    /// Responds with more than is stored.
    Floods,
    /// Panics before its effect; under `retry` only the first so many times.
    Panics(u32),
    /// Panics after its effect.
    PanicsLate,
    /// Its response body panics half-way.
    PanicsInBody,
    /// Its response body breaks off half-way.
    BreaksOff,
    /// Responds that nothing happened so many times (429), then works.
    Refuses(u32),
    /// The same, by `Retention::Release`.
    Releases(u32),
    /// Its extractor rejects the request so many times, then it works.
    Rejects(u32),
    /// Its extractor panics so many times, then it works.
    PanicsExtracting(u32),
}

/// What is asked for under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) key: u64,
    pub(crate) protection: Protection,
    pub(crate) route: Route,
    pub(crate) work: Work,
    /// The bytes of its response besides the first line.
    pub(crate) size: usize,
    /// Whether some of its requests ask for something else.
    pub(crate) rivals: bool,
}

impl Protection {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Attribute => "attribute",
            Self::Layer => "layer",
            Self::None => "none",
        }
    }
}

impl Route {
    pub(crate) const ALL: [Self; 4] = [Self::Refuse, Self::NoWait, Self::Retry, Self::Brief];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::NoWait => "no-wait",
            Self::Retry => "retry",
            Self::Brief => "brief",
        }
    }
}

impl Order {
    /// A random order under this key.
    pub(crate) fn random(key: u64, protection: Protection, random: &mut Random) -> Self {
        let route = match random.between(0, 99) {
            0..45 => Route::Refuse,
            45..60 => Route::NoWait,
            60..90 => Route::Retry,
            _ => Route::Brief,
        };
        let size = match random.between(0, 9) {
            0 => random.between(1000, 8000),
            _ => random.between(0, 600),
        };
        Self {
            key,
            protection,
            route,
            work: work(route, random),
            size: usize::try_from(size).unwrap_or_default(),
            rivals: route != Route::Brief && random.between(0, 19) == 0,
        }
    }

    /// An order whose execution never ends.
    pub(crate) const fn endless(key: u64) -> Self {
        Self {
            key,
            protection: Protection::Layer,
            route: Route::Refuse,
            work: Work::Takes(Duration::from_secs(3600)),
            size: 0,
            rivals: false,
        }
    }

    /// The client's key.
    pub(crate) fn name(&self) -> String {
        format!("soak-{}", self.key)
    }

    /// The name of its endpoint.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}-{}", self.protection.name(), self.route.name())
    }

    /// The request, or the other one that has the same key.
    pub(crate) fn request(&self, rival: bool) -> TestRequest {
        let amount = if rival { "another amount" } else { "an amount" };
        TestRequest::post(format!("/{}/{}", self.protection.name(), self.route.name()))
            .key(&self.name())
            .body(format!("{{\"order\":{},\"of\":\"{amount}\"}}", self.key))
    }
}

/// The number in a client's key.
pub(crate) fn number(key: &str) -> Option<u64> {
    key.strip_prefix("soak-")?.parse().ok()
}

/// Whether a body asks for the other thing.
pub(crate) fn is_rival(body: &[u8]) -> bool {
    body.ends_with(b"\"another amount\"}")
}

fn work(route: Route, random: &mut Random) -> Work {
    let times = u32::try_from(random.between(1, 2)).unwrap_or(1);
    let pause = match random.between(0, 99) {
        0..40 => Duration::ZERO,
        40..88 => random.millis(1, 200),
        // Longer than a lease, and than a lifetime.
        88..99 => LEASE + random.millis(100, 1500),
        _ => MAX_LIFETIME + random.millis(100, 800),
    };
    let blocked = match random.between(0, 9) {
        0 => LEASE + random.millis(50, 600),
        _ => random.millis(1, 150),
    };
    match (route, random.between(0, 99)) {
        (Route::Brief, _) => Work::Takes(pause.min(Duration::from_millis(200))),
        (_, 0..50) => Work::Takes(pause),
        (_, 50..56) => Work::Blocks(blocked),
        (_, 56..62) => Work::BlocksInPlace(blocked),
        (_, 62..70) => Work::Streams(random.millis(0, 40)),
        (_, 70..76) => Work::Panics(times),
        (Route::Retry, 76..88) => Work::Takes(LEASE + random.millis(100, 1500)),
        (Route::Retry, _) => Work::Takes(random.millis(1, 400)),
        (_, 76..79) => Work::Fails,
        (_, 79..81) => Work::Floods,
        (_, 81..84) => Work::PanicsLate,
        (_, 84..86) => Work::PanicsInBody,
        (_, 86..88) => Work::BreaksOff,
        (_, 88..91) => Work::Refuses(times),
        (_, 91..94) => Work::Releases(times),
        (_, 94..97) => Work::Rejects(times),
        _ => Work::PanicsExtracting(times),
    }
}
