//! How long a wait may last.

use std::time::{Duration, Instant};

/// A point in monotonic time, or none: a wait without end.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// Waits without end.
    pub const NEVER: Deadline = Deadline(None);

    /// The moment `timeout` from now; a timeout beyond the clock's range is no deadline.
    pub fn after(timeout: Duration) -> Deadline {
        Deadline(Instant::now().checked_add(timeout))
    }

    /// What is left, zero once it has passed; None when there is no deadline.
    pub fn remaining(&self) -> Option<Duration> {
        self.0
            .map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        self.remaining().is_some_and(|left| left.is_zero())
    }
}
