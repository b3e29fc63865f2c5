//! How long who waits for news looks for them before he sleeps.
//!
//! A receiver that has lanes looks there, and learns by itself. Others ask the kernel again and again. They are mostly
//! new, such as the receiver of a single answer, and would learn nothing in their lives: each thread learns for all.
//!
//! Who looks gives way to others: among more processes than processors, the one that is to send next would wait.
//!
//! If a wait was short, it would have been better spent looking; after a long one there is less looking next time, and
//! soon none. Two processes that wait for nothing but each other's messages could go on like this for ever: each sleeps
//! because the other one does, for as long as it takes to wake two processes. So after some waits of such a length a
//! receiver looks for the whole time once more. Then the other one's answer comes sooner than that, and ours sooner to
//! it: both have waited for short.
//!
//! # Signals
//! Python only notes a signal when it comes, and heeds it when the main thread's wait ends, which the signal does by
//! itself if the thread sleeps already. What came before that, between the last look for signals and the sleep, or was
//! noted by another thread, would be heeded with the next message. So the main thread sleeps in slices, of a twentieth of a
//! second, of seven times the wait so far, and of ten seconds in the end, and looks for signals in between. There are
//! three in ten seconds: each wakes up a process that has better things to do, and a processor.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::os::{clock, process, system};

const FIRST_NS: u64 = 20_000;
/// About as long as a peer takes that has to make an answer with a channel in it.
const LONGEST_NS: u64 = 100_000;
/// Of a wait that ended in a sleep, so much is the waking.
const WAKE_UP_NS: u64 = 100_000;
/// Waking two processes does not take longer, unless the processors are busy; then looking is no help either.
const TWO_WAKE_UPS_NS: u64 = 400_000;
/// A try costs the longest look, so this many waits lose little by it.
const TRY_AFTER: u32 = 16;
/// A shorter look costs more than it can save.
const SHORTEST_NS: u64 = 1_000;
const FIRST_SLICE_NS: u64 = 50_000_000;
/// The next slice in the length of the wait so far.
const SLICE_FACTOR: u64 = 7;
const LONGEST_SLICE_NS: u64 = 10_000_000_000;

/// See the module. Threads that share it may lose each other's changes: it is a guess anyway.
#[derive(Debug)]
pub struct Spin {
    limit: AtomicU64,
    /// Waits since the last try that two wake-ups could explain.
    in_vain: AtomicU32,
}

thread_local! {
    /// What this thread has learned from waits that only the kernel could end early.
    pub static OF_THIS_THREAD: Spin = const { Spin::fresh() };
    /// A wait that was broken off, so that signals are heeded: the next one in the same call goes on with it.
    static SENT_BACK: Cell<Option<Begun>> = const { Cell::new(None) };
}

/// The beginning of a wait.
#[derive(Clone, Copy, Debug)]
struct Begun {
    at: u64,
    looked: bool,
}

impl Begun {
    /// The next wait of this call begins with the sleep.
    fn send_back(self) -> Error {
        SENT_BACK.set(Some(self));
        Error::Interrupted
    }

    fn sleep(self, deadline: Deadline, sleep: impl FnOnce(Deadline) -> Result<()>) -> Result<()> {
        if !process::may_have_noted_signals() {
            return sleep(deadline);
        }
        let slice =
            (SLICE_FACTOR * (clock::now() - self.at)).clamp(FIRST_SLICE_NS, LONGEST_SLICE_NS);
        let slice = Duration::from_nanos(slice);
        if deadline.remaining().is_some_and(|left| left <= slice) {
            return sleep(deadline);
        }
        match sleep(Deadline::after(slice)) {
            Err(Error::TimedOut) => Err(self.send_back()),
            outcome => outcome,
        }
    }
}

/// A call that comes again while it is sent back. Its waits have nothing to do with those of other calls: the next one,
/// or the one in whose signal handler this one is.
#[derive(Debug)]
pub struct Call {
    outer: Option<Begun>,
}

