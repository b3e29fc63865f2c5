//! The sending end of a channel, and what is under way through it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::deadline::Deadline;
use crate::end::{End, Gone};
use crate::error::{Error, Result};
use crate::message::{HandleRef, Parcel};
use crate::os::poll::Interest;
use crate::os::{descriptor, process, socket};
use crate::receiver::{Moving, Receiver};
use crate::wire::native::Packet;

/// A new channel.
pub fn channel() -> Result<(Sender, Receiver)> {
    let (sender, receiver) = socket::pair()?;
    Ok((
        Sender::from_socket(sender)?,
        Receiver::from_socket(receiver)?,
    ))
}

/// A sending end. Many threads may use it.
#[derive(Debug)]
pub struct Sender {
    end: Arc<End>,
    peer_pid: Option<u32>,
}

impl Sender {
    /// Takes over a channel's socket.
    pub fn from_socket(socket: OwnedFd) -> Result<Sender> {
        Ok(Sender {
            end: End::of_sender(Arc::new(socket)),
            peer_pid: None,
        })
    }

    /// Takes over a socket connected to a one-shot server.
    pub(crate) fn connected(socket: OwnedFd) -> Result<Sender> {
        let peer_pid = Some(process::peer_of(socket.as_fd())?.pid);
        Ok(Sender {
            end: End::of_sender(Arc::new(socket)),
            peer_pid,
        })
    }

    /// Takes over an inherited descriptor, after a look at what it is.
    pub fn adopt(socket: OwnedFd) -> Result<Sender> {
        descriptor::check_channel_socket(socket.as_fd())?;
        descriptor::set_close_on_exec(socket.as_fd())?;
        Sender::from_socket(socket)
    }

    /// Sends what `outgoing` holds, waiting for room until the deadline. May be called again after
    /// [`Error::Interrupted`], [`Error::TimedOut`] and [`Error::Full`]; nothing has been sent then.
    pub fn publish(&self, outgoing: &Outgoing<'_>, deadline: Deadline) -> Result<()> {
        let socket = self.end.socket()?;
        loop {
            match outgoing.packet.send(socket.as_fd())? {
                socket::Sent::Whole => return Ok(()),
                socket::Sent::WouldBlock if deadline.passed() => return Err(Error::Full),
                socket::Sent::WouldBlock => self.end.wait(Interest::Writable, deadline)?,
            }
        }
    }

    /// Another handle on the same sending end.
    pub fn duplicate(&self) -> Result<Sender> {
        Ok(Sender {
            end: End::of_sender(Arc::new(descriptor::duplicate(self.end.socket()?.as_fd())?)),
            peer_pid: self.peer_pid,
        })
    }

    /// Moves the end into a new object; this one is gone for the reason given.
    pub fn take(&self, why: Gone) -> Result<Sender> {
        Ok(Sender {
            end: End::of_sender(self.end.take(why)?),
            peer_pid: self.peer_pid,
        })
    }

    /// Its state.
    pub fn end(&self) -> &Arc<End> {
        &self.end
    }

    /// The process at the other side, if a one-shot server made the connection.
    pub fn peer_pid(&self) -> Option<u32> {
        self.peer_pid
    }
}

/// A message on its way: laid out, and its receivers set aside. Dropped before [`Outgoing::delivered`],
/// it leaves everything as it was.
#[derive(Debug)]
pub struct Outgoing<'a> {
    packet: Packet<'a>,
    receivers: Vec<Moving>,
    senders: Vec<&'a Sender>,
}

impl<'a> Outgoing<'a> {
    /// Lays out `parcel`.
    pub fn new(parcel: &Parcel<'a>) -> Result<Outgoing<'a>> {
        let mut receivers: Vec<Moving> = Vec::new();
        let mut senders = Vec::new();
        for (handle, _) in &parcel.handles {
            match handle {
                HandleRef::Receiver(receiver) => {
                    if receivers.iter().any(|moving| moving.is_of(receiver)) {
                        return Err(Error::ReceiverTwice);
                    }
                    receivers.push(receiver.begin_move()?);
                }
                HandleRef::Sender(sender) => senders.push(*sender),
                HandleRef::Memory(_) | HandleRef::File(_) => {}
            }
        }
        Ok(Outgoing {
            packet: Packet::new(parcel)?,
            receivers,
            senders,
        })
    }

    /// It was sent: its ends are no longer ours.
    pub fn delivered(self) {
        for moving in self.receivers {
            moving.commit(Gone::Sent);
        }
        for sender in self.senders {
            sender.end.finish_move(Some(Gone::Sent));
        }
    }
}
