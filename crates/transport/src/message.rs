//! A message before it is sent and after it has been received.

use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::error::Result;
use crate::frames::reader::Holders;
use crate::lane::Hold;
use crate::os::descriptor;
use crate::os::memory::Mapping;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::shared_memory::SharedMemory;
use crate::wire::luggage;
use crate::wire::native::{HandleKind, Parts};

/// What is to be sent. Nothing of it changes hands unless the send succeeds.
#[derive(Debug, Default)]
pub struct Parcel<'a> {
    /// The encoded message.
    pub payload: &'a [u8],
    /// Out-of-band buffers.
    pub buffers: Vec<RegionView<'a>>,
    /// What travels beside the bytes, each with a label for the codec at the other side.
    pub handles: Vec<(HandleRef<'a>, u8)>,
}

/// An out-of-band buffer to be sent.
#[derive(Clone, Copy, Debug)]
pub struct RegionView<'a> {
    /// Its content.
    pub bytes: &'a [u8],
    /// Whether it is read-only at the other side.
    pub readonly: bool,
}

/// Something to be sent that is more than bytes.
#[derive(Clone, Copy, Debug)]
pub enum HandleRef<'a> {
    /// Moves. May occur several times in one message.
    Sender(&'a Sender),
    /// Moves.
    Receiver(&'a Receiver),
    /// Is duplicated, and frozen first unless mutable.
    Memory(&'a Arc<SharedMemory>),
    /// Is duplicated.
    File(BorrowedFd<'a>),
}

/// Something received that is more than bytes.
#[derive(Debug)]
pub enum Handle {
    /// A sending end.
    Sender(Sender),
    /// A receiving end.
    Receiver(Receiver),
    /// A region of shared memory.
    Memory(Arc<SharedMemory>),
    /// An open file of any kind.
    File(OwnedFd),
    /// What came from a Rust program: a sender, a receiver or shared memory, and only the type of the message says
    /// which; see [`crate::frames`].
    Foreign(OwnedFd),
}

/// A handle and its label.
#[derive(Debug)]
pub struct Received {
    /// What it is.
    pub handle: Handle,
    /// The sender's label for its codec. Only a hint: a hostile peer may lie.
    pub label: u8,
}

/// Bytes that lie where the sender has put them.
#[derive(Debug)]
pub enum Placed {
    /// In a file that nobody can change, mapped privately.
    Sealed(Mapping),
    /// In a lane, where the sender could still change them.
    Lane(Hold),
}

/// Where a received message's bytes are.
#[derive(Clone, Debug)]
pub enum Body {
    /// In our own memory.
    Inline(Vec<u8>),
    /// Where the sender has put them.
    Placed(Arc<Placed>),
}

impl Placed {
    /// Where a part of it lies. Panics if it is not all inside.
    pub fn pointer(&self, place: &Range<usize>) -> *mut u8 {
        match self {
            Placed::Sealed(mapping) => {
                assert!(place.start <= place.end && place.end <= mapping.len());
                mapping.pointer().wrapping_add(place.start)
            }
            Placed::Lane(hold) => hold.pointer(place.start, place.end - place.start),
        }
    }

    /// Whether it stays as it is, whatever the sender does.
    pub fn is_constant(&self) -> bool {
        matches!(self, Placed::Sealed(_))
    }
}

impl Body {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Body::Inline(bytes) => bytes.len(),
            Body::Placed(placed) => match &**placed {
                Placed::Sealed(mapping) => mapping.len(),
                Placed::Lane(hold) => hold.len(),
            },
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies a part of it; panics if that is not all inside.
    pub fn copy_out(&self, at: usize, bytes: &mut [u8]) {
        match self {
            Body::Inline(all) => bytes.copy_from_slice(&all[at..at + bytes.len()]),
            Body::Placed(placed) => match &**placed {
                Placed::Sealed(mapping) => mapping.copy_out(at, bytes),
                Placed::Lane(hold) => hold.copy_out(at, bytes),
            },
        }
    }
}

/// A received message. Dropping it closes the handles that were not taken out.
#[derive(Debug)]
pub struct Message {
    /// Payload and buffers.
    pub body: Body,
    /// Where the payload is in the body.
    pub payload: Range<usize>,
    /// Where each buffer is in the body, and whether it is read-only.
    pub buffers: Vec<(Range<usize>, bool)>,
    /// In the order they were sent in.
    pub handles: Vec<Received>,
    /// A one-shot server's client's place, which is free again when this is closed.
    pub seat: Option<OwnedFd>,
}

impl Message {
    /// One that has nothing but a payload.
    pub fn plain(body: Body) -> Message {
        Message {
            payload: 0..body.len(),
            body,
            buffers: Vec::new(),
            handles: Vec::new(),
            seat: None,
        }
    }

    /// Makes the handles of a message that was taken apart. If one cannot be made, no sender or receiver at
    /// the other side has noticed anything.
    pub(crate) fn assemble(parts: Parts) -> Result<Message> {
        let mut handles = Vec::with_capacity(parts.items.len());
        for item in parts.items {
            let entry = item.entry;
            let handle = match entry.kind {
                HandleKind::Sender if let Some(version) = entry.foreign => {
                    Handle::Sender(Sender::of_frames(item.fd, version))
                }
                HandleKind::Receiver if let Some(version) = entry.foreign => {
                    Handle::Receiver(Receiver::of_frames(item.fd, version, Holders::Others)?)
                }
                HandleKind::Sender => Handle::Sender(Sender::received(item.fd, item.extra, &entry)),
                HandleKind::Receiver => {
                    let luggage = match &item.extra {
                        Some(luggage) => luggage::read(std::os::fd::AsFd::as_fd(luggage))?,
                        None => Vec::new(),
                    };
                    Handle::Receiver(Receiver::received(item.fd, luggage)?)
                }
                HandleKind::Memory => Handle::Memory(Arc::new(SharedMemory::from_file(item.fd)?)),
                HandleKind::File => Handle::File(item.fd),
            };
            handles.push(Received {
                handle,
                label: entry.label,
            });
        }
        Ok(Message {
            body: parts.body,
            payload: parts.payload,
            buffers: parts.buffers,
            handles,
            seat: parts.seat,
        })
    }

    /// Whether it has nothing but a payload.
    pub fn is_plain(&self) -> bool {
        self.handles.is_empty() && self.buffers.is_empty()
    }

    /// Copies the encoded message, of `payload.len()` bytes.
    pub fn copy_payload(&self, bytes: &mut [u8]) {
        self.body.copy_out(self.payload.start, bytes);
    }

    /// A copy of the encoded message.
    pub fn payload(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.payload.len()];
        self.copy_payload(&mut bytes);
        bytes
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        let files = std::mem::take(&mut self.handles)
            .into_iter()
            .filter_map(|received| match received.handle {
                Handle::File(file) | Handle::Foreign(file) => Some(file),
                _ => None,
            })
            .chain(self.seat.take())
            .collect::<Vec<_>>();
        if !files.is_empty() {
            descriptor::close_unknown(files);
        }
    }
}
