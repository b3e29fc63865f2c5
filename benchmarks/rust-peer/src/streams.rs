//! One way: how many messages, or bytes, go from one process to another in a second.
//!
//! The clock stops when the receiver has answered that it has everything.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc_channel::ipc::{self, IpcBytesSender, IpcReceiver, IpcSender};
use serde::{Deserialize, Serialize};

use crate::measure::{check, print, seconds_each};
use crate::{Result, peer};

/// Messages that differ from each other, sent and compared before anything is timed.
const CHECKED: u64 = 500;

/// A struct of four fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    number: i64,
    name: String,
    weight: f64,
    tags: Vec<String>,
}

impl Item {
    fn sample(number: u64) -> Self {
        Item {
            number: number as i64,
            name: format!("item {number}"),
            weight: number as f64 * 0.5,
            tags: vec!["alpha".into(), "beta".into(), "gamma".into()],
        }
    }
}

fn sample_bytes(size: usize, number: u64) -> Vec<u8> {
    let mut bytes = vec![(number % 251) as u8; size];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Raw bytes: messages of `size` bytes, or their bytes if they are large, in a second.
pub fn bytes(subject: &str, size: usize, seconds: f64) -> Result<()> {
    let (_peer, ends) = peer::start::<IpcBytesSender, ()>(subject)?;
    let checked = if size > 1 << 16 { 20 } else { CHECKED };
    ends.commands.send(checked)?;
    for number in 0..checked {
        ends.there.send(&sample_bytes(size, number))?;
    }
    check(ends.answers.recv()?, "bytes differ")?;

    let message = sample_bytes(size, 0);
    let each = seconds_each(seconds, |count| {
        let start = Instant::now();
        ends.commands.send(count)?;
        for _ in 0..count {
            ends.there.send(&message)?;
        }
        finish(&ends.answers, start)
    })?;
    if size > 1 << 16 {
        print("recv", size as f64 / each);
    } else {
        print("", 1.0 / each);
    }
    Ok(())
}

/// The receiving process of [`bytes`].
pub fn receive_bytes(name: &str, size: usize) -> Result<()> {
    let (there, receiver) = ipc::bytes_channel()?;
    let (commands, answers) = peer::introduce(name, there, ())?;
    let checked = commands.recv()?;
    let mut right = true;
    for number in 0..checked {
        right &= receiver.recv()? == sample_bytes(size, number);
    }
    answers.send(right)?;
    while let Ok(count) = commands.recv() {
        let mut last = Vec::new();
        for _ in 0..count {
            last = receiver.recv()?;
        }
        answers.send(last == sample_bytes(size, 0))?;
    }
    Ok(())
}

/// A struct of four fields.
pub fn structs(seconds: f64) -> Result<()> {
    let (_peer, ends) = peer::start::<IpcSender<Item>, ()>("struct")?;
    ends.commands.send(CHECKED)?;
    for number in 0..CHECKED {
        ends.there.send(Item::sample(number))?;
    }
    check(ends.answers.recv()?, "structs differ")?;

    // `send` takes its message by value, and cloning one for every message would be measured as well. A shared one
    // looks the same on its way.
    let item = Arc::new(Item::sample(0));
    let sender: IpcSender<Arc<Item>> = ends.there.to_opaque().to();
    let each = seconds_each(seconds, |count| {
        let start = Instant::now();
        ends.commands.send(count)?;
        for _ in 0..count {
            sender.send(Arc::clone(&item))?;
        }
        finish(&ends.answers, start)
    })?;
    print("", 1.0 / each);
    Ok(())
}

/// The receiving process of [`structs`].
pub fn receive_structs(name: &str) -> Result<()> {
    let (there, receiver) = ipc::channel::<Item>()?;
    let (commands, answers) = peer::introduce(name, there, ())?;
    let checked = commands.recv()?;
    let mut right = true;
    for number in 0..checked {
        right &= receiver.recv()? == Item::sample(number);
    }
    answers.send(right)?;
    while let Ok(count) = commands.recv() {
        let mut last = None;
        for _ in 0..count {
            last = Some(receiver.recv()?);
        }
        answers.send(last == Some(Item::sample(0)))?;
    }
    Ok(())
}

/// Sends messages as [`bytes`] does, by a sender that it is given.
pub fn send_bytes(name: &str, size: usize) -> Result<()> {
    let (there, senders) = ipc::channel()?;
    let (commands, _answers) = peer::introduce(name, there, ())?;
    send_bytes_by(&senders.recv()?, size, &commands)
}

/// The same by a sender whose receiver it gives away.
pub fn send_bytes_back(name: &str, size: usize) -> Result<()> {
    let (sender, back) = ipc::bytes_channel()?;
    let (commands, _answers) = peer::introduce(name, (), back)?;
    send_bytes_by(&sender, size, &commands)
}

fn send_bytes_by(sender: &IpcBytesSender, size: usize, commands: &IpcReceiver<u64>) -> Result<()> {
    for number in 0..commands.recv()? {
        sender.send(&sample_bytes(size, number))?;
    }
    let message = sample_bytes(size, 0);
    while let Ok(count) = commands.recv() {
        for _ in 0..count {
            sender.send(&message)?;
        }
    }
    Ok(())
}

/// Sends messages as [`structs`] does, by a sender that it is given.
pub fn send_structs(name: &str) -> Result<()> {
    let (there, senders) = ipc::channel()?;
    let (commands, _answers) = peer::introduce(name, there, ())?;
    send_structs_by(senders.recv()?, &commands)
}

/// The same by a sender whose receiver it gives away.
pub fn send_structs_back(name: &str) -> Result<()> {
    let (sender, back) = ipc::channel()?;
    let (commands, _answers) = peer::introduce(name, (), back)?;
    send_structs_by(sender, &commands)
}

fn send_structs_by(sender: IpcSender<Item>, commands: &IpcReceiver<u64>) -> Result<()> {
    for number in 0..commands.recv()? {
        sender.send(Item::sample(number))?;
    }
    let item = Arc::new(Item::sample(0));
    let sender: IpcSender<Arc<Item>> = sender.to_opaque().to();
    while let Ok(count) = commands.recv() {
        for _ in 0..count {
            sender.send(Arc::clone(&item))?;
        }
    }
    Ok(())
}

fn finish(answers: &IpcReceiver<bool>, start: Instant) -> Result<Duration> {
    check(answers.recv()?, "the last message differs")?;
    Ok(start.elapsed())
}
