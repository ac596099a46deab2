//! Samples of memory and tasks, and whether memory is flat.

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Growth within these bounds is the allocator's.
const ROUNDING_MIB: f64 = 24.0;
const ROUNDING_SHARE: f64 = 0.1;
/// Fewer samples than this after the warm-up say nothing.
const FEWEST: usize = 8;

/// The samples of a run.
#[derive(Debug)]
pub(crate) struct Samples {
    started: Instant,
    rss: Mutex<Vec<(Duration, f64)>>,
}

impl Samples {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            rss: Mutex::default(),
        }
    }

    /// Samples the memory of this process: its resident set in MiB.
    pub(crate) fn take(&self) -> f64 {
        let rss = rss();
        let mut samples = self.rss.lock().unwrap_or_else(PoisonError::into_inner);
        samples.push((self.started.elapsed(), rss));
        rss
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// All samples so far, in MiB.
    pub(crate) fn rss(&self) -> Vec<f64> {
        let samples = self.rss.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().map(|&(_, rss)| rss).collect()
    }
}

/// What is wrong with a series of samples, in MiB: after the first third, which is the warm-up, the median of the last half
/// must not be above that of the half before.
pub(crate) fn growth(samples: &[f64]) -> Option<String> {
    let after = &samples[samples.len() / 3..];
    if after.len() < FEWEST {
        return None;
    }
    let (before, last) = after.split_at(after.len() / 2);
    let (before, last) = (median(before), median(last));
    let allowed = ROUNDING_MIB.max(before * ROUNDING_SHARE);
    (last - before > allowed).then(|| {
        format!("memory grew from {before:.0} to {last:.0} MiB, more than {allowed:.0} MiB")
    })
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The resident set of this process in MiB; zero where the system does not say.
fn rss() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
