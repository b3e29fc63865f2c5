//! What of a lane's memory has pages, as the kernel counts them, while messages are unread and after that.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ends;

use ends::{LARGE, drain, laned_channel, moved_receiver, send};
use ipc_channel_transport::lane::sizes::{CHUNK, FIRST_RING, HEADER_LEN};
use ipc_channel_transport::{Receiver, Sender};

const SMALL: usize = 200;
/// Enough of them for several overflow rings.
const MANY: u32 = 200_000;

/// The first ring, what a producer has made for what comes next in another, and the page that both are in.
const KEPT: u64 = (HEADER_LEN + FIRST_RING + CHUNK + 4096) as u64;

fn memory(sender: &Sender) -> u64 {
    sender.lane().unwrap().memory
}

fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut payload = vec![number as u8; len];
    payload[..4].copy_from_slice(&number.to_le_bytes());
    payload
}

fn send_many(sender: &Sender, numbers: std::ops::Range<u32>) {
    for number in numbers {
        send(sender, &numbered(number, SMALL)).unwrap();
    }
}

fn expect(receiver: &Receiver, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(
            receiver.try_recv().unwrap().payload(),
            numbered(number, SMALL)
        );
    }
}

/// Breaks when a ring is given back only when its producer has left it, with a message that may never be sent.
#[test]
fn what_is_drained_is_given_back_without_another_message() {
    let (sender, receiver) = laned_channel();
    for _ in 0..2 {
        send_many(&sender, 0..MANY);
        assert!(memory(&sender) > MANY as u64 * SMALL as u64);
        expect(&receiver, 0..MANY);
        assert!(memory(&sender) <= KEPT, "{} bytes", memory(&sender));
    }
}

/// Breaks when pages are given back only at the end.
#[test]
fn what_is_read_of_a_backlog_is_given_back_while_the_rest_waits() {
    let (sender, receiver) = laned_channel();
    send_many(&sender, 0..MANY);
    let before = memory(&sender);
    let rings = 3 * CHUNK as u64 + KEPT;
    for step in 0..10 {
        expect(&receiver, step * MANY / 10..(step + 1) * MANY / 10);
        let unread = before - u64::from(step + 1) * before / 10;
        assert!(
            memory(&sender) <= unread + rings,
            "{} bytes for {unread}",
            memory(&sender)
        );
    }
}

/// Breaks when what is held is given back, and when what is let go is not.
#[test]
fn what_is_held_stays_until_it_is_let_go() {
    let (sender, receiver) = laned_channel();
    send_many(&sender, 0..MANY);
    for number in 0..40 {
        send(&sender, &numbered(number, LARGE)).unwrap();
    }
    send_many(&sender, 0..MANY);
    expect(&receiver, 0..MANY);
    let mut kept: Vec<_> = (0..40)
        .map(|_| Some(receiver.try_recv().unwrap()))
        .collect();
    expect(&receiver, 0..MANY);
    // In an order that is not theirs.
    for turn in 0..40 {
        let number = turn * 7 % 40;
        let message = kept[number].take().unwrap();
        assert_eq!(message.payload(), numbered(number as u32, LARGE));
        drop(message);
        for (number, message) in kept.iter().enumerate() {
            let Some(message) = message else { continue };
            assert_eq!(message.payload(), numbered(number as u32, LARGE));
        }
    }
    assert!(memory(&sender) <= KEPT, "{} bytes", memory(&sender));
}

/// Breaks when the last message of a backlog is held, and nobody gives its pages back when it is let go.
#[test]
fn what_is_held_last_is_given_back_when_it_is_let_go() {
    let (sender, receiver) = laned_channel();
    for number in 0..400 {
        send(&sender, &numbered(number, LARGE)).unwrap();
    }
    let mut kept: Vec<_> = (0..400).map(|_| receiver.try_recv().unwrap()).collect();
    assert!(memory(&sender) > 400 * LARGE as u64);
    while let Some(message) = kept.pop() {
        assert_eq!(message.payload(), numbered(kept.len() as u32, LARGE));
    }
    assert!(memory(&sender) <= KEPT, "{} bytes", memory(&sender));
}

/// Breaks when the heir does not know that the ring it goes on in is used once, or gives back what its
/// predecessor holds.
#[test]
fn who_gets_a_receiver_gives_back_what_it_reads_unless_the_other_one_still_holds_something() {
    for holds in [false, true] {
        let (sender, receiver) = laned_channel();
        send_many(&sender, 0..MANY);
        send(&sender, &numbered(7, LARGE)).unwrap();
        send_many(&sender, 0..MANY / 20);
        send(&sender, &numbered(8, LARGE)).unwrap();
        send_many(&sender, 0..MANY / 10);
        expect(&receiver, 0..MANY);
        let held = receiver.try_recv().unwrap();
        expect(&receiver, 0..MANY / 20);
        let held = holds.then_some(held);
        let heir = moved_receiver(&receiver);
        let of_the_heir = heir.try_recv().unwrap();
        assert_eq!(of_the_heir.payload(), numbered(8, LARGE));
        drop(of_the_heir);
        expect(&heir, 0..MANY / 10);
        if let Some(held) = held {
            assert_eq!(held.payload(), numbered(7, LARGE));
        } else {
            assert!(memory(&sender) <= KEPT, "{} bytes", memory(&sender));
        }
    }
}

/// Breaks when only the ring is counted that the producer is in.
#[test]
fn statistics_count_what_is_unread_in_a_ring_that_was_left() {
    let (sender, receiver) = laned_channel();
    // Little enough to let the producer return, which then fills its first ring.
    const REST: u32 = 850;
    const NEW: u32 = 2200;
    send_many(&sender, 0..MANY);
    expect(&receiver, 0..MANY - REST);
    send_many(&sender, 0..NEW);
    let unread = u64::from(REST + NEW) * SMALL as u64;
    assert!(unread > FIRST_RING as u64 + HEADER_LEN as u64);
    assert!(
        memory(&sender) >= unread,
        "{} for {unread}",
        memory(&sender)
    );
    assert_eq!(drain(&receiver), (REST + NEW) as usize);
}

/// Breaks when the consumer takes what was skipped without ever having had pages for a lie.
#[test]
fn a_backlog_behind_a_large_message_at_the_rings_start() {
    let (sender, receiver) = laned_channel();
    for backlog in [1, 1, 2, 3, 5, 1, 40] {
        for number in 0..backlog {
            send(&sender, &numbered(number, 1 << 20)).unwrap();
        }
        for number in 0..backlog {
            let message = receiver.try_recv().unwrap();
            assert_eq!(message.payload(), numbered(number, 1 << 20));
        }
    }
}

/// Breaks when a message goes to fresh pages although what was there before it has been read and let go.
#[test]
fn large_messages_that_are_let_go_one_after_the_other_share_their_pages() {
    const LEN: usize = 2 << 20;
    const REST: usize = 1 << 20;
    let (sender, receiver) = laned_channel();
    // At first each ends a little before the last one, later that goes no further.
    for (count, most) in [(100, LEN), (700, 2 * LEN)] {
        for number in 0..count {
            send(&sender, &numbered(number, LEN)).unwrap();
            let message = receiver.try_recv().unwrap();
            assert_eq!(message.payload(), numbered(number, LEN));
        }
        assert!(
            memory(&sender) <= (most + REST) as u64,
            "{} bytes",
            memory(&sender)
        );
    }
}
