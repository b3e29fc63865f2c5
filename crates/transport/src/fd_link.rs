//! How the descriptors of a lane's messages travel: by a socket beside the lane.
//!
//! A packet of descriptors has a ticket, and so has the record that needs it. The packet is sent first, so it
//! is there when the record is. When a socket holds many packets, the next one follows in a fresh socket that
//! is sent over it: unread messages with handles are limited by the kernel's count of descriptors in flight
//! alone. A packet whose record was never published is recognised by its lower ticket and thrown away.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use crate::error::{Error, Result};
use crate::os::descriptor;
use crate::os::socket::{self, Peeked, Sent};

/// A socket holds 278 small packets.
const PACKETS_A_SOCKET: u32 = 128;
const MOST_HOPS: u32 = 16;
/// In the place of a ticket: the one descriptor is the next socket.
const NEXT: u64 = u64::MAX;

/// The sending side.
#[derive(Debug)]
pub struct LinkWriter {
    socket: OwnedFd,
    packets: u32,
    ticket: u64,
}

impl LinkWriter {
    /// A new link, and its other side.
    pub fn new() -> Result<(LinkWriter, OwnedFd)> {
        let (socket, other) = socket::pair()?;
        let writer = LinkWriter {
            socket,
            packets: 0,
            ticket: 0,
        };
        Ok((writer, other))
    }

    /// Sends descriptors and returns their ticket.
    pub fn send(&mut self, fds: &[RawFd]) -> Result<u64> {
        if self.packets >= PACKETS_A_SOCKET {
            let (next, other) = socket::pair()?;
            let other = [std::os::fd::AsRawFd::as_raw_fd(&other)];
            whole(socket::send(
                self.socket.as_fd(),
                &[IoSlice::new(&NEXT.to_le_bytes())],
                &other,
            )?)?;
            self.socket = next;
            self.packets = 0;
        }
        let ticket = self.ticket + 1;
        whole(socket::send(
            self.socket.as_fd(),
            &[IoSlice::new(&ticket.to_le_bytes())],
            fds,
        )?)?;
        self.ticket = ticket;
        self.packets += 1;
        Ok(ticket)
    }
}

fn whole(sent: Sent) -> Result<()> {
    match sent {
        Sent::Whole => Ok(()),
        Sent::WouldBlock => Err(Error::TooManyHandles(
            "the message's descriptors do not fit the kernel's socket buffers".into(),
        )),
    }
}

/// The receiving side.
#[derive(Debug)]
pub struct LinkReader {
    socket: OwnedFd,
}

impl LinkReader {
    /// Takes over the other side of a link.
    pub fn new(socket: OwnedFd) -> LinkReader {
        LinkReader { socket }
    }

    /// The socket as it is now.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The socket itself.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Duplicates of the descriptors with that ticket, which stay until [`LinkReader::discard`].
    /// [`Error::TooManyHandles`] if this process has no room for them.
    pub fn peek(&mut self, ticket: u64) -> Result<Vec<OwnedFd>> {
        // An honest sender leaves few packets behind that nobody needs, and few sockets to follow.
        let mut hops = 0;
        for _ in 0..1 << 16 {
            let mut word = [0; 8];
            match socket::peek(self.socket.as_fd(), &mut word)? {
                Peeked::Packet {
                    fds,
                    fds_missing: true,
                    ..
                } => {
                    let came = fds.len();
                    descriptor::close_unknown(fds);
                    return Err(Error::TooManyHandles(format!(
                        "the next message carries descriptors, and this process has room for {came} only; \
                         close some or raise the limit (ulimit -n), then receive it again"
                    )));
                }
                Peeked::Packet { len: 8, fds, .. } => match u64::from_le_bytes(word) {
                    NEXT => {
                        hops += 1;
                        self.follow(fds)?;
                        if hops > MOST_HOPS {
                            return damaged();
                        }
                    }
                    found if found == ticket => return Ok(fds),
                    found if found > ticket => {
                        descriptor::close_unknown(fds);
                        return damaged();
                    }
                    _ => {
                        // Off the queue first, so that ours are the last ones.
                        socket::discard(self.socket.as_fd())?;
                        descriptor::close_unknown(fds);
                    }
                },
                Peeked::Packet { fds, .. } => {
                    descriptor::close_unknown(fds);
                    return damaged();
                }
                Peeked::Nothing | Peeked::End => return damaged(),
            }
        }
        damaged()
    }

    fn follow(&mut self, mut fds: Vec<OwnedFd>) -> Result<()> {
        let next = if fds.len() == 1 { fds.pop() } else { None };
        match next {
            Some(next) if descriptor::check_channel_socket(next.as_fd()).is_ok() => {
                // Off the queue first, so that the old one holds nothing and is closed at once.
                socket::discard(self.socket.as_fd())?;
                let old = std::mem::replace(&mut self.socket, next);
                descriptor::close_unknown(vec![old]);
                Ok(())
            }
            other => {
                descriptor::close_unknown(fds.into_iter().chain(other).collect());
                damaged()
            }
        }
    }

    /// Takes the packet that was looked at off the queue.
    pub fn discard(&mut self) -> Result<()> {
        socket::discard(self.socket.as_fd())
    }
}

fn damaged<T>() -> Result<T> {
    Err(Error::Protocol(
        "a message of a lane came without its descriptors; it is lost".into(),
    ))
}
