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
use crate::sync::Lock;
use crate::wire::native::Packet;

/// A new channel.
pub fn channel() -> Result<(Sender, Receiver)> {
    let (sender, receiver) = socket::pair()?;
    Ok((
        Sender::from_socket(sender)?,
        Receiver::from_socket(receiver)?,
    ))
}

/// The place of a one-shot server's client, until it travels to the server with the first message.
type Seat = Arc<Lock<Option<OwnedFd>>>;

/// A sending end. Many threads may use it.
#[derive(Debug)]
pub struct Sender {
    end: Arc<End>,
    peer_pid: Option<u32>,
    seat: Lock<Option<Seat>>,
}

impl Sender {
    /// Takes over a channel's socket.
    pub fn from_socket(socket: OwnedFd) -> Result<Sender> {
        Ok(Sender {
            end: End::of_sender(Arc::new(socket)),
            peer_pid: None,
            seat: Lock::new(None),
        })
    }

    /// Takes over a socket connected to a one-shot server, and the seat that this client has there.
    pub(crate) fn connected(socket: OwnedFd, seat: OwnedFd) -> Result<Sender> {
        let peer_pid = Some(process::peer_of(socket.as_fd())?.pid);
        Ok(Sender {
            end: End::of_sender(Arc::new(socket)),
            peer_pid,
            seat: Lock::new(Some(Arc::new(Lock::new(Some(seat))))),
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
        let shared_seat = self.seat.lock().clone();
        let mut seat = shared_seat.as_ref().and_then(|seat| seat.lock().take());
        let outcome = loop {
            let place = seat.as_ref().map(|seat| seat.as_fd());
            match outgoing.packet.send(socket.as_fd(), place) {
                Ok(socket::Sent::Whole) => {
                    seat = None;
                    *self.seat.lock() = None;
                    break Ok(());
                }
                Ok(socket::Sent::WouldBlock) if deadline.passed() => break Err(Error::Full),
                Ok(socket::Sent::WouldBlock) => {
                    if let Err(e) = self.end.wait(Interest::Writable, deadline) {
                        break Err(e);
                    }
                }
                Err(e) => break Err(e),
            }
        };
        if let (Some(shared), Some(seat)) = (shared_seat, seat) {
            *shared.lock() = Some(seat);
        }
        outcome
    }

    /// Closes the end. A one-shot server's client that has not sent anything gives up its seat.
    pub fn close(&self) {
        self.end.close();
        *self.seat.lock() = None;
    }

    /// Another handle on the same sending end.
    pub fn duplicate(&self) -> Result<Sender> {
        Ok(Sender {
            end: End::of_sender(Arc::new(descriptor::duplicate(self.end.socket()?.as_fd())?)),
            peer_pid: self.peer_pid,
            seat: Lock::new(self.seat.lock().clone()),
        })
    }

    /// Moves the end into a new object; this one is gone for the reason given.
    pub fn take(&self, why: Gone) -> Result<Sender> {
        Ok(Sender {
            end: End::of_sender(self.end.take(why)?),
            peer_pid: self.peer_pid,
            seat: Lock::new(self.seat.lock().clone()),
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
