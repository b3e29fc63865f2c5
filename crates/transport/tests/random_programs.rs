//! Random programs of sends, receives, clones, moves and views that are kept, against a model: one queue.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ends;

use std::collections::VecDeque;

use ends::{at_once, foreign_sender, in_time, moved_receiver, moved_sender, send_until, send_with};
use ipc_channel_transport::{Body, Error, HandleRef, Message, Receiver, Sender, channel};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

const MOST_SENDERS: usize = 6;
/// Each carries its number.
const SHORTEST: usize = 8;

#[derive(Clone, Copy, Debug)]
enum How {
    /// By the short way if there is one.
    Plain,
    Framed,
    WithSender,
}

#[derive(Clone, Debug)]
enum Step {
    Clone(Index),
    Close(Index),
    MoveSender(Index),
    MoveReceiver,
    Send(Index, Vec<(usize, How)>),
    /// As many as are there, up to that; and whether those read in place are kept.
    Receive(usize, Vec<bool>),
    /// A message that was kept is let go.
    Release(Index),
}

fn length() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![
        280 => 0..300usize,
        24 => 4_000..13_000usize,
        8 => 70_000..270_000usize,
        7 => 3_000_000..6_000_000usize,
        1 => 9_000_000..18_000_000usize,
    ]
}

fn messages() -> impl Strategy<Value = Vec<(usize, How)>> {
    let how =
        prop_oneof![5 => Just(How::Plain), 5 => Just(How::Framed), 2 => Just(How::WithSender)];
    let message = (length(), how);
    prop_oneof![
        3 => prop::collection::vec(message.clone(), 1..=5),
        1 => prop::collection::vec(message, 1..=60),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<Index>().prop_map(Step::Clone),
        1 => any::<Index>().prop_map(Step::Close),
        1 => any::<Index>().prop_map(Step::MoveSender),
        1 => Just(Step::MoveReceiver),
        2 => any::<Index>().prop_map(Step::Release),
        54 => (any::<Index>(), messages()).prop_map(|(by, all)| Step::Send(by, all)),
        39 => (0..40usize, prop::collection::vec(any::<bool>(), 8))
            .prop_map(|(most, kept)| Step::Receive(most, kept)),
    ]
}

fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8; SHORTEST + len];
    bytes[..SHORTEST].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// What a message must be.
#[derive(Debug)]
struct Expected {
    number: u64,
    len: usize,
    handles: usize,
}

impl Expected {
    fn check(&self, message: &Message) {
        let bytes = message.payload();
        let number = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        assert_eq!(number, Some(self.number), "the order is broken");
        // Not assert_eq, which would print megabytes.
        assert!(
            bytes == payload(self.number, self.len),
            "{self:?}: the content is another"
        );
        assert_eq!(message.handles.len(), self.handles);
    }
}

struct World {
    senders: Vec<Sender>,
    receiver: Receiver,
    sent: u64,
    under_way: VecDeque<Expected>,
    kept: Vec<(Expected, Message)>,
}

impl World {
    fn new() -> World {
        let (sender, receiver) = channel(0).unwrap();
        World {
            senders: vec![sender],
            receiver,
            sent: 0,
            under_way: VecDeque::new(),
            kept: Vec::new(),
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Clone(of) if self.senders.len() < MOST_SENDERS => {
                let clone = foreign_sender(of.get(&self.senders));
                self.senders.push(clone);
            }
            Step::Clone(_) => {}
            Step::Close(which) if self.senders.len() > 1 => {
                drop(self.senders.swap_remove(which.index(self.senders.len())));
            }
            Step::Close(_) => {}
            Step::MoveSender(which) => {
                let which = which.index(self.senders.len());
                self.senders[which] = moved_sender(&self.senders[which]);
            }
            Step::MoveReceiver => self.receiver = moved_receiver(&self.receiver),
            Step::Send(by, messages) => {
                let by = by.index(self.senders.len());
                for (len, how) in messages {
                    self.send(by, *len, *how);
                }
            }
            Step::Receive(most, kept) => {
                for nth in 0..*most {
                    if !self.receive(kept[nth % kept.len()]) {
                        break;
                    }
                }
            }
            Step::Release(which) if !self.kept.is_empty() => {
                let which = which.index(self.kept.len());
                let (expected, message) = self.kept.swap_remove(which);
                expected.check(&message);
            }
            Step::Release(_) => {}
        }
    }

    /// An unbounded channel takes everything at once.
    fn send(&mut self, by: usize, len: usize, how: How) {
        let (sender, number) = (&self.senders[by], self.sent);
        let bytes = payload(number, len);
        match how {
            How::Plain => send_until(sender, &bytes, at_once()).unwrap(),
            How::Framed => send_with(sender, &bytes, vec![], at_once()).unwrap(),
            How::WithSender => {
                let (reply, _reader) = channel(0).unwrap();
                let handles = vec![HandleRef::Sender(&reply)];
                send_with(sender, &bytes, handles, at_once()).unwrap();
            }
        }
        self.sent += 1;
        self.under_way.push_back(Expected {
            number,
            len,
            handles: usize::from(matches!(how, How::WithSender)),
        });
    }

    /// False if nothing is there, which must be true.
    fn receive(&mut self, keep: bool) -> bool {
        match self.receiver.try_recv() {
            Ok(message) => {
                let expected = self.under_way.pop_front().expect("nothing was sent");
                expected.check(&message);
                if keep && matches!(message.body, Body::Placed(_)) {
                    self.kept.push((expected, message));
                }
                true
            }
            Err(Error::Empty | Error::Disconnected) => {
                assert!(
                    self.under_way.is_empty(),
                    "{:?} is not there",
                    self.under_way[0]
                );
                false
            }
            Err(other) => panic!("{other:?} instead of {:?}", self.under_way.front()),
        }
    }

    fn end(mut self) {
        self.senders.clear();
        while self.receive(false) {}
        assert!(matches!(self.receiver.try_recv(), Err(Error::Disconnected)));
        for (expected, message) in &self.kept {
            expected.check(message);
        }
    }
}

/// Breaks when a stamp, a horizon or a lane's place is off after any sequence of moves, when a view is not
/// counted, and when a sender is made to wait.
#[test]
fn whatever_is_done_messages_come_whole_in_the_order_of_their_sends() {
    in_time(|| {
        let config = Config {
            cases: 12,
            max_shrink_iters: 200,
            ..Config::with_source_file(file!())
        };
        let programs = prop::collection::vec(step(), 300..400);
        let outcome = TestRunner::new(config).run(&programs, |program| {
            let mut world = World::new();
            for step in &program {
                world.run(step);
            }
            world.end();
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
    });
}
