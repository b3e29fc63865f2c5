//! The native message: in a packet of its own, or in a record of a lane.
//!
//! ```text
//! header (64 bytes, little-endian)
//!   magic u32 · flags u8 · version u8 · kind u8 · zero u8 · handles u32 · buffers u32 · chains u32 · zero u32
//!   payload length u64 · body length u64 · stamp u64 · ticket u64 · zeroes
//! body, behind the header or, if flagged, in a sealed memory file
//!   a word for each handle: kind u8 · label u8 · extra u8 · occupied u8 · capacity u32
//!   a word for each buffer: length << 1 | read-only, u64
//!   payload
//!   the buffers, each at a multiple of 64
//! descriptors beside it
//!   the seat of a one-shot server's client, if flagged; the memory file, if flagged; then the handles' own
//!   descriptors, one each and one more where there is something extra, or, when those are too many, sockets
//!   that hold chains of them
//! ```
//!
//! A record of a lane has the same header and body, never a memory file, and its descriptors come by the
//! lane's fd link, see [`crate::fd_link`].
//!
//! Invariant: a packet is in the receiver's queue whole or not at all, and whatever it refers to (the
//! memory file's content, the chains) was complete before it was sent. So nobody ever sees half a message,
//! and a sender that dies half-way has sent nothing.

use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::fd_chain;
use crate::message::{Body, Placed, RegionView};
use crate::os::descriptor::Leftovers;
use crate::os::memory::{self, Access, Mapping};
use crate::os::shared::Region;
use crate::os::{descriptor, socket};
use crate::wire::rust::Version;

const MAGIC: u32 = u32::from_le_bytes(*b"ipcN");
const VERSION: u8 = 2;
const BODY_IN_FILE: u8 = 1;
const WITH_SEAT: u8 = 2;
/// Before every body.
pub const HEADER_LEN: usize = 64;
const BUFFER_ALIGNMENT: usize = 64;
const ENTRY_LEN: usize = 8;

/// The largest packet. Larger ones would need pages from the kernel that hang together.
pub const MAX_PACKET: usize = 64 * 1024;
/// The largest body inside a packet.
pub const MAX_INLINE: usize = MAX_PACKET - HEADER_LEN;
/// Of the kernel's 253 descriptors a packet, those left for handles beside a memory file.
const MAX_DIRECT_FDS: usize = 250;

/// Each costs its reader far more than the eight bytes that announce it.
const MAX_BUFFERS: usize = 1 << 20;

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketKind {
    /// A message.
    Message = 0,
    /// A lane's memory file, and its connection unless it came over that; see [`crate::wire::control`].
    Lane = 1,
    /// A listening socket through which further processes connect.
    Door = 2,
    /// The socket by which descriptors of the lane's messages come.
    Link = 3,
    /// A source of messages that travels with its receiver; see [`crate::wire::luggage`].
    Source = 4,
    /// More of what this socket holds is in the queue of another one.
    Next = 5,
}

/// What kind of handle an entry describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HandleKind {
    /// A channel's socket, for sending; extra: its door.
    Sender = 0,
    /// A channel's socket, for receiving; extra: its luggage.
    Receiver = 1,
    /// A sealed memory file.
    Memory = 2,
    /// An open file of any kind.
    File = 3,
}

/// A handle as its message describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: HandleKind,
    /// For the codec.
    pub label: u8,
    /// A second descriptor follows the first.
    pub extra: bool,
    /// Of a sender that no other process has: KiB that it may have in the socket; 255: others have it.
    pub occupied: u8,
    /// Of a sender: the capacity of its channel; 0: unbounded.
    pub capacity: u32,
    /// Of an end whose other side may be in a Rust program: the version of the crate there. It has nothing else.
    pub foreign: Option<Version>,
}

