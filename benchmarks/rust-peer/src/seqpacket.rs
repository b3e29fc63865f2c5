//! A bare pair of sockets, without any library: what the kernel takes for a round trip.

use std::env;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::Result;
use crate::measure::{check, now, print, quantile};
use crate::peer::Peer;
use crate::round_trips::{CHECKED, PAUSE, SIZE, both_ways, echo, sample};

/// Set in the messages that are to be answered after a pause.
const PAUSED: u8 = 1;

/// A second process at the other end of a socket pair.
fn start() -> Result<(Peer, OwnedFd)> {
    let mut pair: [RawFd; 2] = [-1; 2];
    // SAFETY: `pair` has room for the two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, pair.as_mut_ptr()) } != 0 {
        return Err(Error::last_os_error().into());
    }
    // SAFETY: both descriptors are new, and nobody else owns them.
    let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(pair[0]), OwnedFd::from_raw_fd(pair[1])) };
    // SAFETY: a flag of a descriptor that is ours.
    unsafe { libc::fcntl(ours.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    let child = Command::new(env::current_exe()?)
        .args(["--seqpacket-peer", &theirs.as_raw_fd().to_string()])
        .spawn()?;
    Ok((Peer::new(child), ours))
}

fn send(socket: &OwnedFd, message: &[u8; SIZE]) -> Result<()> {
    // SAFETY: the message lives through the call.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            message.as_ptr().cast(),
            SIZE,
            libc::MSG_NOSIGNAL,
        )
    };
    if sent == SIZE as isize {
        Ok(())
    } else {
        Err(Error::last_os_error().into())
    }
}

/// False at the end of the stream.
fn receive(socket: &OwnedFd, message: &mut [u8; SIZE]) -> Result<bool> {
    // SAFETY: there are SIZE bytes of room in the message.
    let received = unsafe { libc::recv(socket.as_raw_fd(), message.as_mut_ptr().cast(), SIZE, 0) };
    match received {
        0 => Ok(false),
        n if n == SIZE as isize => Ok(true),
        _ => Err(Error::last_os_error().into()),
    }
}

/// Both sides wait for nothing but each other.
pub fn busy(seconds: f64) -> Result<()> {
    let (_peer, socket) = start()?;
    let mut message = [0; SIZE];
    for number in 0..CHECKED {
        send(&socket, &sample(number))?;
        check(
            receive(&socket, &mut message)? && message == sample(number),
            "an echo differs",
        )?;
    }
    let mut samples = Vec::new();
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds {
        for _ in 0..100 {
            let sent = now();
            send(&socket, &sample(0))?;
            receive(&socket, &mut message)?;
            samples.push(now() - sent);
        }
    }
    print("p50", quantile(&mut samples, 0.5) as f64 * 1e-9);
    print("p99", quantile(&mut samples, 0.99) as f64 * 1e-9);
    Ok(())
}

/// Each receiver sleeps when its message is sent. The time of both ways together, without the pause between them.
pub fn asleep(seconds: f64) -> Result<()> {
    let (_peer, socket) = start()?;
    let mut message = [0; SIZE];
    let mut request = sample(0);
    request[SIZE - 1] = PAUSED;
    let mut samples = Vec::new();
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds || samples.is_empty() {
        thread::sleep(PAUSE);
        let sent = now();
        send(&socket, &request)?;
        receive(&socket, &mut message)?;
        let received = now();
        samples.push(both_ways(&message, sent, received)?);
    }
    print("p50", quantile(&mut samples, 0.5) as f64 * 1e-9);
    Ok(())
}

/// The echo of both.
pub fn answer(descriptor: &str) -> Result<()> {
    // SAFETY: the descriptor was inherited for this function, which is called once.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor.parse()?) };
    let mut message = [0; SIZE];
    while receive(&socket, &mut message)? {
        if message[SIZE - 1] == PAUSED {
            let arrived = now();
            thread::sleep(PAUSE);
            send(&socket, &echo(arrived))?;
        } else {
            send(&socket, &message)?;
        }
    }
    Ok(())
}
