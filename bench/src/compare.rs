//! Comparing the run time of two operations on a machine with other load.

use std::time::{Duration, Instant};

/// The times of two operations that were run alternately.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The median time of one run of the first.
    pub base: Duration,
    /// The median time of one run of the second.
    pub other: Duration,
    /// The median over all turns of the ratio of the second's time to the first's in the same turn. Not the ratio of
    /// the medians: other load during a turn slows both halves of it, and cancels out.
    pub ratio: f64,
}

/// Runs both alternately. Each closure does `count` runs and returns how long they took, without set-up.
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
        // The order changes with each turn, so that neither has an advantage from being second.
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

/// The time that this takes.
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