impl Call {
    /// Before the first wait.
    pub fn begin() -> Call {
        Call {
            outer: SENT_BACK.take(),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        SENT_BACK.set(self.outer);
    }
}

/// Sleeps until the deadline without a look before. [`Error::Interrupted`] as in [`Spin::wait`].
pub fn sleep(deadline: Deadline, sleep: impl FnOnce(Deadline) -> Result<()>) -> Result<()> {
    let begun = SENT_BACK.take().unwrap_or_else(|| Begun {
        at: clock::now(),
        looked: false,
    });
    begun.sleep(deadline, sleep)
}

impl Spin {
    /// Of somebody who has not waited yet.
    pub const fn fresh() -> Spin {
        Spin {
            limit: AtomicU64::new(FIRST_NS),
            in_vain: AtomicU32::new(0),
        }
    }

    /// How long to look, in nanoseconds, if no longer than `most`. None: not at all.
    pub fn patience(&self, most: u64) -> Option<u64> {
        let limit = self.limit().min(most);
        // Only beside another core can somebody send meanwhile.
        (limit >= SHORTEST_NS && system::has_several_cores()).then_some(limit)
    }

    /// Waits for news until the deadline: with `look`, for so many nanoseconds, and in vain with `sleep`.
    ///
    /// [`Error::Interrupted`] also between the two, and now and then in the sleep, if this thread is to heed signals: see
    /// the module, and [`process::signals_are_noted`]. The caller comes again.
    pub fn wait(
        &self,
        deadline: Deadline,
        look: impl FnOnce(u64) -> bool,
        sleep: impl FnOnce(Deadline) -> Result<()>,
    ) -> Result<()> {
        let begun = match SENT_BACK.take() {
            Some(begun) => begun,
            None => {
                let at = clock::now();
                let left = deadline.remaining().map_or(u64::MAX, |left| {
                    left.as_nanos().try_into().unwrap_or(u64::MAX)
                });
                let patience = self.patience(left);
                if patience.is_some_and(look) {
                    self.seen();
                    return Ok(());
                }
                let looked = patience.is_some();
                let begun = Begun { at, looked };
                // Who has not looked has seen to signals just now.
                if looked && left > 0 && process::may_have_noted_signals() {
                    return Err(begun.send_back());
                }
                begun
            }
        };
        let outcome = begun.sleep(deadline, sleep);
        match outcome {
            Ok(()) => self.waited(clock::now() - begun.at),
            // The wait goes on.
            Err(_) if SENT_BACK.get().is_some() => {}
            // Nothing came, however soon the sleep was over: it was no use to look.
            Err(_) if begun.looked => self.waited(TWO_WAKE_UPS_NS),
            Err(_) => {}
        }
        outcome
    }

    fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// A look was not in vain. Less than what one in vain takes away: by turns they leave nothing.
    fn seen(&self) {
        let limit = self.limit();
        if limit < LONGEST_NS {
            let limit = (limit + limit / 4).min(LONGEST_NS);
            self.limit.store(limit, Ordering::Relaxed);
        }
    }