/// Added to an end's kind.
const FOREIGN: u8 = 16;

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY_LEN] {
        let capacity = self.capacity.to_le_bytes();
        let [a, b, c, d] = capacity;
        let foreign = self.foreign.map_or(0, |version| FOREIGN * version.number());
        [
            self.kind as u8 + foreign,
            self.label,
            self.extra.into(),
            self.occupied,
            a,
            b,
            c,
            d,
        ]
    }

    fn from_bytes(bytes: &[u8]) -> Option<Entry> {
        let foreign = match bytes[0] / FOREIGN {
            0 => None,
            number => Some(Version::of_number(number)?),
        };
        let kind = match bytes[0] % FOREIGN {
            0 => HandleKind::Sender,
            1 => HandleKind::Receiver,
            2 => HandleKind::Memory,
            3 => HandleKind::File,
            _ => return None,
        };
        let is_end = matches!(kind, HandleKind::Sender | HandleKind::Receiver);
        if bytes[2] > u8::from(is_end && foreign.is_none()) || (foreign.is_some() && !is_end) {
            return None;
        }
        Some(Entry {
            kind,
            label: bytes[1],
            extra: bytes[2] == 1,
            occupied: bytes[3],
            capacity: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            foreign,
        })
    }
}

/// A descriptor that is to be sent, kept open until it is.
#[derive(Debug)]
pub enum FdRef<'a> {
    /// One that a concurrent close would otherwise close.
    Shared(Arc<OwnedFd>),
    /// Made for this message.
    Owned(OwnedFd),
    /// The caller's.
    Borrowed(BorrowedFd<'a>),
}

impl AsFd for FdRef<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            FdRef::Shared(fd) => fd.as_fd(),
            FdRef::Owned(fd) => fd.as_fd(),
            FdRef::Borrowed(fd) => fd.as_fd(),
        }
    }
}

/// Where everything is in a body. Both sides compute it from the same numbers.
struct Layout {
    payload: Range<usize>,
    buffers: Vec<Range<usize>>,
    len: usize,
}

impl Layout {
    /// None if the numbers overflow, which only forged ones do.
    fn new(
        handles: usize,
        payload_len: usize,
        buffer_lens: impl ExactSizeIterator<Item = usize>,
    ) -> Option<Layout> {
        let tables = handles
            .checked_mul(ENTRY_LEN)?
            .checked_add(buffer_lens.len().checked_mul(8)?)?;
        let mut len = tables.checked_add(payload_len)?;
        let payload = tables..len;
        let mut buffers = Vec::with_capacity(buffer_lens.len());
        for buffer_len in buffer_lens {
            let start = len.checked_next_multiple_of(BUFFER_ALIGNMENT)?;
            len = start.checked_add(buffer_len)?;
            buffers.push(start..len);
        }
        Some(Layout {
            payload,
            buffers,
            len,
        })
    }
}

/// A message laid out: it can be sent as a packet, or written to a lane; and again if that fails.
#[derive(Debug)]
pub struct Frame<'a> {
    header: [u8; HEADER_LEN],
    tables: Vec<u8>,
    parts: Vec<&'a [u8]>,
    body_len: usize,
    // Made only if it is sent as a packet.
    body_file: OnceLock<OwnedFd>,
    chains: Vec<OwnedFd>,
    fds: Vec<FdRef<'a>>,
}

const ZEROES: [u8; BUFFER_ALIGNMENT] = [0; BUFFER_ALIGNMENT];

