//! How long a wait may last.

use std::time::{Duration, Instant};

/// A point in monotonic time, or none: a wait without end.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(When);

#[derive(Clone, Copy, Debug)]
enum When {
    Never,
    At(Instant),
    Passed,
}

impl Deadline {
    /// Waits without end.
    pub const NEVER: Deadline = Deadline(When::Never);

    /// Has passed: look once.
    pub const PASSED: Deadline = Deadline(When::Passed);

    /// The moment `timeout` from now; a timeout beyond the clock's range is no deadline.
    pub fn after(timeout: Duration) -> Deadline {
        Deadline(
            Instant::now()
                .checked_add(timeout)
                .map_or(When::Never, When::At),
        )
    }

    /// What is left, zero once it has passed; None when there is no deadline.
    pub fn remaining(&self) -> Option<Duration> {
        match self.0 {
            When::Never => None,
            When::At(at) => Some(at.saturating_duration_since(Instant::now())),
            When::Passed => Some(Duration::ZERO),
        }
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        self.remaining().is_some_and(|left| left.is_zero())
    }
}
