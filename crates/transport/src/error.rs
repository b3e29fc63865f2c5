//! What can go wrong, for whoever turns it into an exception.

use std::io;

use crate::end::Gone;

/// The transport's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything an operation can end with besides success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is there now.
    #[error("no message is waiting")]
    Empty,
    /// There is no room now.
    #[error("the channel is full")]
    Full,
    /// Unread messages take up all the memory that they may. Nothing was sent.
    #[error("{0}")]
    BacklogFull(String),
    /// The deadline passed.
    #[error("the time is over")]
    TimedOut,
    /// Every sender is gone and everything sent has been delivered.
    #[error("every sender of this channel is gone, and everything they sent has been received")]
    Disconnected,
    /// The receiving end is gone.
    #[error("the receiver of this channel is gone, so the message was not sent")]
    ReceiverGone,
    /// This end is no longer usable here.
    #[error("this end is {0:?}")]
    Gone(Gone),
    /// A signal arrived: handle it, then call again. Nothing was lost.
    #[error("interrupted by a signal")]
    Interrupted,
    /// The peer broke the protocol; the offending packet is consumed and its descriptors are closed.
    #[error("{0}")]
    Protocol(String),
    /// The limit on open files (or on files in flight) stands in the way. Nothing is lost.
    #[error("{0}")]
    TooManyHandles(String),
    /// A one-shot server could not be reached.
    #[error("cannot connect to {name:?}: {why}")]
    Connect {
        /// The name that was given.
        name: String,
        /// The reason.
        why: ConnectFailure,
    },
    /// Another process uses this receiver, or this object belongs to another process.
    #[error("{what} is used by process {owner}")]
    Forked {
        /// "this receiver", "this receiver set".
        what: &'static str,
        /// The process that owns it.
        owner: u32,
    },
    /// The same receiver occurs twice in one message.
    #[error("the same receiver occurs twice in one message; a receiver has one owner")]
    ReceiverTwice,
    /// An end cannot travel in this message, or not now. Nothing was sent.
    #[error("{0}")]
    Unfit(String),
    /// A view of shared memory stands in the way.
    #[error("{0}")]
    ViewsExist(&'static str),
    /// The kernel refused for a reason that has no name of its own here.
    #[error("{call} failed: {source}")]
    Kernel {
        /// The system call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

/// Why a one-shot server could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// The text is no server's name.
    #[error("this is not the name of a one-shot server ({0})")]
    NotAName(String),
    /// There is no such server, or no longer.
    #[error("there is no such server: it was closed, or its process has ended")]
    NoSuchServer,
    /// The server took its one client.
    #[error("the server has served its one client already")]
    ServedAlready,
    /// Another client holds the place.
    #[error("another client is connected to this server, and a one-shot server takes one client")]
    AnotherClient,
    /// The server belongs to somebody else.
    #[error(
        "it belongs to another user; the server must be made with allow_uid= for this user's id"
    )]
    AnotherUser,
    /// Anything else.
    #[error("{0}")]
    Other(io::Error),
}

impl Error {
    /// An unexpected errno of `call`; running out of descriptors has a name of its own.
    pub fn kernel(call: &'static str, errno: rustix::io::Errno) -> Error {
        use rustix::io::Errno;
        match errno {
            Errno::INTR => Error::Interrupted,
            Errno::MFILE => Error::TooManyHandles(format!(
                "{call}: this process has reached its limit on open files; close some, or raise it (ulimit -n)"
            )),
            Errno::NFILE => Error::TooManyHandles(format!(
                "{call}: the system has reached its limit on open files"
            )),
            Errno::TOOMANYREFS => Error::TooManyHandles(format!(
                "{call}: too many descriptors of this user are in flight, sent and not yet received; \
                 the limit is the soft limit on open files (ulimit -n)"
            )),
            other => Error::Kernel {
                call,
                source: other.into(),
            },
        }
    }
}
