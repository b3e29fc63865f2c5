//! There and back, and requests that bring the channel for their answer along.

use std::thread;
use std::time::{Duration, Instant};

use ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender};
use serde::{Deserialize, Serialize};

use crate::measure::{check, now, print, quantile, seconds_each};
use crate::{Result, peer};

/// The size of the messages that go there and back.
pub const SIZE: usize = 64;
/// How long each side waits before it sends, so that the other side has gone to sleep.
pub const PAUSE: Duration = Duration::from_millis(1);
/// Round trips before the timed ones; each is compared.
pub const CHECKED: u64 = 100;

pub fn sample(number: u64) -> [u8; SIZE] {
    let mut message = [0x5a; SIZE];
    message[..8].copy_from_slice(&number.to_le_bytes());
    message
}

/// Both sides wait for nothing but each other.
pub fn busy(seconds: f64) -> Result<()> {
    let (_peer, ends) = peer::start::<IpcBytesSender, IpcBytesReceiver>("round-trip-busy")?;
    for number in 0..CHECKED {
        ends.there.send(&sample(number))?;
        check(ends.back.recv()? == sample(number), "an echo differs")?;
    }
    let message = sample(0);
    let mut samples = Vec::new();
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds {
        for _ in 0..100 {
            let sent = now();
            ends.there.send(&message)?;
            ends.back.recv()?;
            samples.push(now() - sent);
        }
    }
    print("p50", quantile(&mut samples, 0.5) as f64 * 1e-9);
    print("p99", quantile(&mut samples, 0.99) as f64 * 1e-9);
    Ok(())
}

/// The echo of [`busy`].
pub fn answer_busy(name: &str) -> Result<()> {
    let (there, receiver) = ipc::bytes_channel()?;
    let (sender, back) = ipc::bytes_channel()?;
    let _ends = peer::introduce(name, there, back)?;
    while let Ok(message) = receiver.recv() {
        sender.send(&message)?;
    }
    Ok(())
}

/// Each receiver sleeps when its message is sent. The time of both ways together, without the pause between them.
pub fn asleep(seconds: f64) -> Result<()> {
    let (_peer, ends) = peer::start::<IpcBytesSender, IpcBytesReceiver>("round-trip-asleep")?;
    let mut samples = Vec::new();
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds || samples.is_empty() {
        thread::sleep(PAUSE);
        let sent = now();
        ends.there.send(&sample(0))?;
        let echo = ends.back.recv()?;
        let received = now();
        samples.push(both_ways(&echo, sent, received)?);
    }
    print("p50", quantile(&mut samples, 0.5) as f64 * 1e-9);
    Ok(())
}

/// The echo carries the times at which its sender had received and began to send.
pub fn both_ways(echo: &[u8], sent: u64, received: u64) -> Result<u64> {
    check(echo.len() == SIZE, "an echo has another length")?;
    let arrived = u64::from_le_bytes(echo[..8].try_into()?);
    let left = u64::from_le_bytes(echo[8..16].try_into()?);
    check(
        sent < arrived && arrived < left && left < received,
        "the clocks disagree",
    )?;
    Ok((arrived - sent) + (received - left))
}

/// The echo that [`both_ways`] reads; the second time is put in last.
pub fn echo(arrived: u64) -> [u8; SIZE] {
    let mut message = sample(0);
    message[..8].copy_from_slice(&arrived.to_le_bytes());
    message[8..16].copy_from_slice(&now().to_le_bytes());
    message
}

/// The echo of [`asleep`].
pub fn answer_asleep(name: &str) -> Result<()> {
    let (there, receiver) = ipc::bytes_channel()?;
    let (sender, back) = ipc::bytes_channel()?;
    let _ends = peer::introduce(name, there, back)?;
    while receiver.recv().is_ok() {
        let arrived = now();
        thread::sleep(PAUSE);
        sender.send(&echo(arrived))?;
    }
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Request {
    number: i64,
    reply: IpcSender<i64>,
}

/// Requests in a second, each with a fresh channel for its answer.
pub fn requests(seconds: f64) -> Result<()> {
    let (_peer, ends) = peer::start::<IpcSender<Request>, ()>("request")?;
    let ask = |number: i64| -> Result<i64> {
        let (reply, answer): (_, IpcReceiver<i64>) = ipc::channel()?;
        ends.there.send(Request { number, reply })?;
        Ok(answer.recv()?)
    };
    for number in 0..CHECKED as i64 {
        check(ask(number)? == number + 1, "an answer differs")?;
    }
    let each = seconds_each(seconds, |count| {
        let start = Instant::now();
        for number in 0..count {
            ask(number as i64)?;
        }
        Ok(start.elapsed())
    })?;
    print("", 1.0 / each);
    Ok(())
}

/// The server of [`requests`].
pub fn answer_requests(name: &str) -> Result<()> {
    let (there, receiver) = ipc::channel::<Request>()?;
    let _ends = peer::introduce(name, there, ())?;
    while let Ok(request) = receiver.recv() {
        request.reply.send(request.number + 1)?;
    }
    Ok(())
}
