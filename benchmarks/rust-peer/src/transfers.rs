//! Data and ends from a thread to itself, as the crate's own benchmarks do it.

use std::thread;

use ipc_channel::ipc::{self, IpcReceiver, IpcSender};

use crate::Result;
use crate::measure::{check, print, seconds_each_alone};

/// Names and sizes of the messages.
const SIZES: [(&str, usize); 8] = [
    ("1 B", 1),
    ("64 B", 64),
    ("1 KiB", 1 << 10),
    ("16 KiB", 16 << 10),
    ("64 KiB", 64 << 10),
    ("256 KiB", 256 << 10),
    ("1 MiB", 1 << 20),
    ("8 MiB", 8 << 20),
];
/// From here on a message is cut into fragments, and somebody must receive while it is sent.
const FRAGMENTED: usize = 128 << 10;

/// Sends and receives bytes of many sizes.
pub fn bytes(seconds: f64) -> Result<()> {
    let (sender, receiver) = ipc::bytes_channel()?;
    for (name, size) in SIZES {
        let data: Vec<u8> = (0..size).map(|number| (number % 251) as u8).collect();
        let exchange = || -> Result<Vec<u8>> {
            if size < FRAGMENTED {
                sender.send(&data)?;
                return Ok(receiver.recv()?);
            }
            // A sender is no reference that threads may share; a clone is one more descriptor, as in the original.
            let (sender, data) = (sender.clone(), &data);
            thread::scope(|scope| {
                let sending = scope.spawn(move || sender.send(data));
                let received = receiver.recv()?;
                sending
                    .join()
                    .map_err(|_| "the sending thread has panicked")??;
                Ok(received)
            })
        };
        check(exchange()? == data, "bytes differ")?;
        let each = seconds_each_alone(seconds / SIZES.len() as f64, || {
            exchange()?;
            Ok(())
        })?;
        print(name, each);
    }
    Ok(())
}

/// Sends and receives the same ends again and again.
pub fn ends(seconds: f64) -> Result<()> {
    for count in [0, 1, 8, 64] {
        let (sender, receiver) = ipc::channel::<Vec<IpcSender<()>>>()?;
        let mut kept = Vec::new();
        let mut ends = Vec::new();
        for _ in 0..count {
            let (end, other) = ipc::channel::<()>()?;
            ends.push(end);
            kept.push(other);
        }
        let each = seconds_each_alone(seconds / 8.0, || {
            sender.send(std::mem::take(&mut ends))?;
            ends = receiver.recv()?;
            check(ends.len() == count, "ends are missing")
        })?;
        for (end, other) in ends.iter().zip(&kept) {
            end.send(())?;
            other.recv()?;
        }
        print(&format!("{count} senders"), each);
    }
    for count in [0, 1, 8, 64] {
        let (sender, receiver) = ipc::channel::<Vec<IpcReceiver<()>>>()?;
        let mut kept = Vec::new();
        let mut ends = Vec::new();
        for _ in 0..count {
            let (other, end) = ipc::channel::<()>()?;
            ends.push(end);
            kept.push(other);
        }
        let each = seconds_each_alone(seconds / 8.0, || {
            sender.send(std::mem::take(&mut ends))?;
            ends = receiver.recv()?;
            check(ends.len() == count, "ends are missing")
        })?;
        for (end, other) in ends.iter().zip(&kept) {
            other.send(())?;
            end.recv()?;
        }
        print(&format!("{count} receivers"), each);
    }
    Ok(())
}