impl<'a> Frame<'a> {
    /// Lays out a message, and puts many descriptors into chains.
    pub fn new(
        payload: &'a [u8],
        buffers: &[RegionView<'a>],
        entries: &[Entry],
        fds: Vec<FdRef<'a>>,
    ) -> Result<Frame<'a>> {
        if buffers.len() > MAX_BUFFERS {
            return Err(Error::kernel("layout", rustix::io::Errno::TOOBIG));
        }
        let lens = buffers.iter().map(|buffer| buffer.bytes.len());
        let layout = Layout::new(entries.len(), payload.len(), lens)
            .ok_or_else(|| Error::kernel("layout", rustix::io::Errno::OVERFLOW))?;
        let mut tables = Vec::with_capacity(entries.len() * ENTRY_LEN + buffers.len() * 8);
        for entry in entries {
            tables.extend(entry.to_bytes());
        }
        let mut parts = Vec::with_capacity(1 + 2 * buffers.len());
        parts.push(payload);
        let mut end = layout.payload.end;
        for (buffer, place) in buffers.iter().zip(&layout.buffers) {
            let word = (buffer.bytes.len() as u64) << 1 | u64::from(buffer.readonly);
            tables.extend(word.to_le_bytes());
            parts.push(&ZEROES[..place.start - end]);
            parts.push(buffer.bytes);
            end = place.end;
        }
        let chains = if fds.len() > MAX_DIRECT_FDS {
            fd_chain::write(&raw(&fds))?
        } else {
            Vec::new()
        };
        let mut header = header(PacketKind::Message);
        header[8..12].copy_from_slice(&(entries.len() as u32).to_le_bytes());
        header[12..16].copy_from_slice(&(buffers.len() as u32).to_le_bytes());
        header[16..20].copy_from_slice(&(chains.len() as u32).to_le_bytes());
        header[24..32].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(layout.len as u64).to_le_bytes());
        Ok(Frame {
            header,
            tables,
            parts,
            body_len: layout.len,
            body_file: OnceLock::new(),
            chains,
            fds,
        })
    }

    /// Of the whole message in a lane, header included.
    pub fn len(&self) -> usize {
        HEADER_LEN + self.body_len
    }

    /// Never true: there is always a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether it has nothing but a payload.
    pub fn plain(&self) -> Option<&'a [u8]> {
        match self.parts[..] {
            [payload] if self.tables.is_empty() => Some(payload),
            _ => None,
        }
    }

    /// The descriptors that go beside it in a lane: those of its handles, or chains of them.
    pub fn link_fds(&self) -> Vec<RawFd> {
        if self.chains.is_empty() {
            raw(&self.fds)
        } else {
            self.chains.iter().map(|chain| chain.as_raw_fd()).collect()
        }
    }

    /// Writes it into a lane's ring; `ticket` is that of its descriptors, 0 if it has none.
    pub fn write(&self, region: &Region, mut at: usize, ticket: u64) {
        let mut header = self.header;
        header[48..56].copy_from_slice(&ticket.to_le_bytes());
        let head = [&header[..], &self.tables[..]];
        for part in head.iter().chain(&self.parts) {
            region.copy_in(at, part);
            at += part.len();
        }
    }

    /// Sends it as a packet, with the seat if the sender still has one, or says that the queue is full.
    pub fn send(
        &self,
        socket: BorrowedFd<'_>,
        stamp: u64,
        seat: Option<BorrowedFd<'_>>,
    ) -> Result<socket::Sent> {
        let mut header = self.header;
        header[40..48].copy_from_slice(&stamp.to_le_bytes());
        let mut fds = Vec::new();
        if let Some(seat) = seat {
            header[4] |= WITH_SEAT;
            fds.push(seat.as_raw_fd());
        }
        if self.body_len > MAX_INLINE {
            header[4] |= BODY_IN_FILE;
            fds.push(self.body_in_file()?.as_raw_fd());
            fds.extend(self.link_fds());
            return socket::send(socket, &[IoSlice::new(&header)], &fds);
        }
        if !self.fds.is_empty() {
            fds.extend(self.link_fds());
        }
        if let [payload] = self.parts[..] {
            // The hot case: no buffers.
            let parts = [
                IoSlice::new(&header),
                IoSlice::new(&self.tables),
                IoSlice::new(payload),
            ];
            return socket::send(socket, &parts, &fds);
        }
        // Few parts: a body of many buffers that fits a packet is gathered into one.
        let gathered = self.parts.concat();
        let parts = [
            IoSlice::new(&header),
            IoSlice::new(&self.tables),
            IoSlice::new(&gathered),
        ];
        socket::send(socket, &parts, &fds)
    }

    fn body_in_file(&self) -> Result<&OwnedFd> {
        if let Some(file) = self.body_file.get() {
            return Ok(file);
        }
        let file = memory::create("ipc-channel-message", 0)?;
        let mut parts: Vec<&[u8]> = vec![&self.tables];
        parts.extend(&self.parts);
        memory::write_all(file.as_fd(), &parts)?;
        memory::seal_content(file.as_fd())?;
        Ok(self.body_file.get_or_init(|| file))
    }
}

fn raw(fds: &[FdRef<'_>]) -> Vec<RawFd> {
    fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect()
}

/// The header of a packet without a body.
pub fn header(kind: PacketKind) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[5] = VERSION;
    header[6] = kind as u8;
    header
}

/// A header as it came.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// What the packet is.
    pub kind: PacketKind,
    /// When it was sent, or so its sender says.
    pub stamp: u64,
    /// In a lane: of the descriptors that came by its link; 0: there are none.
    pub ticket: u64,
    body_in_file: bool,
    with_seat: bool,
    handles: usize,
    buffers: usize,
    chains: usize,
    payload_len: usize,
    body_len: usize,
}

