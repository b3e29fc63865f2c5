//! What is first in a socket's queue, and taking it.

use std::cell::RefCell;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::error::{Error, Result};
use crate::intake::Taken;
use crate::message::Message;
use crate::os::descriptor::{self, Leftovers};
use crate::os::socket::{self, Peeked};
use crate::wire::control::{self, BELL};
use crate::wire::native::{self, HEADER_LEN, Header, PacketKind};

thread_local! {
    // A packet is copied out of its queue before it is known how long it is.
    static PACKET: RefCell<Box<[u8]>> = RefCell::new(vec![0; native::MAX_PACKET].into());
}

/// What is first in a queue.
pub(super) enum First {
    Nothing,
    End,
    /// With its stamp.
    Message(u64),
    Bell,
    Control,
    /// To be taken and reported.
    Damaged,
}

pub(super) fn first_packet(
    socket: BorrowedFd<'_>,
    beginning: &mut [u8; HEADER_LEN],
) -> Result<First> {
    let Some((len, beside)) = socket::peek_bytes(socket, beginning)? else {
        return Ok(match socket::peek(socket, &mut [0; 1])? {
            Peeked::Nothing => First::Nothing,
            Peeked::End => First::End,
            Peeked::Packet { len, fds, .. } => {
                descriptor::close_unknown(fds);
                if len > 0 {
                    // It has come between the two looks.
                    return first_packet_again(socket, beginning);
                }
                First::Damaged
            }
        });
    };
    if len == BELL.len() && beginning[0] == BELL[0] {
        return Ok(if beside { First::Damaged } else { First::Bell });
    }
    Ok(
        match beginning.get(..len.min(HEADER_LEN)).map(Header::read) {
            Some(Ok(header)) if header.kind == PacketKind::Message => First::Message(header.stamp),
            Some(Ok(_)) => First::Control,
            _ => First::Damaged,
        },
    )
}

pub(super) fn first_packet_again(
    socket: BorrowedFd<'_>,
    beginning: &mut [u8; HEADER_LEN],
) -> Result<First> {
    Ok(match socket::peek_bytes(socket, beginning)? {
        Some((1, false)) if beginning[0] == BELL[0] => First::Bell,
        Some((len, _)) => match beginning.get(..len.min(HEADER_LEN)).map(Header::read) {
            Some(Ok(header)) if header.kind == PacketKind::Message => First::Message(header.stamp),
            Some(Ok(_)) => First::Control,
            _ => First::Damaged,
        },
        // Somebody else has a duplicate of the socket and plays with it.
        None => First::Nothing,
    })
}

/// Takes a packet that is good for nothing off a queue. What comes with it goes to `leftovers`: closing it may
/// take as long as its sender likes.
pub(super) fn throw_away(socket: BorrowedFd<'_>, leftovers: &mut Leftovers) -> Result<()> {
    if let Peeked::Packet { mut fds, .. } = socket::peek(socket, &mut [0; 1])? {
        leftovers.spent.append(&mut fds);
    }
    socket::discard(socket)
}

/// Takes the message at the head of a queue; None if it is something else.
///
/// Invariant: a packet leaves the queue only once its message is complete in our hands, or once it is
/// known to be forged. The caller keeps other threads away between the look and the taking.
pub(super) fn take_packet<R>(
    socket: BorrowedFd<'_>,
    deliver: &mut dyn FnMut(Taken<'_>) -> Result<R>,
    leftovers: &mut Leftovers,
) -> Result<Option<R>> {
    PACKET.with_borrow_mut(|buffer| {
        let (len, fds) = match socket::peek(socket, buffer)? {
            Peeked::Nothing => return Err(Error::Empty),
            Peeked::End => return Err(Error::Disconnected),
            Peeked::Packet {
                fds,
                fds_missing: true,
                ..
            } => {
                let came = fds.len();
                leftovers.begin_message(fds);
                return Err(no_room(came));
            }
            Peeked::Packet { len, fds, .. } => (len, fds),
        };
        leftovers.begin_message(fds);
        let message = match buffer.get(..len) {
            Some(packet) if packet == BELL => {
                socket::discard(socket)?;
                return Ok(None);
            }
            Some(packet) => match Header::read(packet) {
                Ok(header) if header.kind != PacketKind::Message => return Ok(None),
                Ok(header) => {
                    native::read_packet(&header, packet, leftovers).and_then(Message::assemble)
                }
                Err(error) => Err(error),
            },
            None => Err(Error::Protocol(format!(
                "a packet from the peer is {len} bytes long, and {} are the most",
                native::MAX_PACKET
            ))),
        };
        let outcome = message.and_then(|message| deliver(Taken::Message(message)));
        if matches!(outcome, Ok(_) | Err(Error::Protocol(_))) {
            socket::discard(socket)?;
        }
        outcome.map(Some)
    })
}

pub(super) fn no_room(came: usize) -> Error {
    Error::TooManyHandles(format!(
        "the next message carries descriptors, and this process has room for {came} only; \
         close some or raise the limit (ulimit -n), then receive it again"
    ))
}

/// The announcement at the head of a queue, and its descriptors.
pub(super) fn announced(
    socket: BorrowedFd<'_>,
    leftovers: &mut Leftovers,
) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut packet = [0; HEADER_LEN + control::PLACE_LEN];
    match socket::peek(socket, &mut packet)? {
        Peeked::Packet {
            mut fds,
            fds_missing: true,
            ..
        } => {
            let came = fds.len();
            leftovers.spent.append(&mut fds);
            Err(no_room(came))
        }
        Peeked::Packet { len, fds, .. } => {
            Ok((packet.get(..len).unwrap_or_default().to_vec(), fds))
        }
        _ => Ok((Vec::new(), Vec::new())),
    }
}
