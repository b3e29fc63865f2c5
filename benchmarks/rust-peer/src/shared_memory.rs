//! Shared memory inside messages.

use std::thread;
use std::time::Instant;

use ipc_channel::ipc::{self, IpcReceiver, IpcSender, IpcSharedMemory};

use crate::measure::{check, print, seconds_each};
use crate::{Result, peer};

/// Names and sizes of the regions of [`sizes`].
const SIZES: [(&str, usize); 5] = [
    ("1 B", 1),
    ("4 KiB", 4 << 10),
    ("1 MiB", 1 << 20),
    ("64 MiB", 64 << 20),
    ("1 GiB", 1 << 30),
];
/// A program may have less memory than the largest region needs, twice.
const LARGEST: usize = 1 << 30;
const BYTE: u8 = 0xa5;
const PING_PONG_SIZE: usize = 4 << 20;
const PING_PONGS: u8 = 100;

type Ends = peer::Ends<IpcSender<IpcSharedMemory>, IpcReceiver<(usize, u8, u8)>>;

fn exchange(ends: &Ends, memory: IpcSharedMemory, size: usize) -> Result<()> {
    ends.there.send(memory)?;
    check(
        ends.back.recv()? == (size, BYTE, BYTE),
        "the memory differs",
    )
}

/// Sends an existing region; the receiver drops it and answers.
pub fn sizes(seconds: f64) -> Result<()> {
    let (_peer, ends): (_, Ends) = peer::start("shared-memory")?;
    for (name, size) in SIZES {
        if size == LARGEST && memory_available()? < 3 * LARGEST as u64 {
            continue;
        }
        let memory = IpcSharedMemory::from_byte(BYTE, size);
        let each = seconds_each(seconds / SIZES.len() as f64, |count| {
            let start = Instant::now();
            for _ in 0..count {
                exchange(&ends, memory.clone(), size)?;
            }
            Ok(start.elapsed())
        })?;
        print(name, each);
    }
    Ok(())
}

/// Makes a region of 1 MiB from bytes and sends it.
pub fn create_and_send(seconds: f64) -> Result<()> {
    let (_peer, ends): (_, Ends) = peer::start("shared-memory")?;
    let content = vec![BYTE; 1 << 20];
    let each = seconds_each(seconds, |count| {
        let start = Instant::now();
        for _ in 0..count {
            exchange(&ends, IpcSharedMemory::from_bytes(&content), content.len())?;
        }
        Ok(start.elapsed())
    })?;
    print("", each);
    Ok(())
}

/// The receiver of both: it reads the first and the last byte.
pub fn receive(name: &str) -> Result<()> {
    let (there, receiver) = ipc::channel::<IpcSharedMemory>()?;
    let (sender, back) = ipc::channel()?;
    let _ends = peer::introduce(name, there, back)?;
    while let Ok(memory) = receiver.recv() {
        let answer = (memory.len(), memory[0], memory[memory.len() - 1]);
        drop(memory);
        sender.send(answer)?;
    }
    Ok(())
}

fn memory_available() -> Result<u64> {
    let all = std::fs::read_to_string("/proc/meminfo")?;
    let line = all
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))
        .ok_or("no MemAvailable")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .ok_or("no number")?
        .parse::<u64>()?
        * 1024)
}

/// Two threads add one to each byte of 4 MiB in turn; seconds for each turn.
pub fn ping_pong() -> Result<()> {
    print(
        "copied",
        ping_pong_of(|memory| {
            let mut content = memory.to_vec();
            for byte in &mut content {
                *byte += 1;
            }
            IpcSharedMemory::from_bytes(&content)
        })?,
    );
    print(
        "in place",
        ping_pong_of(|mut memory| {
            // SAFETY: the other thread has sent this memory and waits for it to come back.
            for byte in unsafe { memory.deref_mut() } {
                *byte += 1;
            }
            memory
        })?,
    );
    Ok(())
}

fn ping_pong_of(turn: impl Fn(IpcSharedMemory) -> IpcSharedMemory + Copy + Send) -> Result<f64> {
    let (there, receiver) = ipc::channel::<IpcSharedMemory>()?;
    let (sender, back) = ipc::channel::<IpcSharedMemory>()?;
    let start = Instant::now();
    let content = thread::scope(|scope| {
        let echo = scope.spawn(move || -> std::result::Result<(), ipc_channel::IpcError> {
            for _ in 0..PING_PONGS / 2 {
                sender.send(turn(receiver.recv()?))?;
            }
            Ok(())
        });
        let mut memory = IpcSharedMemory::from_byte(0, PING_PONG_SIZE);
        for _ in 0..PING_PONGS / 2 {
            there.send(turn(memory))?;
            memory = back.recv()?;
        }
        echo.join().map_err(|_| "the other thread has panicked")??;
        Ok::<_, Box<dyn std::error::Error>>(memory.to_vec())
    })?;
    let took = start.elapsed();
    check(
        content.iter().all(|byte| *byte == PING_PONGS),
        "the memory differs",
    )?;
    Ok(took.as_secs_f64() / f64::from(PING_PONGS))
}
