//! The native packet: one message, one packet, always.
//!
//! ```text
//! header (40 bytes, little-endian)
//!   magic u32 · flags u8 · version u8 · zero u16 · handles u32 · buffers u32 · chains u32 · zero u32
//!   payload length u64 · body length u64
//! body, inside the packet or, if flagged, in a sealed memory file
//!   a word for each handle: kind u8 · label u8 · zero u16
//!   a word for each buffer: length << 1 | read-only, u64
//!   payload
//!   the buffers, each at a multiple of 64
//! descriptors beside it
//!   the seat of a one-shot server's client, if flagged; the memory file, if flagged; then the handles' own descriptors, one each,
//!   or, when those are too many, sockets that hold chains of them
//! ```
//!
//! Invariant: a packet is in the receiver's queue whole or not at all, and whatever it refers to (the
//! memory file's content, the chains) was complete before it was sent. So nobody ever sees half a message,
//! and a sender that dies half-way has sent nothing.

use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fd_chain;
use crate::message::{Body, Handle, HandleRef, Message, Parcel, Received};
use crate::os::descriptor::Leftovers;
use crate::os::memory::{self, Access, Mapping};
use crate::os::{descriptor, socket};
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::shared_memory::SharedMemory;

const MAGIC: u32 = u32::from_le_bytes(*b"ipcN");
const VERSION: u8 = 1;
const BODY_IN_FILE: u8 = 1;
const WITH_SEAT: u8 = 2;
const HEADER_LEN: usize = 40;
const BUFFER_ALIGNMENT: usize = 64;

/// The largest packet. Larger ones would need pages from the kernel that hang together.
pub const MAX_PACKET: usize = 64 * 1024;
/// The largest body inside a packet.
pub const MAX_INLINE: usize = MAX_PACKET - HEADER_LEN;
/// Of the kernel's 253 descriptors a packet, those left for handles beside a memory file.
const MAX_DIRECT_FDS: usize = 250;

/// Each costs its reader far more than the eight bytes that announce it.
const MAX_BUFFERS: usize = 1 << 20;

const KIND_SENDER: u8 = 0;
const KIND_RECEIVER: u8 = 1;
const KIND_MEMORY: u8 = 2;
const KIND_FILE: u8 = 3;

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
            .checked_mul(4)?
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

/// A message made ready: sending it is one system call, which may be tried again.
#[derive(Debug)]
pub struct Packet<'a> {
    header: [u8; HEADER_LEN],
    tables: Vec<u8>,
    parts: Vec<&'a [u8]>,
    body_file: Option<OwnedFd>,
    chains: Vec<OwnedFd>,
    // Kept open until the packet is sent; a borrowed one would not outlive a concurrent close.
    handle_fds: Vec<Arc<OwnedFd>>,
    files: Vec<BorrowedFd<'a>>,
    fds: Vec<RawFd>,
}

const ZEROES: [u8; BUFFER_ALIGNMENT] = [0; BUFFER_ALIGNMENT];

