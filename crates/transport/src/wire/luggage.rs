//! What a receiver takes along when it moves: its door and the connections and lanes of its senders.
//!
//! A socket's queue holds a packet for each; when there are many, the last packet holds a further such socket.
//! Everything goes on living while it travels: senders do not notice. The reading side looks at the packets
//! without taking any, so a message whose descriptors cannot all be had stays whole.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, Result};
use crate::lane::consumer::Place;
use crate::os::descriptor;
use crate::os::socket::{self, Peeked, Sent};
use crate::wire::control::{self, PLACE_LEN};
use crate::wire::native::{HEADER_LEN, Header, PacketKind, forged};

const PACKETS_A_SOCKET: usize = 128;
const MOST_SOCKETS: usize = 64;

/// A source on its way out.
#[derive(Clone, Copy, Debug)]
pub enum Outgoing<'a> {
    /// A listening socket.
    Door(BorrowedFd<'a>),
    /// A process's own connection.
    Connection(BorrowedFd<'a>),
    /// A connection with a lane, and its link if it has one.
    Lane {
        /// Where the lane is to be read.
        place: Place,
        /// Its memory.
        file: BorrowedFd<'a>,
        /// Its connection. The producer may be gone and everything else still unread.
        connection: BorrowedFd<'a>,
        /// Where its descriptors come.
        link: Option<BorrowedFd<'a>>,
    },
}

/// A source that has arrived.
#[derive(Debug)]
pub enum Incoming {
    /// A listening socket.
    Door(OwnedFd),
    /// A process's own connection.
    Connection(OwnedFd),
    /// A connection with a lane.
    Lane {
        /// Where the lane is to be read.
        place: Place,
        /// Its memory.
        file: OwnedFd,
        /// Its connection.
        connection: OwnedFd,
        /// Where its descriptors come.
        link: Option<OwnedFd>,
    },
}

/// Packs `sources` into a socket.
pub fn write(sources: &[Outgoing<'_>]) -> Result<OwnedFd> {
    if sources.len() > MOST_SOCKETS * PACKETS_A_SOCKET {
        return Err(Error::TooManyHandles(format!(
            "the receiver has {} connections, too many to move it; receive what they have sent first",
            sources.len()
        )));
    }
    let mut next: Option<OwnedFd> = None;
    for chunk in sources.chunks(PACKETS_A_SOCKET).rev() {
        let (inlet, outlet) = socket::pair()?;
        for source in chunk {
            sent(match source {
                Outgoing::Door(door) => control::send(inlet.as_fd(), PacketKind::Door, &[*door])?,
                Outgoing::Connection(connection) => {
                    control::send(inlet.as_fd(), PacketKind::Source, &[*connection])?
                }
                Outgoing::Lane {
                    place,
                    file,
                    connection,
                    link,
                } => {
                    let mut fds = vec![*connection, *file];
                    fds.extend(link);
                    control::send_place(inlet.as_fd(), PacketKind::Source, place, &fds)?
                }
            })?;
        }
        if let Some(next) = &next {
            sent(control::send(
                inlet.as_fd(),
                PacketKind::Next,
                &[next.as_fd()],
            )?)?;
        }
        next = Some(outlet);
    }
    match next {
        Some(outlet) => Ok(outlet),
        None => Ok(socket::pair()?.1),
    }
}

fn sent(sent: Sent) -> Result<()> {
    match sent {
        Sent::Whole => Ok(()),
        Sent::WouldBlock => Err(Error::TooManyHandles(
            "the receiver's connections do not fit the kernel's socket buffers".into(),
        )),
    }
}

/// Unpacks what [`write`] has packed, leaving it as it is.
pub fn read(outlet: BorrowedFd<'_>) -> Result<Vec<Incoming>> {
    let mut all = Vec::new();
    let mut outlet = descriptor::duplicate(outlet)?;
    for _ in 0..MOST_SOCKETS {
        match read_one(outlet.as_fd(), &mut all)? {
            Some(next) => outlet = next,
            None => return Ok(all),
        }
    }
    forged("carries a receiver with endless luggage")
}

fn read_one(outlet: BorrowedFd<'_>, all: &mut Vec<Incoming>) -> Result<Option<OwnedFd>> {
    socket::peek_one_after_the_other(outlet)?;
    for _ in 0..=PACKETS_A_SOCKET {
        let mut packet = [0; HEADER_LEN + PLACE_LEN];
        let (len, fds) = match socket::peek(outlet, &mut packet)? {
            Peeked::Nothing | Peeked::End => return Ok(None),
            Peeked::Packet {
                fds_missing: true, ..
            } => {
                return Err(Error::TooManyHandles(
                    "the next message carries a receiver with many senders, and this process has no room \
                     for their connections; close something or raise the limit (ulimit -n), then receive \
                     it again"
                        .into(),
                ));
            }
            Peeked::Packet { len, fds, .. } => (len, fds),
        };
        let Some(packet) = packet.get(..len) else {
            descriptor::close_unknown(fds);
            return forged("carries a receiver with damaged luggage");
        };
        let kind = Header::read(packet)?.kind;
        let place = (len > HEADER_LEN)
            .then(|| control::read_place(packet))
            .transpose()?;
        let mut fds = fds.into_iter();
        let come = [fds.next(), fds.next(), fds.next(), fds.next()];
        match (kind, place, come) {
            (PacketKind::Door, None, [Some(door), None, None, None]) => {
                descriptor::check_listening_socket(door.as_fd())?;
                all.push(Incoming::Door(door));
            }
            (PacketKind::Source, None, [Some(connection), None, None, None]) => {
                descriptor::check_channel_socket(connection.as_fd())?;
                all.push(Incoming::Connection(connection));
            }
            (PacketKind::Source, Some(place), [Some(connection), Some(file), link, None]) => {
                descriptor::check_channel_socket(connection.as_fd())?;
                if let Some(link) = &link {
                    descriptor::check_channel_socket(link.as_fd())?;
                }
                all.push(Incoming::Lane {
                    place,
                    file,
                    connection,
                    link,
                });
            }
            (PacketKind::Next, None, [Some(next), None, None, None]) => {
                descriptor::check_channel_socket(next.as_fd())?;
                return Ok(Some(next));
            }
            (_, _, come) => {
                descriptor::close_unknown(come.into_iter().flatten().chain(fds).collect());
                return forged("carries a receiver with damaged luggage");
            }
        }
    }
    forged("carries a receiver with damaged luggage")
}
