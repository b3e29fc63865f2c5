//! What waits to be written, in order. Small messages lie together, as the packets that they will be: so they take little
//! memory, and a row of them goes out by one system call.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::frames::writer::Progress;
use crate::wire::rust::Version;

/// Messages in a row: so many are written before other threads get at the backlog.
pub(super) const AT_ONCE: usize = 32;

/// A message that waits by itself. Its descriptors are open as long as it does.
#[derive(Debug)]
pub(super) struct Single {
    pub payload: Vec<u8>,
    pub fds: Vec<Arc<OwnedFd>>,
    pub progress: Progress,
}

/// Small messages without descriptors, each a packet.
#[derive(Debug, Default)]
pub(super) struct Row {
    bytes: Vec<u8>,
    /// Where each packet ends.
    ends: Vec<usize>,
    /// So many of them have been sent.
    sent: usize,
}

impl Row {
    /// With memory for packets of that size, or for some of them if they are not that small.
    fn with_room_for(packet: usize) -> Row {
        const MOST: usize = 8 << 10;
        Row {
            bytes: Vec::with_capacity((AT_ONCE * packet).min(MOST)),
            ends: Vec::with_capacity(AT_ONCE),
            sent: 0,
        }
    }

    fn push(&mut self, version: Version, payload: &[u8]) {
        let header = version.header(payload.len(), payload.len());
        self.bytes.extend_from_slice(header.bytes());
        self.bytes.extend_from_slice(payload);
        self.ends.push(self.bytes.len());
    }

    /// Those that have not been sent.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        let mut begin = match self.sent {
            0 => 0,
            sent => self.ends[sent - 1],
        };
        self.ends[self.sent..]
            .iter()
            .map(move |end| &self.bytes[std::mem::replace(&mut begin, *end)..*end])
    }

    fn is_sent(&self) -> bool {
        self.sent == self.ends.len()
    }

    fn is_full(&self) -> bool {
        self.ends.len() >= AT_ONCE
    }
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Item {
    Row(Row),
    Single(Single),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    items: VecDeque<Item>,
    /// A row that comes before them has been taken out, and will be put back.
    in_hand: bool,
    /// Messages that have not been sent, and the bytes of their payloads that have not: also of what is in hand.
    messages: usize,
    bytes: usize,
}

impl Backlog {
    /// How many messages have not been sent.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// The bytes of their payloads.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A small message without descriptors.
    pub fn push_small(&mut self, version: Version, payload: &[u8]) {
        self.messages += 1;
        self.bytes += payload.len();
        if let Some(Item::Row(row)) = self.items.back_mut()
            && !row.is_full()
        {
            return row.push(version, payload);
        }
        // Where some wait already, more will come.
        let mut row = match self.items.is_empty() {
            true => Row::default(),
            false => Row::with_room_for(version.header_len() + payload.len()),
        };
        row.push(version, payload);
        self.items.push_back(Item::Row(row));
    }

    /// Any other message.
    pub fn push(&mut self, single: Single) {
        self.messages += 1;
        self.bytes += single.payload.len();
        self.items.push_back(Item::Single(single));
    }

    /// The row that is first, to be sent without the backlog. None if there is none.
    pub fn take_row(&mut self) -> Option<Row> {
        match self.items.pop_front()? {
            Item::Row(row) => {
                self.in_hand = true;
                Some(row)
            }
            single => {
                self.items.push_front(single);
                None
            }
        }
    }

    /// After the first `sent` packets of the row that was taken have been sent.
    pub fn put_back(&mut self, mut row: Row, sent: usize, version: Version) {
        self.in_hand = false;
        let bytes: usize = row.packets().take(sent).map(<[u8]>::len).sum();
        row.sent += sent;
        self.messages -= sent;
        self.bytes -= bytes - sent * version.header_len();
        if !row.is_sent() {
            self.items.push_front(Item::Row(row));
        }
    }

    /// What is to be sent next, by itself. Not while a row is in hand.
    pub fn first(&mut self) -> Option<&mut Item> {
        debug_assert!(!self.in_hand, "something else is first");
        self.items.front_mut()
    }

    /// So many more bytes of what is first have been sent.
    pub fn sent_bytes(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// All of what is first has been sent, its bytes included: of a row, its first packet. What it was, if it is to be
    /// taken apart.
    pub fn sent_first(&mut self, version: Version) -> Option<Single> {
        match self.items.pop_front()? {
            Item::Row(row) => {
                self.put_back(row, 1, version);
                None
            }
            Item::Single(single) => {
                self.messages -= 1;
                Some(single)
            }
        }
    }

    /// Nothing of it will be sent any more.
    pub fn clear(&mut self) -> Vec<Single> {
        (self.messages, self.bytes) = (0, 0);
        self.items
            .drain(..)
            .filter_map(|item| match item {
                Item::Single(single) => Some(single),
                Item::Row(_) => None,
            })
            .collect()
    }
}
