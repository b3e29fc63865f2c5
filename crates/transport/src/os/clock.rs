//! Clocks in nanoseconds.

use rustix::time::{ClockId, clock_gettime};

/// Monotonic time, the same in every process (of one time namespace).
pub fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The same, as of the kernel's last tick: cheaper, and milliseconds old.
pub fn tick() -> u64 {
    nanoseconds(ClockId::MonotonicCoarse)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    (time.tv_sec as u64).wrapping_mul(1_000_000_000) + time.tv_nsec as u64
}
