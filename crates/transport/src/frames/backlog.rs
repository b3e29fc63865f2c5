//! What waits to be written, in order. Small messages lie together, as the packets that they will be: so they take little
//! memory, and a row of them goes out by one system call.

use std::collections::VecDeque;

use crate::wire::rust::Version;

/// Messages in a row: so many are written before other threads get at the backlog.
pub(super) const AT_ONCE: usize = 32;
/// Bytes in a row, unless it has one packet only.
const MOST_BYTES: usize = 16 << 10;

/// Small messages without descriptors, each a packet.
#[derive(Debug, Default)]
pub(super) struct Row {
    bytes: Vec<u8>,
    /// Where each packet ends.
    ends: Vec<u32>,
    /// So many of them have been sent.
    sent: usize,
}

impl Row {
    /// With memory for packets of that size.
    fn with_room_for(packet: usize) -> Row {
        Row {
            bytes: Vec::with_capacity((AT_ONCE * packet).min(MOST_BYTES)),
            ends: Vec::with_capacity(AT_ONCE),
            sent: 0,
        }
    }

    fn push(&mut self, version: Version, payload: &[u8]) {
        let header = version.header(payload.len(), payload.len());
        self.bytes.extend_from_slice(header.bytes());
        self.bytes.extend_from_slice(payload);
        self.ends.push(self.bytes.len() as u32);
    }

