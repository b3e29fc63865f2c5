//! Where everything is in a lane's memory file.
//!
//! ```text
//! page 0       TAIL u64 · SENT u64        written by the producer (flags by the consumer)
//!   + 16       PRODUCER u64               written once by the producer: its process
//!   + 128      HEAD u64                   written by the consumer: bytes it has done with
//!   + 136      CONSUMER u64               written once by each consumer: its process
//!   + 256      TAKEN u64                  messages taken << 1 | WAITER
//! rings        records, each at a multiple of 16
//! record       length u48 · padding u8 · kind u8 · stamp u64 · padding · body, filled up to 16
//! ```
//!
//! The first page is also what `ipc-channel top` and `inspect` read from outside
//! (`python/ipc_channel/cli/lanes.py`).

pub use crate::lane::sizes::{ALIGNED_FROM, HEADER_LEN, PAGE};

/// Published bytes and flags.
pub const TAIL: usize = 0;
/// Published messages; for whoever wants to know, nobody relies on it.
pub const SENT: usize = 8;
/// The producer's process id; for whoever wants to know, nobody relies on it.
pub const PRODUCER: usize = 16;
/// Bytes that the producer may write over.
pub const HEAD: usize = 128;
/// The consumer's process id, as above; 0 before the lane has been found.
pub const CONSUMER: usize = 136;
/// Messages taken, and [`WAITER`].
pub const TAKEN: usize = 256;

/// Records begin at multiples of it.
pub const UNIT: u64 = 16;
/// The bits of the tail that are no count.
pub const FLAGS: u64 = UNIT - 1;
/// The consumer sleeps: ring.
pub const WAITING: u64 = 1;
/// The consumer is gone.
pub const CLOSED: u64 = 2;
/// Other processes may send on the same channel.
pub const SHARED: u64 = 4;
/// Views into the producer's rings outlive their consumer: none of them may be used again.
pub const PINNED: u64 = 8;

/// In [`TAKEN`]: the producer waits for room: ring.
pub const WAITER: u64 = 1;

/// A record's own words.
pub const RECORD_HEADER: usize = 16;
/// What arrays like to be aligned to, and long bodies therefore are.
pub const ALIGNMENT: usize = 64;
/// A SWITCH record with its body: room for it is left in every ring.
pub const SWITCH_LEN: usize = RECORD_HEADER + 32;
/// The longest body.
pub const MAX_BODY: usize = (1 << 47) - 1;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A message that is its payload and nothing else.
    Plain = 1,
    /// A message laid out as in a packet, see [`crate::wire::native`].
    Framed = 2,
    /// Nothing: the next record is at the ring's start.
    Skip = 3,
    /// The next record is in another ring: offset, length, start, flags.
    Switch = 4,
}

/// In a SWITCH: the ring that is left will not be used again.
pub const FAREWELL: u64 = 1;
/// In a SWITCH: the ring that is entered is used once, from its beginning on.
pub const ONCE: u64 = 2;

/// The first word of a record.
#[inline]
pub fn pack(kind: Kind, padding: usize, len: usize) -> u64 {
    len as u64 | (padding as u64) << 48 | (kind as u64) << 56
}

/// Kind, padding and length out of a record's first word.
#[inline]
pub fn unpack(word: u64) -> Option<(Kind, usize, usize)> {
    let kind = match word >> 56 {
        1 => Kind::Plain,
        2 => Kind::Framed,
        3 => Kind::Skip,
        4 => Kind::Switch,
        _ => return None,
    };
    let padding = (word >> 48 & 0xff) as usize;
    Some((kind, padding, (word & 0xffff_ffff_ffff) as usize))
}

/// The length of a whole record.
#[inline]
pub fn record_len(padding: usize, len: usize) -> usize {
    (RECORD_HEADER + padding + len).next_multiple_of(UNIT as usize)
}
