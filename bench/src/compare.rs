//! Comparing two ways of doing something, on a machine that does other things too.

use std::time::{Duration, Instant};

/// Two things that were done in turns.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The median time of one of the first.
    pub base: Duration,
    /// The median time of one of the second.
    pub other: Duration,
    /// The median over all turns of what the second took in relation to the first of the same turn. Not the ratio
    /// of the medians: whatever slowed the machine during a turn slowed both halves of it, and cancels.
    pub ratio: f64,
}

/// Does both in turns. Each closure does `count` of its kind and returns how long that took, without set-up.
///
/// # Panics
///
/// If there are no turns.
pub fn in_turns(
    turns: usize,
    count: u32,
    mut base: impl FnMut(usize) -> Duration,
    mut other: impl FnMut(usize) -> Duration,
) -> Pair {
    let mut times = Vec::with_capacity(turns);
    for turn in 0..turns {
        // Who goes first changes, so that being second is nobody's advantage.
        times.push(if turn % 2 == 0 {
            let first = base(turn);
            (first, other(turn))
        } else {
            let second = other(turn);
            (base(turn), second)
        });
    }
    Pair {
        base: median(times.iter().map(|(base, _)| *base)) / count,
        other: median(times.iter().map(|(_, other)| *other)) / count,
        ratio: median_ratio(
            times
                .iter()
                .map(|(base, other)| other.div_duration_f64(*base)),
        ),
    }
}

/// How long this takes.
pub fn timed<T>(run: impl FnOnce() -> T) -> Duration {
    let started = Instant::now();
    std::hint::black_box(run());
    started.elapsed()
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn median_ratio(ratios: impl Iterator<Item = f64>) -> f64 {
    let mut ratios: Vec<_> = ratios.collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}
