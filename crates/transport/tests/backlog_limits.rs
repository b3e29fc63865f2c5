//! At the limit on memory for unread messages. It is the process's: one test at a time.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ends;

use std::sync::{Mutex, MutexGuard, PoisonError};

use ends::{at_once, laned_channel, send, send_until, send_with, soon};
use ipc_channel_transport::lane::budget;
use ipc_channel_transport::wire::rust::Version;
use ipc_channel_transport::{Error, HandleRef, channel, channel_of_frames};

const LIMIT: u64 = 8 << 20;

/// The limit holds while this lives.
struct Limited {
    _alone: MutexGuard<'static, ()>,
}

impl Limited {
    fn new() -> Limited {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        budget::set_limit(Some(LIMIT));
        Limited { _alone: alone }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        budget::set_limit(None);
    }
}

/// Breaks when descriptors are sent before there is room for the bytes: they cannot be called back.
#[test]
fn a_message_that_finds_no_room_keeps_its_handles() {
    let (sender, _receiver) = laned_channel();
    let (reply, reader) = channel(0).unwrap();
    let large = vec![0; 1 << 20];
    let limited = Limited::new();
    let mut sent = 0;
    let full = loop {
        match send(&sender, &large) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent <= LIMIT >> 20, "{sent} MiB");
    };
    assert!(matches!(full, Error::BacklogFull(_)), "{full:?}");
    let refused = send_with(&sender, &large, vec![HandleRef::Sender(&reply)], soon());
    assert!(matches!(refused, Err(Error::BacklogFull(_))), "{refused:?}");
    drop(limited);
    send(&reply, b"still ours").unwrap();
    assert_eq!(reader.recv(soon()).unwrap().payload(), b"still ours");
    drop(reply);
    assert!(matches!(reader.try_recv(), Err(Error::Disconnected)));
}

/// Breaks when a ring made for one message is not asked for like the chunks of others.
#[test]
fn one_message_larger_than_the_limit_is_refused() {
    let (sender, receiver) = laned_channel();
    let limited = Limited::new();
    let refused = send_until(&sender, &vec![0; 200 << 20], at_once());
    assert!(
        matches!(refused, Err(Error::BacklogFull(_))),
        "{refused:?}, {:?}",
        sender.lane()
    );
    drop(limited);
    send(&sender, b"a small one").unwrap();
    assert_eq!(receiver.recv(soon()).unwrap().payload(), b"a small one");
}

/// Breaks when what waits for a Rust program is not counted, or when a small message counts nothing.
#[test]
fn messages_for_a_rust_program_have_the_same_limit() {
    let (reply, reader) = channel_of_frames(Version::Current).unwrap();
    for len in [0, 1000, 100_000] {
        let (sender, receiver) = channel_of_frames(Version::Current).unwrap();
        let payload = vec![1; len];
        let limited = Limited::new();
        let mut sent = 0;
        let full = loop {
            match send(&sender, &payload) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent * len as u64 <= 2 * LIMIT && sent < LIMIT, "{sent}");
        };
        assert!(matches!(full, Error::BacklogFull(_)), "{full:?}");
        let handle = vec![HandleRef::Sender(&reply)];
        let refused = send_with(&sender, &payload, handle, soon());
        assert!(matches!(refused, Err(Error::BacklogFull(_))), "{refused:?}");
        // When there is room, it goes on.
        for _ in 0..sent {
            assert_eq!(receiver.recv(soon()).unwrap().payload(), payload);
        }
        send(&sender, &payload).unwrap();
        assert_eq!(receiver.recv(soon()).unwrap().payload(), payload);
        drop(limited);
    }
    send(&reply, b"still ours").unwrap();
    assert_eq!(reader.recv(soon()).unwrap().payload(), b"still ours");
}

/// Breaks when the first part of it is sent before it is known whether the rest may be kept.
#[test]
fn a_message_for_a_rust_program_is_not_begun_when_its_rest_cannot_be_kept() {
    let (sender, receiver) = channel_of_frames(Version::Current).unwrap();
    let limited = Limited::new();
    let refused = send(&sender, &vec![0; LIMIT as usize + 1]);
    assert!(matches!(refused, Err(Error::BacklogFull(_))), "{refused:?}");
    drop(limited);
    send(&sender, b"a small one").unwrap();
    assert_eq!(receiver.recv(soon()).unwrap().payload(), b"a small one");
}
