//! How long to measure, and how a figure is printed.

use std::time::{Duration, Instant};

use crate::Result;

/// The part of the time that the search for the right count may take.
const SEARCH_SHARE: f64 = 8.0;

/// Runs `run` with growing counts until one takes about `seconds`; seconds for each of its operations.
///
/// `run` does the given number of operations and returns how long they took.
pub fn seconds_each(seconds: f64, mut run: impl FnMut(u64) -> Result<Duration>) -> Result<f64> {
    let mut count: u64 = 16;
    loop {
        let took = run(count)?.as_secs_f64().max(1e-9);
        if took >= seconds / SEARCH_SHARE {
            count = ((count as f64 * seconds / took) as u64).max(1);
            break;
        }
        count = count.saturating_mul(4);
    }
    Ok(run(count)?.as_secs_f64() / count as f64)
}

/// As [`seconds_each`], for operations that need no second process.
pub fn seconds_each_alone(seconds: f64, mut operation: impl FnMut() -> Result<()>) -> Result<f64> {
    seconds_each(seconds, |count| {
        let start = Instant::now();
        for _ in 0..count {
            operation()?;
        }
        Ok(start.elapsed())
    })
}

/// The value that the given share of `samples` does not exceed.
pub fn quantile(samples: &mut [u64], share: f64) -> u64 {
    samples.sort_unstable();
    let index = (samples.len() as f64 * share) as usize;
    samples[index.min(samples.len() - 1)]
}

/// Nanoseconds of the clock that all processes share.
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a timespec that lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Prints one figure.
pub fn print(name: &str, value: f64) {
    println!("{name}\t{value:e}");
}

/// An error unless what came through is what was sent.
pub fn check(right: bool, what: &str) -> Result<()> {
    if right {
        Ok(())
    } else {
        Err(format!("wrong: {what}").into())
    }
}
