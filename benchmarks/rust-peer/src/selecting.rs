//! Receiver sets.

use std::time::Instant;

use ipc_channel::ipc::{self, IpcReceiverSet, IpcSelectionResult, IpcSender};

use crate::Result;
use crate::measure::{check, print, seconds_each, seconds_each_alone};

/// Sizes of the sets of [`one_of_many`].
const SIZES: [usize; 5] = [1, 10, 100, 1000, 9000];
/// Coprime to every size, so that the senders take turns and no two neighbours follow each other.
const STRIDE: usize = 7919;

fn set_of(size: usize) -> Result<(Vec<IpcSender<u64>>, Vec<u64>, IpcReceiverSet)> {
    let mut set = IpcReceiverSet::new()?;
    let mut senders = Vec::with_capacity(size);
    let mut keys = Vec::with_capacity(size);
    for _ in 0..size {
        let (sender, receiver) = ipc::channel()?;
        keys.push(set.add(receiver)?);
        senders.push(sender);
    }
    Ok((senders, keys, set))
}

/// Sends to one of many receivers and selects.
pub fn one_of_many(seconds: f64) -> Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is an rlimit that lives through both calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    for size in SIZES {
        if limit.rlim_cur < 2 * size as u64 + 100 {
            continue;
        }
        let (senders, keys, mut set) = set_of(size)?;
        for (number, (sender, key)) in senders.iter().zip(&keys).enumerate() {
            sender.send(number as u64)?;
            let mut events = set.select()?;
            check(events.len() == 1, "one message, but not one event")?;
            let (from, message) = events.remove(0).unwrap();
            check(
                from == *key && message.to::<u64>()? == number as u64,
                "another message was selected",
            )?;
        }
        let mut next = 0;
        let each = seconds_each(seconds / SIZES.len() as f64, |count| {
            let start = Instant::now();
            for _ in 0..count {
                next = (next + STRIDE) % size;
                senders[next].send(7)?;
                for event in set.select()? {
                    let (_, message) = event.unwrap();
                    message.to::<u64>()?;
                }
            }
            Ok(start.elapsed())
        })?;
        print(&size.to_string(), each);
    }
    Ok(())
}

/// Sends to the first few of many receivers and selects until all messages have come; the time of one such turn.
pub fn some_of_many(seconds: f64) -> Result<()> {
    const SHAPES: [(usize, usize); 11] = [
        (1, 1),
        (1, 5),
        (2, 5),
        (5, 5),
        (1, 20),
        (5, 20),
        (20, 20),
        (1, 100),
        (5, 100),
        (20, 100),
        (100, 100),
    ];
    for (some, size) in SHAPES {
        let (senders, _, mut set) = set_of(size)?;
        let each = seconds_each_alone(seconds / SHAPES.len() as f64, || {
            for sender in &senders[..some] {
                sender.send(7)?;
            }
            let mut received = 0;
            while received < some {
                received += set.select()?.len();
            }
            check(received == some, "more messages than were sent")
        })?;
        print(&format!("{some} of {size}"), each);
    }
    Ok(())
}

/// Makes sets and drops them, without and with waiting for the ends of streams.
pub fn sets(seconds: f64) -> Result<()> {
    for size in [0, 1, 10, 100] {
        let each = seconds_each_alone(seconds / 7.0, || {
            set_of(size)?;
            Ok(())
        })?;
        print(&format!("create {size}"), each);
    }
    for size in [1, 10, 100] {
        let each = seconds_each_alone(seconds / 7.0, || {
            let (senders, _, mut set) = set_of(size)?;
            drop(senders);
            let mut closed = 0;
            while closed < size {
                for event in set.select()? {
                    check(
                        matches!(event, IpcSelectionResult::ChannelClosed(_)),
                        "a message that nobody has sent",
                    )?;
                    closed += 1;
                }
            }
            Ok(())
        })?;
        print(&format!("ended {size}"), each);
    }
    Ok(())
}