impl Header {
    /// Of the packet or record that begins with these bytes.
    pub fn read(packet: &[u8]) -> Result<Header> {
        if packet.len() < HEADER_LEN {
            return forged("is shorter than a header");
        }
        let word = |at: usize| {
            u32::from_le_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if word(0) != MAGIC {
            return forged("does not begin as one of this protocol");
        }
        if packet[5] != VERSION {
            return forged(&format!(
                "is of version {} of the protocol, and this is version {VERSION}; \
                 use the same release of ipc-channel on both sides",
                packet[5]
            ));
        }
        let (Ok(payload_len), Ok(body_len)) =
            (usize::try_from(long(24)), usize::try_from(long(32)))
        else {
            return forged("has impossible lengths");
        };
        let kind = match packet[6] {
            0 => PacketKind::Message,
            1 => PacketKind::Lane,
            2 => PacketKind::Door,
            3 => PacketKind::Link,
            4 => PacketKind::Source,
            5 => PacketKind::Next,
            _ => return forged("is of no known kind"),
        };
        if packet[4] & !(BODY_IN_FILE | WITH_SEAT) != 0
            || packet[7] != 0
            || packet[20..24] != [0; 4]
            || packet[56..HEADER_LEN] != [0; 8]
        {
            return forged("has unknown flags");
        }
        Ok(Header {
            kind,
            stamp: long(40),
            ticket: long(48),
            body_in_file: packet[4] & BODY_IN_FILE != 0,
            with_seat: packet[4] & WITH_SEAT != 0,
            handles: word(8) as usize,
            buffers: word(12) as usize,
            chains: word(16) as usize,
            payload_len,
            body_len,
        })
    }

    /// The length of the body.
    pub fn body_len(&self) -> usize {
        self.body_len
    }

    /// Whether it is one of a message whose body follows it.
    pub fn fits_a_lane(&self) -> bool {
        self.kind == PacketKind::Message && !self.with_seat && !self.body_in_file
    }

    /// The length of the tables at the body's start; an error if they do not fit it.
    pub fn tables_len(&self) -> Result<usize> {
        if self.buffers > MAX_BUFFERS {
            return forged("has more buffers than anybody needs");
        }
        let len = self.handles as u64 * ENTRY_LEN as u64 + self.buffers as u64 * 8;
        if len > self.body_len as u64 {
            return forged("counts more handles than it describes");
        }
        Ok(len as usize)
    }
}

/// An error that says what is wrong with a packet.
pub fn forged<T>(what: &str) -> Result<T> {
    Err(Error::Protocol(format!("a packet from the peer {what}")))
}

/// A handle's descriptors, checked to be of its kind.
#[derive(Debug)]
pub struct Item {
    /// What the message says of it.
    pub entry: Entry,
    /// Its own descriptor.
    pub fd: OwnedFd,
    /// What belongs to it.
    pub extra: Option<OwnedFd>,
}

/// A message taken apart, its handles not yet made.
#[derive(Debug)]
pub struct Parts {
    /// Where the bytes are.
    pub body: Body,
    /// Where the payload is in the body.
    pub payload: Range<usize>,
    /// Where each buffer is, and whether it is read-only.
    pub buffers: Vec<(Range<usize>, bool)>,
    /// In the order they were sent in.
    pub items: Vec<Item>,
    /// A one-shot server's client's place.
    pub seat: Option<OwnedFd>,
}

/// Reads a packet that is still in its queue.
///
/// After [`Error::Protocol`] the packet should be discarded; after any other error it may be read again,
/// and nothing of it is lost. Descriptors that do not become part of the message stay in `unread`.
pub fn read_packet(header: &Header, packet: &[u8], unread: &mut Leftovers) -> Result<Parts> {
    if header.with_seat {
        if unread.fds.is_empty() {
            return forged("lacks the seat that it says it carries");
        }
        unread.seat = Some(unread.fds.remove(0));
    }
    let body = if header.body_in_file {
        Body::Placed(Arc::new(Placed::Sealed(map_body(header, unread)?)))
    } else if packet.len() - HEADER_LEN == header.body_len {
        Body::Inline(packet[HEADER_LEN..].to_vec())
    } else {
        return forged("is not as long as it says");
    };
    let mut tables = vec![0; header.tables_len()?];
    body.copy_out(0, &mut tables);
    let mut parts = read_body(header, &tables, body, unread)?;
    parts.seat = unread.seat.take();
    Ok(parts)
}

/// Takes a message's body apart; `tables` is a private copy of its beginning.
pub fn read_body(
    header: &Header,
    tables: &[u8],
    body: Body,
    unread: &mut Leftovers,
) -> Result<Parts> {
    let (entries, words) = tables.split_at(header.handles * ENTRY_LEN);
    let words: Vec<u64> = words
        .chunks_exact(8)
        .map(|word| {
            word.iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte))
        })
        .collect();
    let layout = Layout::new(
        header.handles,
        header.payload_len,
        words.iter().map(|word| (word >> 1) as usize),
    );
    let Some(layout) =
        layout.filter(|layout| layout.len == header.body_len && layout.len == body.len())
    else {
        return forged("has a body that its lengths do not fit");
    };
    let buffers = layout
        .buffers
        .into_iter()
        .zip(&words)
        .map(|(place, word)| (place, word & 1 != 0))
        .collect();
    let items = read_items(header, entries, unread)?;
    if !unread.fds.is_empty() {
        return forged("carries descriptors that it does not mention");
    }
    Ok(Parts {
        payload: layout.payload,
        buffers,
        items,
        body,
        seat: None,
    })
}