    /// Those that have not been sent.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        let mut begin = match self.sent {
            0 => 0,
            sent => self.ends[sent - 1],
        };
        self.ends[self.sent..].iter().map(move |end| {
            let begin = std::mem::replace(&mut begin, *end);
            &self.bytes[begin as usize..*end as usize]
        })
    }

    fn has_room_for(&self, packet: usize) -> bool {
        self.ends.len() < AT_ONCE && self.bytes.len() + packet <= MOST_BYTES
    }
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Item<T> {
    Row(Row),
    /// A message that waits by itself.
    Single(T),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Backlog<T> {
    items: VecDeque<Item<T>>,
    /// A row that comes before them has been taken out, and will be put back.
    in_hand: bool,
    /// Messages that have not been sent, and the bytes of their payloads that have not: also of what is in hand.
    messages: usize,
    bytes: usize,
}

impl<T> Default for Backlog<T> {
    fn default() -> Backlog<T> {
        Backlog {
            items: VecDeque::new(),
            in_hand: false,
            messages: 0,
            bytes: 0,
        }
    }
}

impl<T> Backlog<T> {
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
        let packet = version.header_len() + payload.len();
        let mut row = match self.items.back_mut() {
            Some(Item::Row(row)) if row.has_room_for(packet) => {
                return row.push(version, payload);
            }
            // After a full row there will be another one.
            Some(Item::Row(_)) => Row::with_room_for(packet),
            _ => Row::default(),
        };
        row.push(version, payload);
        self.items.push_back(Item::Row(row));
    }

    /// Any other message, of which so many bytes are to be sent.
    pub fn push(&mut self, single: T, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
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

    /// After the first `sent` packets of the row that was taken have been sent. Whether these were all.
    pub fn put_back(&mut self, mut row: Row, sent: usize, version: Version) -> bool {
        self.in_hand = false;
        let bytes: usize = row.packets().take(sent).map(<[u8]>::len).sum();
        row.sent += sent;
        self.messages -= sent;
        self.bytes -= bytes - sent * version.header_len();
        let all = row.sent == row.ends.len();
        if !all {
            self.items.push_front(Item::Row(row));
        }
        all
    }

    /// What is to be sent next, by itself. Not while a row is in hand.
    pub fn first(&mut self) -> Option<&mut Item<T>> {
        debug_assert!(!self.in_hand, "something else is first");
        self.items.front_mut()
    }

    /// So many more bytes of what is first have been sent.
    pub fn sent_bytes(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    /// All of what is first has been sent, its bytes included: of a row, its first packet. What it was, if it is to be
    /// taken apart.
    pub fn sent_first(&mut self, version: Version) -> Option<T> {
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
    pub fn clear(&mut self) -> Vec<T> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VERSION: Version = Version::Current;

    #[derive(Clone, Debug)]
    enum Step {
        /// A small message with so many bytes.
        Small(u8),
        Large(u16),
        /// The row that is first is taken, more comes, and so many of the row are sent.
        Row(Vec<u8>, usize),
        /// What is first is sent by itself.
        First,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => any::<u8>().prop_map(Step::Small),
            1 => any::<u16>().prop_map(Step::Large),
            2 => (prop::collection::vec(any::<u8>(), 0..4), 0..=AT_ONCE).prop_map(|(more, sent)| Step::Row(more, sent)),
            2 => Just(Step::First),
        ];
        prop::collection::vec(step, 0..300)
    }

    fn payload(number: usize, len: usize) -> Vec<u8> {
        vec![number as u8; len]
    }

    fn packet(payload: &[u8]) -> Vec<u8> {
        let header = VERSION.header(payload.len(), payload.len());
        [header.bytes(), payload].concat()
    }

    /// All messages that were put in, in their order; the small ones marked.
    #[derive(Default)]
    struct Model {
        backlog: Backlog<Vec<u8>>,
        expected: VecDeque<(bool, Vec<u8>)>,
        number: usize,
    }

    impl Model {
        fn push(&mut self, small: bool, len: usize) {
            let payload = payload(self.number, len);
            self.number += 1;
            if small {
                self.backlog.push_small(VERSION, &payload);
            } else {
                self.backlog.push(payload.clone(), len);
            }
            self.expected.push_back((small, payload));
        }

        fn check(&self) {
            let bytes: usize = self.expected.iter().map(|(_, payload)| payload.len()).sum();
            assert_eq!(self.backlog.messages(), self.expected.len());
            assert_eq!(self.backlog.bytes(), bytes);
        }

        fn send_row(&mut self, more: &[u8], sent: usize) {
            let starts_with_row = self.expected.front().is_some_and(|(small, _)| *small);
            let row = self.backlog.take_row();
            assert_eq!(row.is_some(), starts_with_row);
            let Some(row) = row else { return };
            for len in more {
                self.push(true, usize::from(*len));
            }
            self.check();
            let packets = row.packets().count();
            assert!((1..=AT_ONCE).contains(&packets));
            let sent = sent.min(packets);
            for packet_sent in row.packets().take(sent) {
                let (small, payload) = self.expected.pop_front().unwrap();
                assert!(small);
                assert_eq!(packet_sent, packet(&payload));
            }
            let all = self.backlog.put_back(row, sent, VERSION);
            assert_eq!(all, sent == packets);
        }

        fn send_first(&mut self) {
            let first = match self.backlog.first() {
                None => return assert!(self.expected.is_empty()),
                Some(Item::Row(row)) => row.packets().next().unwrap().to_vec(),
                Some(Item::Single(single)) => single.clone(),
            };
            let (small, payload) = self.expected.pop_front().unwrap();
            if small {
                assert_eq!(first, packet(&payload));
            } else {
                assert_eq!(first, payload);
                self.backlog.sent_bytes(payload.len());
            }
            let taken_apart = self.backlog.sent_first(VERSION);
            assert_eq!(taken_apart.is_some(), !small);
        }
    }

    /// Breaks when room is made for a row of messages where one comes.
    #[test]
    fn what_is_alone_in_its_row_takes_little_memory() {
        let mut model = Model::default();
        for _ in 0..100 {
            model.push(true, 100);
            model.push(false, 3000);
        }
        for item in &model.backlog.items {
            if let Item::Row(row) = item {
                assert!(row.bytes.capacity() <= 300, "{}", row.bytes.capacity());
                assert!(row.ends.capacity() <= 4);
            }
        }
    }

    /// Breaks when a row grows out of the room that was made for it.
    #[test]
    fn rows_of_any_size_of_messages_fit_their_memory() {
        for len in [0, 1, 100, 256, 500, 1000, 2000] {
            let mut model = Model::default();
            (0..200).for_each(|_| model.push(true, len));
            for item in &model.backlog.items {
                if let Item::Row(row) = item {
                    assert!(row.bytes.len() <= MOST_BYTES);
                    assert!(row.bytes.capacity() <= 2 * MOST_BYTES);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn messages_leave_in_the_order_in_which_they_came(steps in steps()) {
            let mut model = Model::default();
            for step in steps {
                match step {
                    Step::Small(len) => model.push(true, len.into()),
                    Step::Large(len) => model.push(false, len.into()),
                    Step::Row(more, sent) => model.send_row(&more, sent),
                    Step::First => model.send_first(),
                }
                model.check();
            }
            let large = model.expected.iter().filter(|(small, _)| !small).count();
            prop_assert_eq!(model.backlog.clear().len(), large);
            model.expected.clear();
            model.check();
        }
    }
}
