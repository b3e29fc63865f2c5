//! The contract between a channel's ends and what carries their messages, and its two implementations: lanes and
//! packets of our own ([`crate::route`], [`crate::intake`]), and the frames that Rust programs understand
//! ([`crate::frames`]).
//!
//! Sending never waits for the receiver, or says what to wait for; what was sent arrives whole or not at all, in
//! order. Receiving leaves a message where it is until it can be had whole. Neither side of the contract knows the
//! other's: a message is laid out for the way that carries it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::end::{End, Resident};
use crate::error::{Error, Result};
use crate::frames::reader::Reader;
use crate::frames::writer::Writer;
use crate::intake::{Intake, Plain, Taken};
use crate::os::poll::Epoll;
use crate::route::{Attempt, LaneStatistics, Route};
use crate::wire::rust::Version;
use crate::wire::{native, rust};

/// The way out: that of all senders of a channel that a process has made from one another.
#[derive(Clone, Debug)]
pub enum Out {
    /// To a receiver of ours.
    Lanes(Arc<Route>),
    /// To a receiver in a Rust program, or one that could be.
    Frames(Arc<Writer>),
}

/// A message as one of the ways carries it.
#[derive(Debug)]
pub enum Layout<'a> {
    /// For [`Out::Lanes`].
    Native(native::Frame<'a>),
    /// For [`Out::Frames`].
    Rust(rust::Frame<'a>),
}

impl Out {
    /// What the end keeps beside its socket.
    pub fn resident(&self) -> Arc<dyn Resident> {
        match self {
            Out::Lanes(route) => route.clone(),
            Out::Frames(writer) => writer.clone(),
        }
    }

    /// Whether both are of the same channel.
    pub fn same(&self, other: &Out) -> bool {
        match (self, other) {
            (Out::Lanes(one), Out::Lanes(other)) => Arc::ptr_eq(one, other),
            (Out::Frames(one), Out::Frames(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// The version of the crate at the other side, if messages go there in its frames.
    pub fn version(&self) -> Option<Version> {
        match self {
            Out::Lanes(_) => None,
            Out::Frames(writer) => Some(writer.version()),
        }
    }

    /// A further end uses it.
    pub fn enlist(&self, end: &Arc<End>) {
        if let Out::Lanes(route) = self {
            route.enlist(end);
        }
    }

    /// Sends a message that is nothing but bytes, if that is possible without any ado; else nothing.
    #[inline]
    pub fn send_plain(&self, end: &End, payload: &[u8]) -> Result<bool> {
        match self {
            Out::Lanes(route) => route.send_plain(payload),
            Out::Frames(writer) => {
                let socket = end.socket()?;
                let sent = writer.send_small(&socket, payload);
                end.put_back(socket);
                sent
            }
        }
    }

    /// Sends a message, with the seat if there is one, or says what to wait for. Never waits.
    pub fn send(
        &self,
        socket: &Arc<OwnedFd>,
        layout: &Layout<'_>,
        seat: Option<BorrowedFd<'_>>,
    ) -> Result<Attempt> {
        use std::os::fd::AsFd;
        match (self, layout) {
            (Out::Lanes(route), Layout::Native(frame)) => route.send(socket.as_fd(), frame, seat),
            (Out::Frames(writer), Layout::Rust(frame)) => {
                writer.send(socket, frame).map(|()| Attempt::Sent)
            }
            _ => Err(Error::Unfit(
                "the message was laid out for another channel".into(),
            )),
        }
    }

    /// The most undelivered messages of one sending process; 0: no limit.
    pub fn capacity(&self) -> u32 {
        match self {
            Out::Lanes(route) => route.capacity(),
            Out::Frames(_) => 0,
        }
    }

    /// The receiver is asked to tell of its progress. False if there is room already.
    pub fn arm(&self) -> bool {
        match self {
            Out::Lanes(route) => route.arm(),
            Out::Frames(_) => true,
        }
    }

    /// What rings when there is room, if it is not the socket.
    pub fn bell(&self) -> Option<Arc<OwnedFd>> {
        match self {
            Out::Lanes(route) => route.bell(),
            Out::Frames(_) => None,
        }
    }

    /// What is under way.
    pub fn statistics(&self) -> Option<LaneStatistics> {
        match self {
            Out::Lanes(route) => route.statistics(),
            Out::Frames(writer) => match writer.waiting() {
                (0, _) => None,
                (messages, bytes) => Some(LaneStatistics {
                    backlog: messages as u64,
                    memory: bytes as u64,
                }),
            },
        }
    }
}

/// Where a receiver's messages come from.
#[derive(Clone, Debug)]
pub enum In {
    /// Senders of ours.
    Lanes(Arc<Intake>),
    /// Senders in Rust programs, or such that could be.
    Frames(Arc<Reader>),
}

impl In {
    /// What the end keeps beside its socket.
    pub fn resident(&self) -> Arc<dyn Resident> {
        match self {
            In::Lanes(intake) => intake.clone(),
            In::Frames(reader) => reader.clone(),
        }
    }

    /// The version of the crate at the other side, if messages come from there in its frames.
    pub fn version(&self) -> Option<Version> {
        match self {
            In::Lanes(_) => None,
            In::Frames(reader) => Some(reader.version()),
        }
    }

    /// The end that it belongs to from now on.
    pub fn belongs_to(&self, end: &Arc<End>) -> Result<()> {
        match self {
            In::Lanes(intake) => intake.belongs_to(end),
            In::Frames(reader) => reader.belongs_to(end),
        }
    }

    /// Gives the next message to `deliver`, and takes it off its source unless that fails. [`Error::Empty`] or
    /// [`Error::Disconnected`] if there is none. [`Error::Protocol`] is for what is then done with. After any other
    /// error the message is still there.
    #[inline]
    pub fn take<R>(&self, deliver: &mut dyn FnMut(Taken<'_>) -> Result<R>) -> Result<R> {
        match self {
            In::Lanes(intake) => intake.take(deliver),
            In::Frames(reader) => reader.take(deliver),
        }
    }

    /// Gives messages that are nothing but a small payload to `deliver`, as long as it says yes and the next one can
    /// be seen without asking the kernel; `most` at most. Returns how many were taken.
    #[inline]
    pub fn take_plain(&self, most: u32, deliver: impl FnMut(&Plain<'_>) -> bool) -> u32 {
        match self {
            In::Lanes(intake) => intake.take_plain(most, deliver),
            In::Frames(_) => 0,
        }
    }

    /// Whether a message or the end of the stream is there.
    pub fn is_ready(&self) -> Result<bool> {
        match self {
            In::Lanes(intake) => intake.is_ready(),
            In::Frames(reader) => reader.is_ready(),
        }
    }

    /// Whether there is news, as far as that can be seen without asking the kernel.
    #[inline]
    pub fn has_news(&self) -> bool {
        match self {
            In::Lanes(intake) => intake.has_news(),
            In::Frames(_) => false,
        }
    }

    /// Whether news could be seen coming.
    pub fn has_lanes(&self) -> bool {
        match self {
            In::Lanes(intake) => intake.has_lanes(),
            In::Frames(_) => false,
        }
    }

    /// Whether what came with the receiver has not been looked at yet.
    pub fn is_packed(&self) -> bool {
        match self {
            In::Lanes(intake) => intake.is_packed(),
            In::Frames(_) => false,
        }
    }

    /// Makes sure that the descriptors tell of the next message. False if one is in memory already.
    pub fn rest(&self) -> bool {
        match self {
            In::Lanes(intake) => intake.rest(),
            In::Frames(reader) => reader.rest(),
        }
    }

    /// Whoever waits for the end is told of what is in memory, or can rely on the descriptors again.
    pub fn settle(&self, end: &End) {
        match self {
            In::Lanes(intake) => intake.settle(end),
            In::Frames(reader) => reader.settle(end),
        }
    }

    /// It is being given to another process, or no longer.
    pub fn set_moving(&self, moving: bool) -> Result<()> {
        match self {
            In::Lanes(intake) => {
                intake.set_moving(moving);
                Ok(())
            }
            In::Frames(reader) => reader.set_moving(moving),
        }
    }

    /// Undoes what another holder of the socket may have done to make a full queue look empty.
    pub fn look_at_the_first(&self) -> Result<()> {
        match self {
            In::Lanes(intake) => intake.look_at_the_first(),
            In::Frames(reader) => reader.look_at_the_first(),
        }
    }

    /// What is polled for news instead of the socket, once there is more than that.
    pub fn poll(&self) -> Option<Arc<Epoll>> {
        match self {
            In::Lanes(intake) => intake.poll(),
            In::Frames(reader) => reader.poll(),
        }
    }

    /// The socket is given to another process, and stays here.
    pub fn share(&self) {
        if let In::Frames(reader) = self {
            reader.share();
        }
    }

    /// Everything besides the socket, packed for another process; None if there is nothing.
    pub fn pack(&self) -> Result<Option<OwnedFd>> {
        match self {
            In::Lanes(intake) => intake.pack(),
            In::Frames(_) => Ok(None),
        }
    }

    /// How many lanes there are, and the bytes in them that are not yet read.
    pub fn lanes(&self) -> (usize, u64) {
        match self {
            In::Lanes(intake) => intake.lanes(),
            In::Frames(_) => (0, 0),
        }
    }
}
