//! A clock for the model checker, which must find the same time whenever it takes the same steps: it counts
//! how often it was read.

use std::sync::atomic::{AtomicU64, Ordering};

loom::lazy_static! {
    // Of the standard library: reading the clock orders nothing.
    static ref READ: AtomicU64 = AtomicU64::new(0);
}

/// Later than any time before.
pub fn now() -> u64 {
    READ.fetch_add(1, Ordering::Relaxed) + 1
}

/// The same.
pub fn tick() -> u64 {
    now()
}
