//! How much memory unread messages may take.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::os::system;

/// Sets the most bytes of unread messages that one lane, or one channel to a Rust program, may hold in a process,
/// instead of a share of the memory.
pub const VARIABLE: &str = "IPC_CHANNEL_BACKLOG";

/// 0: not set.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// The limit set by [`set_limit`] or the environment; None: a share of the memory.
pub fn limit() -> Option<u64> {
    static FROM_ENVIRONMENT: OnceLock<Option<u64>> = OnceLock::new();
    match LIMIT.load(Ordering::Relaxed) {
        0 => *FROM_ENVIRONMENT.get_or_init(|| std::env::var(VARIABLE).ok()?.trim().parse().ok()),
        set => Some(set),
    }
}

/// Sets it for this process; None: a share of the memory again.
pub fn set_limit(bytes: Option<u64>) {
    LIMIT.store(bytes.unwrap_or(0), Ordering::Relaxed);
}

/// Whether a lane that holds `held` bytes may take `more`. Asked for each new chunk of an overflowing ring,
/// not for each message.
///
/// Without a limit a sixteenth of the memory stays free: beyond that the kernel would kill somebody.
pub fn admit(held: u64, more: u64) -> Result<()> {
    let remedy = "let the receiver catch up, or make the channel with capacity=, then send again";
    admit_or(held, more, remedy)
}

/// The same, of messages that wait in the sending process until a program makes room for them.
pub fn admit_kept(held: u64, more: u64) -> Result<()> {
    let remedy = "let the receiver catch up (flush waits for that), then send again";
    admit_or(held, more, remedy)
}

fn admit_or(held: u64, more: u64, remedy: &str) -> Result<()> {
    let (refuse, why) = match limit() {
        Some(limit) => (
            held + more > limit,
            format!("the limit is {limit} bytes ({VARIABLE})"),
        ),
        None => match system::memory() {
            Some(memory) => (
                memory.available < more + memory.total / 16,
                format!(
                    "of {} MiB of memory only {} MiB are available",
                    memory.total >> 20,
                    memory.available >> 20
                ),
            ),
            None => (false, String::new()),
        },
    };
    if refuse {
        return Err(Error::BacklogFull(format!(
            "this process has {} MiB of unread messages in this channel, and {why}; {remedy}",
            held >> 20
        )));
    }
    Ok(())
}
