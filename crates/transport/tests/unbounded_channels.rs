//! A send on a channel without a capacity never waits, whatever the socket holds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ends;

use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use ends::{at_once, foreign_sender, in_time, send_until, send_with};
use ipc_channel_transport::os::socket::{self, Sent};
use ipc_channel_transport::wire::control::BELL;
use ipc_channel_transport::{Error, Receiver, Sender, channel};

/// Breaks when a packet as large as this fills the socket before a lane can be announced.
#[test]
fn packets_of_the_largest_size_that_nobody_reads() {
    let (sender, receiver) = channel(0).unwrap();
    let payload = vec![1; 60_000];
    for _ in 0..50 {
        send_with(&sender, &payload, vec![], at_once()).unwrap();
    }
    for _ in 0..50 {
        assert!(receiver.try_recv().unwrap().payload() == payload);
    }
    assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
}

/// Sends more than socket and connection hold, never eight within a millisecond.
fn send_one_at_a_time(sender: &Sender, receiver: &Receiver, len: usize) {
    const COUNT: u32 = 700;
    for number in 0..COUNT {
        thread::sleep(Duration::from_micros(1500));
        let mut payload = vec![0; len];
        payload[..4].copy_from_slice(&number.to_le_bytes());
        let sent = send_with(sender, &payload, vec![], at_once());
        assert!(sent.is_ok(), "message {number}: {sent:?}");
    }
    for number in 0..COUNT {
        let payload = receiver.try_recv().unwrap().payload();
        assert_eq!(payload[..4], number.to_le_bytes());
    }
}

/// Breaks when only a burst makes a sender open a lane: who sends slowly fills the socket all the same.
#[test]
fn messages_one_at_a_time_that_nobody_reads() {
    in_time(|| {
        let (sender, receiver) = channel(0).unwrap();
        send_one_at_a_time(&sender, &receiver, 3000);
    });
}

/// Breaks when a connection made at the door is filled before a lane can be announced there.
#[test]
fn messages_one_at_a_time_of_a_clone_that_nobody_reads() {
    in_time(|| {
        let (sender, receiver) = channel(0).unwrap();
        let clone = foreign_sender(&sender);
        send_one_at_a_time(&clone, &receiver, 8);
        drop(sender);
    });
}

/// More than may wait at a door. Breaks when a connection that was made is not accepted, or its message is
/// forgotten when it ends.
#[test]
fn thousands_who_come_after_each_other_to_a_full_socket() {
    in_time(|| {
        let (sender, receiver) = channel(0).unwrap();
        let shared = foreign_sender(&sender);
        let socket = sender.end().socket().unwrap();
        let bell = [std::io::IoSlice::new(&BELL)];
        while let Sent::Whole = socket::send(socket.as_fd(), &bell, &[]).unwrap() {}
        drop(socket);
        let mut accepted = 0;
        for _ in 0..4200 {
            match send_until(&foreign_sender(&shared), b"x", at_once()) {
                Ok(()) => accepted += 1,
                // The kernel has a limit, which may be lower.
                Err(Error::BacklogFull(_)) => {}
                Err(other) => panic!("{other:?} after {accepted}"),
            }
        }
        assert!(accepted > 0);
        drop((shared, sender));
        let mut received = 0;
        loop {
            match receiver.try_recv() {
                Ok(_) => received += 1,
                Err(Error::Empty) => {}
                Err(Error::Disconnected) => break,
                Err(other) => panic!("{other:?} after {received}"),
            }
        }
        assert_eq!(received, accepted);
    });
}