fn map_body(header: &Header, unread: &mut Leftovers) -> Result<Mapping> {
    let Some(file) = unread.fds.first() else {
        return forged("lacks the file with its body");
    };
    let sealed = descriptor::check_sealed_memory(file.as_fd())?;
    if !sealed.frozen {
        return forged("has a body that its sender could still change");
    }
    if header.body_len == 0 || sealed.size != header.body_len as u64 || !sealed.whole {
        return forged("has a body that is not as long as it says");
    }
    // Copy-on-write: buffers that were writable at the sender are writable here, in private pages.
    let mapping = Mapping::new(file.as_fd(), header.body_len, Access::CopyOnWrite)?;
    unread.fds.remove(0);
    Ok(mapping)
}

fn read_items(header: &Header, table: &[u8], unread: &mut Leftovers) -> Result<Vec<Item>> {
    let mut entries = Vec::with_capacity(header.handles);
    for bytes in table.chunks_exact(ENTRY_LEN) {
        match Entry::from_bytes(bytes) {
            Some(entry) => entries.push(entry),
            None => return forged("names an unknown kind of handle"),
        }
    }
    let count = entries.len() + entries.iter().filter(|entry| entry.extra).count();
    if header.chains > 0 {
        unread.chains = std::mem::take(&mut unread.fds);
        fd_chain::read(&unread.chains, header.chains, count, &mut unread.fds)?;
    }
    if unread.fds.len() != count {
        return forged("carries another number of descriptors than it says");
    }
    let mut fds = unread.fds.iter();
    for entry in &entries {
        let fd = fds.next().map(|fd| fd.as_fd());
        let extra = if entry.extra { fds.next() } else { None };
        match (entry.kind, fd, extra.map(|fd| fd.as_fd())) {
            (HandleKind::Sender, Some(fd), door) => {
                descriptor::check_channel_socket(fd)?;
                door.map_or(Ok(()), descriptor::check_place)?;
            }
            (HandleKind::Receiver, Some(fd), luggage) => {
                descriptor::check_channel_socket(fd)?;
                luggage.map_or(Ok(()), descriptor::check_channel_socket)?;
            }
            (HandleKind::Memory, Some(fd), _) => {
                descriptor::check_sealed_memory(fd)?;
            }
            _ => {}
        }
    }
    // Every descriptor is what the packet says: nothing is thrown away from here on but by an error of
    // the kernel's, which leaves the packet in its queue.
    let mut fds = std::mem::take(&mut unread.fds).into_iter();
    let mut items = Vec::with_capacity(entries.len());
    for entry in entries {
        let (Some(fd), extra) = (fds.next(), if entry.extra { fds.next() } else { None }) else {
            return forged("carries another number of descriptors than it says");
        };
        items.push(Item { entry, fd, extra });
    }
    Ok(items)
}