impl<'a> Packet<'a> {
    /// Lays out `parcel`, writes a large body to its file and many descriptors to their chains.
    pub fn new(parcel: &Parcel<'a>) -> Result<Packet<'a>> {
        let count = parcel.handles.len();
        if parcel.buffers.len() > MAX_BUFFERS {
            return Err(Error::kernel("layout", rustix::io::Errno::TOOBIG));
        }
        let layout = Layout::new(
            count,
            parcel.payload.len(),
            parcel.buffers.iter().map(|buffer| buffer.bytes.len()),
        )
        .ok_or_else(|| Error::kernel("layout", rustix::io::Errno::OVERFLOW))?;

        let mut packet = Packet {
            header: [0; HEADER_LEN],
            tables: Vec::with_capacity(count * 4 + parcel.buffers.len() * 8),
            parts: vec![parcel.payload],
            body_file: None,
            chains: Vec::new(),
            handle_fds: Vec::new(),
            files: Vec::new(),
            fds: Vec::new(),
        };
        for (handle, label) in &parcel.handles {
            let kind = packet.add_handle(handle)?;
            packet.tables.extend([kind, *label, 0, 0]);
        }
        let mut end = layout.payload.end;
        for (buffer, place) in parcel.buffers.iter().zip(&layout.buffers) {
            let word = (buffer.bytes.len() as u64) << 1 | u64::from(buffer.readonly);
            packet.tables.extend(word.to_le_bytes());
            packet.parts.push(&ZEROES[..place.start - end]);
            packet.parts.push(buffer.bytes);
            end = place.end;
        }
        if packet.fds.len() > MAX_DIRECT_FDS {
            packet.chains = fd_chain::write(&packet.fds)?;
            packet.fds = packet
                .chains
                .iter()
                .map(|chain| chain.as_raw_fd())
                .collect();
        }
        if layout.len > MAX_INLINE {
            packet.put_body_in_file()?;
        }
        packet.write_header(parcel, &layout);
        Ok(packet)
    }

    fn add_handle(&mut self, handle: &HandleRef<'a>) -> Result<u8> {
        let (kind, fd) = match handle {
            HandleRef::Sender(sender) => (KIND_SENDER, sender.end().socket()?),
            HandleRef::Receiver(receiver) => (KIND_RECEIVER, receiver.end().socket_even_moving()?),
            HandleRef::Memory(region) => {
                region.freeze()?;
                (KIND_MEMORY, region.file())
            }
            HandleRef::File(file) => {
                self.files.push(*file);
                self.fds.push(file.as_raw_fd());
                return Ok(KIND_FILE);
            }
        };
        self.fds.push(fd.as_raw_fd());
        self.handle_fds.push(fd);
        Ok(kind)
    }

    fn put_body_in_file(&mut self) -> Result<()> {
        let file = memory::create("ipc-channel-message", 0)?;
        let mut parts: Vec<&[u8]> = vec![&self.tables];
        parts.extend(&self.parts);
        memory::write_all(file.as_fd(), &parts)?;
        self.parts.clear();
        memory::seal_content(file.as_fd())?;
        self.tables = Vec::new();
        self.fds.insert(0, file.as_raw_fd());
        self.body_file = Some(file);
        Ok(())
    }

    fn write_header(&mut self, parcel: &Parcel<'_>, layout: &Layout) {
        let flags = if self.body_file.is_some() {
            BODY_IN_FILE
        } else {
            0
        };
        let header = &mut self.header;
        header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4] = flags;
        header[5] = VERSION;
        header[8..12].copy_from_slice(&(parcel.handles.len() as u32).to_le_bytes());
        header[12..16].copy_from_slice(&(parcel.buffers.len() as u32).to_le_bytes());
        header[16..20].copy_from_slice(&(self.chains.len() as u32).to_le_bytes());
        header[24..32].copy_from_slice(&(parcel.payload.len() as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(layout.len as u64).to_le_bytes());
    }

    /// Sends it, with the seat if the sender still has one, or says that the queue is full.
    pub fn send(
        &self,
        socket: BorrowedFd<'_>,
        seat: Option<BorrowedFd<'_>>,
    ) -> Result<socket::Sent> {
        match seat {
            None => self.send_as(&self.header, socket, &self.fds),
            Some(seat) => {
                let mut header = self.header;
                header[4] |= WITH_SEAT;
                let fds = [&[seat.as_raw_fd()], &self.fds[..]].concat();
                self.send_as(&header, socket, &fds)
            }
        }
    }

    fn send_as(
        &self,
        header: &[u8],
        socket: BorrowedFd<'_>,
        fds: &[RawFd],
    ) -> Result<socket::Sent> {
        if let [payload] = self.parts[..] {
            // The hot case: no buffers.
            let parts = [
                IoSlice::new(header),
                IoSlice::new(&self.tables),
                IoSlice::new(payload),
            ];
            return socket::send(socket, &parts, fds);
        }
        // Few parts: a body of many buffers that fits a packet is gathered into one.
        let gathered = self.parts.concat();
        let parts = [
            IoSlice::new(header),
            IoSlice::new(&self.tables),
            IoSlice::new(&gathered),
        ];
        socket::send(socket, &parts, fds)
    }
}

struct Header {
    body_in_file: bool,
    with_seat: bool,
    handles: usize,
    buffers: usize,
    chains: usize,
    payload_len: usize,
    body_len: usize,
}

impl Header {
    fn read(packet: &[u8]) -> Result<Header> {
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
        if packet[4] & !(BODY_IN_FILE | WITH_SEAT) != 0
            || packet[6..8] != [0; 2]
            || packet[20..24] != [0; 4]
        {
            return forged("has unknown flags");
        }
        Ok(Header {
            body_in_file: packet[4] & BODY_IN_FILE != 0,
            with_seat: packet[4] & WITH_SEAT != 0,
            handles: word(8) as usize,
            buffers: word(12) as usize,
            chains: word(16) as usize,
            payload_len,
            body_len,
        })
    }
}

fn forged<T>(what: &str) -> Result<T> {
    Err(Error::Protocol(format!("a packet from the peer {what}")))
}

/// Reads a packet that is still in its queue.
///
/// After [`Error::Protocol`] the packet should be discarded; after any other error it may be read again,
/// and nothing of it is lost. Descriptors that do not become part of the message stay in `unread`.
pub fn read(packet: &[u8], unread: &mut Leftovers) -> Result<Message> {
    let header = Header::read(packet)?;
    if header.with_seat {
        if unread.fds.is_empty() {
            return forged("lacks the seat that it says it carries");
        }
        unread.seat = Some(unread.fds.remove(0));
    }
    let body = if header.body_in_file {
        Body::Sealed(Arc::new(map_body(&header, unread)?))
    } else if packet.len() - HEADER_LEN == header.body_len {
        Body::Inline(packet[HEADER_LEN..].to_vec())
    } else {
        return forged("is not as long as it says");
    };
    let bytes = body.bytes();
    if header.buffers > MAX_BUFFERS {
        return forged("has more buffers than anybody needs");
    }
    let tables_len = header.handles as u64 * 4 + header.buffers as u64 * 8;
    if tables_len > bytes.len() as u64 {
        return forged("counts more handles than it describes");
    }
    let (kinds, rest) = bytes.split_at(header.handles * 4);
    let words: Vec<u64> = rest[..header.buffers * 8]
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
    let Some(layout) = layout.filter(|layout| layout.len == bytes.len()) else {
        return forged("has a body that its lengths do not fit");
    };
    let buffers = layout
        .buffers
        .into_iter()
        .zip(&words)
        .map(|(place, word)| (place, word & 1 != 0))
        .collect();
    let handles = read_handles(&header, kinds, unread)?;
    if !unread.fds.is_empty() {
        return forged("carries descriptors that it does not mention");
    }
    Ok(Message {
        payload: layout.payload,
        buffers,
        handles,
        body,
        seat: unread.seat.take(),
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

fn read_handles(header: &Header, kinds: &[u8], unread: &mut Leftovers) -> Result<Vec<Received>> {
    if header.chains > 0 {
        unread.chains = std::mem::take(&mut unread.fds);
        fd_chain::read(
            &unread.chains,
            header.chains,
            header.handles,
            &mut unread.fds,
        )?;
    }
    if unread.fds.len() != header.handles {
        return forged("carries another number of descriptors than it says");
    }
    for (entry, fd) in kinds.chunks_exact(4).zip(&unread.fds) {
        match entry[0] {
            KIND_SENDER | KIND_RECEIVER => descriptor::check_channel_socket(fd.as_fd())?,
            KIND_MEMORY => descriptor::check_sealed_memory(fd.as_fd()).map(drop)?,
            KIND_FILE => {}
            _ => return forged("names an unknown kind of handle"),
        }
    }
    // Every descriptor is what the packet says: nothing is thrown away from here on but by an error of
    // the kernel's, which leaves the packet in its queue.
    let mut handles = Vec::with_capacity(header.handles);
    for (entry, fd) in kinds.chunks_exact(4).zip(std::mem::take(&mut unread.fds)) {
        let handle = match entry[0] {
            KIND_SENDER => Handle::Sender(Sender::from_socket(fd)?),
            KIND_RECEIVER => Handle::Receiver(Receiver::from_socket(fd)?),
            KIND_MEMORY => Handle::Memory(Arc::new(SharedMemory::from_file(fd)?)),
            _ => Handle::File(fd),
        };
        handles.push(Received {
            handle,
            label: entry[1],
        });
    }
    Ok(handles)
}
