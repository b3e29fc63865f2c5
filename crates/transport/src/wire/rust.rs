//! What a message looks like to a program that uses Rust's `ipc-channel` crate on Linux.
//!
//! ```text
//! first packet
//!   length of this packet, header included, u64      since 0.22 only
//!   length of the whole payload, u64
//!   payload, or the beginning of it
//! descriptors beside it
//!   the message's senders and receivers, one for each occurrence; its shared memory, likewise; and if the payload
//!   goes on, the receiving end of a socket pair that was made for that
//! further packets, through that socket pair
//!   payload, until its length is reached
//! ```
//!
//! Numbers are in the machine's byte order. Nothing says what a descriptor is: the crate takes sockets for ends and
//! everything else for shared memory, and the message's type says which end is a sender.
//!
//! The largest packet follows from the size of a socket's buffer, SO_SNDBUF. The crate's receiver has room for that
//! and no more; what is longer is cut off there without a word. So the sizes below are never exceeded.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::os::{descriptor, socket};
use crate::wire::native::FdRef;

/// Versions of the crate that understand each other, as far as packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 0.22 and 0.23.
    Current,
    /// 0.21.
    V0_21,
    /// 0.20.
    V0_20,
}

const WORD: usize = size_of::<usize>();
/// The most descriptors that the crate's receiver has room for.
pub const MOST_FDS: usize = 64;
/// The longest header, of all versions.
pub const MAX_HEADER: usize = 2 * WORD;
/// The size of a socket's buffer if the kernel does not tell: its own default.
const USUAL_BUFFER: usize = 212_992;

impl Version {
    /// By which messages of our own say which it is: 1 to 3.
    pub fn number(self) -> u8 {
        match self {
            Version::Current => 1,
            Version::V0_21 => 2,
            Version::V0_20 => 3,
        }
    }

    /// The version with that number.
    pub fn of_number(number: u8) -> Option<Version> {
        [Version::Current, Version::V0_21, Version::V0_20]
            .into_iter()
            .find(|version| version.number() == number)
    }

    /// In front of the first packet's payload.
    pub fn header_len(self) -> usize {
        match self {
            Version::Current => 2 * WORD,
            Version::V0_21 | Version::V0_20 => WORD,
        }
    }

    /// What the crate leaves free of a socket's buffer.
    fn reserved(self) -> usize {
        match self {
            // CMSG_SPACE of 64 descriptors of eight bytes each.
            Version::Current => 528,
            Version::V0_21 | Version::V0_20 => 32,
        }
    }

    /// The most payload in a packet without a header, where a socket's buffer has `buffer` bytes.
    pub fn largest_further(self, buffer: usize) -> usize {
        buffer.saturating_sub(self.reserved()).max(WORD)
    }

    /// The most payload in a first packet.
    pub fn largest_first(self, buffer: usize) -> usize {
        let room = self.largest_further(buffer);
        (room.saturating_sub(self.header_len()) & !(WORD - 1)).max(WORD)
    }

    /// The header of a first packet with so much payload of so much.
    pub fn header(self, here: usize, total: usize) -> Header {
        let mut bytes = [0; MAX_HEADER];
        let len = self.header_len();
        bytes[len - WORD..len].copy_from_slice(&total.to_ne_bytes());
        if self == Version::Current {
            bytes[..WORD].copy_from_slice(&(len + here).to_ne_bytes());
        }
        Header { bytes, len }
    }

    /// What is said by the beginning of a first packet that is `len` bytes long.
    pub fn read(self, beginning: &[u8], len: usize) -> Result<First> {
        let header = self.header_len();
        let word = |index: usize| {
            let bytes = beginning.get(index * WORD..(index + 1) * WORD);
            bytes
                .and_then(|bytes| bytes.try_into().ok())
                .map(usize::from_ne_bytes)
        };
        let (said, total) = match self {
            Version::Current => (word(0), word(1)),
            Version::V0_21 | Version::V0_20 => (Some(len), word(0)),
        };
        let (Some(said), Some(total)) = (said, total) else {
            return forged("is shorter than its header");
        };
        if len < header {
            return forged("is shorter than its header");
        }
        if said != len {
            return forged("says that it has another length than it has");
        }
        if isize::try_from(total).is_err() || total < len - header {
            return forged("holds more than the whole message");
        }
        Ok(First {
            here: len - header,
            total,
        })
    }
}

/// In front of a first packet's payload.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

impl Header {
    /// As it is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What a first packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// Bytes of payload in it.
    pub here: usize,
    /// Bytes of payload of the whole message.
    pub total: usize,
}

impl First {
    /// Whether nothing follows.
    pub fn is_whole(&self) -> bool {
        self.here == self.total
    }
}

/// The socket by which the rest of a message comes: the last one of the first packet's descriptors that is a socket.
pub fn take_dedicated(fds: &mut Vec<OwnedFd>) -> Result<OwnedFd> {
    let last = fds
        .iter()
        .rposition(|fd| descriptor::is_socket(fd.as_fd()))
        .map(|index| fds.remove(index));
    match last {
        Some(dedicated) => match descriptor::check_channel_socket(dedicated.as_fd()) {
            Ok(()) => Ok(dedicated),
            Err(error) => {
                fds.push(dedicated);
                Err(error)
            }
        },
        None => forged(WITHOUT_REST),
    }
}

/// What is said of a first packet that has no socket beside it and should have.
pub const WITHOUT_REST: &str = "is not the whole message and does not say where the rest comes";

/// A packet from the peer that is none of the crate's.
pub fn forged<T>(what: &str) -> Result<T> {
    Err(Error::Protocol(format!("a packet from the peer {what}")))
}

/// The size of a fresh socket's buffer, which is what the crate reckons with.
pub fn buffer_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    if let Some(size) = SIZE.get() {
        return *size;
    }
    let asked = socket::duplex_pair().and_then(|(one, _)| socket::buffer_size(one.as_fd()));
    // Without descriptors it cannot be asked now, and is asked again.
    asked.map_or(USUAL_BUFFER, |size| *SIZE.get_or_init(|| size))
}

/// A message laid out for a Rust program.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The encoded message.
    pub payload: &'a [u8],
    /// Its ends, and then its shared memory.
    pub fds: Vec<FdRef<'a>>,
}

impl<'a> Frame<'a> {
    /// [`Error::TooManyHandles`] if the crate has no room for so many descriptors.
    pub fn new(version: Version, payload: &'a [u8], fds: Vec<FdRef<'a>>) -> Result<Frame<'a>> {
        let fragmented = payload.len() > version.largest_first(buffer_size());
        let most = MOST_FDS - usize::from(fragmented);
        if fds.len() > most {
            return Err(Error::TooManyHandles(format!(
                "the message carries {} ends and regions, and {most} are the most that a Rust program can receive \
                 in {}one message; send them in several",
                fds.len(),
                if fragmented { "so large " } else { "" },
            )));
        }
        Ok(Frame { payload, fds })
    }
}