    /// With the look in vain and the sleep it took so many nanoseconds until something came.
    fn waited(&self, nanoseconds: u64) {
        let limit = self.limit();
        let in_vain = self.in_vain.load(Ordering::Relaxed);
        let (limit, in_vain) = if nanoseconds < LONGEST_NS + WAKE_UP_NS {
            if limit < LONGEST_NS {
                ((limit * 2).clamp(FIRST_NS, LONGEST_NS), 0)
            } else {
                // Just too late for the longest look. It may have been a moment's disturbance, or be so each time.
                (FIRST_NS / 2, 0)
            }
        } else if nanoseconds >= TWO_WAKE_UPS_NS {
            (limit / 2, in_vain)
        } else if in_vain + 1 < TRY_AFTER {
            (limit / 2, in_vain + 1)
        } else {
            (LONGEST_NS, 0)
        };
        self.limit.store(limit, Ordering::Relaxed);
        self.in_vain.store(in_vain, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    #[test]
    fn who_sleeps_for_long_soon_looks_no_more() {
        let spin = Spin::fresh();
        for _ in 0..16 {
            spin.waited(MILLISECOND);
        }
        for _ in 0..100 {
            assert_eq!(spin.limit(), 0);
            spin.waited(MILLISECOND);
        }
    }

    #[test]
    fn short_sleeps_are_spent_looking() {
        let spin = Spin::fresh();
        for _ in 0..100 {
            spin.waited(MILLISECOND);
        }
        for _ in 0..4 {
            spin.waited(30_000);
        }
        assert_eq!(spin.limit(), LONGEST_NS);
    }

    #[test]
    fn looks_that_pay_get_longer_again_after_one_in_vain() {
        let spin = Spin::fresh();
        spin.waited(MILLISECOND);
        for _ in 0..16 {
            spin.seen();
        }
        assert_eq!(spin.limit(), LONGEST_NS);
        for _ in 0..100 {
            spin.seen();
            spin.waited(MILLISECOND);
        }
        assert_eq!(spin.patience(u64::MAX), None);
    }

    fn wait(spin: &Spin, timeout: Duration, outcome: Result<()>) -> u64 {
        let mut looked = 0;
        let look = |most| {
            looked = most;
            false
        };
        let waited = spin.wait(Deadline::after(timeout), look, |_| outcome);
        assert!(matches!(waited, Err(Error::TimedOut)));
        looked
    }

    /// Breaks when a sleep that the deadline ended counts as one that news have ended.
    #[test]
    fn who_has_no_time_learns_nothing_from_it() {
        let spin = Spin::fresh();
        for _ in 0..16 {
            spin.waited(MILLISECOND);
        }
        for _ in 0..16 {
            wait(&spin, Duration::ZERO, Err(Error::TimedOut));
        }
        assert_eq!(spin.limit(), 0);
    }

    #[test]
    fn who_looks_until_the_deadline_in_vain_soon_looks_no_more() {
        const TIMEOUT: Duration = Duration::from_micros(50);
        let spin = Spin::fresh();
        let looks = (0..16).map(|_| wait(&spin, TIMEOUT, Err(Error::TimedOut)));
        let looks: Vec<u64> = looks.collect();
        assert_eq!(looks.last(), Some(&0), "{looks:?}");
    }

    #[test]
    fn the_look_counts_too() {
        let spin = Spin::fresh();
        let look = |_| {
            std::thread::sleep(Duration::from_nanos(TWO_WAKE_UPS_NS));
            false
        };
        spin.wait(Deadline::NEVER, look, |_| Ok(())).unwrap();
        assert!(spin.limit() < FIRST_NS || !system::has_several_cores());
    }

    /// The mean of the limits while news come so often.
    fn mean_limit(nanoseconds: u64) -> u64 {
        let spin = Spin::fresh();
        let limits = (0..1600).map(|_| {
            spin.waited(nanoseconds);
            spin.limit()
        });
        let limits: Vec<u64> = limits.collect();
        assert!(limits.chunks(100).all(|some| some.contains(&LONGEST_NS)));
        limits.iter().sum::<u64>() / limits.len() as u64
    }

    /// Breaks when two processes that answer each other, and were disturbed once, sleep each time from then on.
    #[test]
    fn waits_that_two_wake_ups_explain_are_tried_against_now_and_then() {
        assert!(mean_limit(TWO_WAKE_UPS_NS - 1) < LONGEST_NS / 5);
    }

    /// Breaks when news that always come just after the longest look keep it that long.
    #[test]
    fn who_is_always_late_looks_for_half_of_the_time() {
        assert!(mean_limit(LONGEST_NS + WAKE_UP_NS - 1) <= LONGEST_NS / 2);
    }
}
