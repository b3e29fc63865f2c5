//! A message before it is sent and after it has been received.

use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::os::descriptor;
use crate::os::memory::Mapping;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::shared_memory::SharedMemory;

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
}

/// A handle and its label.
#[derive(Debug)]
pub struct Received {
    /// What it is.
    pub handle: Handle,
    /// The sender's label for its codec. Only a hint: a hostile peer may lie.
    pub label: u8,
}

/// Where a received message's bytes are.
#[derive(Debug)]
pub enum Body {
    /// In our own memory.
    Inline(Vec<u8>),
    /// In a file that nobody can change, mapped privately.
    Sealed(Arc<Mapping>),
}

impl Body {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Body::Inline(bytes) => bytes,
            Body::Sealed(mapping) => {
                #[allow(unsafe_code)]
                // SAFETY: the wire maps only files whose content is sealed, privately, and writable
                // buffers are handed out only for ranges that nothing here reads again.
                unsafe {
                    mapping.as_slice()
                }
            }
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
    /// The encoded message.
    pub fn payload(&self) -> &[u8] {
        &self.body.bytes()[self.payload.clone()]
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        let files = std::mem::take(&mut self.handles)
            .into_iter()
            .filter_map(|received| match received.handle {
                Handle::File(file) => Some(file),
                _ => None,
            })
            .chain(self.seat.take())
            .collect::<Vec<_>>();
        if !files.is_empty() {
            descriptor::close_unknown(files);
        }
    }
}
