//! An end in a descriptor: for processes that are started, which inherit descriptors and not messages.
//!
//! An envelope is a socket whose queue holds one message with the end inside. So an end travels whole, with
//! its door or its lanes, by whatever carries a descriptor.

use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Error, Result};
use crate::message::{HandleRef, Message, Parcel, Received};
use crate::os::{clock, socket};
use crate::receiver::{Moving, Receiver};
use crate::sender::Sender;
use crate::wire::native::{Entry, FdRef, Frame, HandleKind};

fn seal(frame: &Frame<'_>) -> Result<OwnedFd> {
    let (inlet, envelope) = socket::pair()?;
    match frame.send(inlet.as_fd(), clock::now(), None)? {
        socket::Sent::Whole => Ok(envelope),
        socket::Sent::WouldBlock => Err(Error::Full),
    }
}

/// A duplicate of a sender.
pub fn with_sender(sender: &Sender, label: u8) -> Result<OwnedFd> {
    let twin = sender.duplicate()?;
    let parcel = Parcel {
        handles: vec![(HandleRef::Sender(&twin), label)],
        ..Parcel::default()
    };
    let outgoing = crate::sender::Outgoing::new(&parcel, None)?;
    seal(outgoing.frame()?)
}

/// A receiver that is set aside; it has left when the move is committed.
pub fn with_receiver(moving: &Moving, label: u8) -> Result<OwnedFd> {
    let luggage = moving.pack()?;
    let entry = Entry {
        kind: HandleKind::Receiver,
        label,
        extra: luggage.is_some(),
        occupied: 0,
        capacity: 0,
        foreign: moving.version(),
    };
    let mut fds = vec![FdRef::Shared(moving.socket()?)];
    fds.extend(luggage.map(FdRef::Owned));
    seal(&Frame::new(&[], &[], &[entry], fds)?)
}

/// Takes the end out. [`Error::Protocol`] if there is none.
pub fn open(envelope: OwnedFd) -> Result<Received> {
    let message: Result<Message> = Receiver::from_socket(envelope)?.try_recv();
    let mut message = match message {
        Ok(message) => message,
        Err(Error::Empty | Error::Disconnected) => return empty(),
        Err(error) => return Err(error),
    };
    match message.handles.pop() {
        Some(received) if message.handles.is_empty() => Ok(received),
        _ => empty(),
    }
}

fn empty<T>() -> Result<T> {
    Err(Error::Protocol(
        "the descriptor that should bring an end of a channel does not hold one".into(),
    ))
}
