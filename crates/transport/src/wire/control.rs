//! Packets of the transport's own: they carry no message, and the codec never hears of them.
//!
//! ```text
//! BELL   one byte: look at the lane; from the receiver: there is room
//! LANE   header, place of the lane's reading; the memory file, and the lane's connection unless this came over it
//! DOOR   header; a listening socket
//! LINK   header; a socket for the descriptors of the lane's messages
//! ```

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use crate::error::Result;
use crate::lane::consumer::Place;
use crate::os::socket::{self, Sent};
use crate::wire::native::{HEADER_LEN, PacketKind, forged, header};

/// The packet that is only there to wake somebody.
pub const BELL: [u8; 1] = [0x07];

const PLACE_WORDS: usize = 7;
/// A [`Place`] on the wire.
pub const PLACE_LEN: usize = PLACE_WORDS * 8;
const BOUNDED: u64 = 1;
const PINNED: u64 = 2;
const ONCE: u64 = 4;

/// Rings. A bell that finds the queue full has been rung already.
pub fn ring(socket: BorrowedFd<'_>) -> Result<()> {
    socket::send(socket, &[IoSlice::new(&BELL)], &[]).map(drop)
}

/// Sends a packet that is its header and descriptors.
pub fn send(socket: BorrowedFd<'_>, kind: PacketKind, fds: &[BorrowedFd<'_>]) -> Result<Sent> {
    let fds: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    socket::send(socket, &[IoSlice::new(&header(kind))], &fds)
}

/// Sends a packet that says where a lane is to be read.
pub fn send_place(
    socket: BorrowedFd<'_>,
    kind: PacketKind,
    place: &Place,
    fds: &[BorrowedFd<'_>],
) -> Result<Sent> {
    let fds: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let place = encode(place);
    socket::send(
        socket,
        &[IoSlice::new(&header(kind)), IoSlice::new(&place)],
        &fds,
    )
}

fn encode(place: &Place) -> [u8; PLACE_LEN] {
    let flags = [
        (place.bounded, BOUNDED),
        (place.pinned, PINNED),
        (place.once, ONCE),
    ];
    let flags = flags
        .into_iter()
        .filter_map(|(set, flag)| set.then_some(flag))
        .sum();
    let words = [
        place.offset,
        place.len,
        place.start,
        place.read,
        place.taken,
        place.base,
        flags,
    ];
    let mut bytes = [0; PLACE_LEN];
    for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The place in a packet that [`send_place`] has sent.
pub fn read_place(packet: &[u8]) -> Result<Place> {
    let body = packet.get(HEADER_LEN..).unwrap_or_default();
    if body.len() != PLACE_LEN {
        return forged("does not say where a lane begins");
    }
    let word = |index: usize| {
        let bytes = &body[index * 8..index * 8 + 8];
        bytes
            .iter()
            .rev()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte))
    };
    Ok(Place {
        offset: word(0),
        len: word(1),
        start: word(2),
        read: word(3),
        taken: word(4),
        base: word(5),
        bounded: word(6) & BOUNDED != 0,
        pinned: word(6) & PINNED != 0,
        once: word(6) & ONCE != 0,
    })
}
