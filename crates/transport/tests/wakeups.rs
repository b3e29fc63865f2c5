//! Whoever waits is woken, also when another thread has heard the bell.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(unsafe_code)]

mod ends;

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ends::{at_once, drain, in_time, laned_channel, send, send_until};
use ipc_channel_transport::os::poll::{Interest, is_ready};
use ipc_channel_transport::{Deadline, Error, Receiver, channel};

/// How long a race is looked for.
const A_WHILE: Duration = Duration::from_secs(1);

fn is_readable(fd: RawFd) -> bool {
    // SAFETY: the callers' ends and watches are open, and with them their descriptors.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    is_ready(fd, Interest::Readable).unwrap()
}

/// Breaks when an empty lane's sender is not asked to ring again, or when the last look is not.
#[test]
fn the_descriptor_is_readable_for_each_message_after_the_receiver_was_found_empty() {
    in_time(|| {
        let (sender, receiver) = laned_channel();
        let fd = receiver.fileno().unwrap();
        for number in 0..20u8 {
            assert!(!is_readable(fd), "before message {number}");
            send(&sender, &[number]).unwrap();
            assert!(is_readable(fd), "message {number}");
            assert_eq!(receiver.try_recv().unwrap().payload(), [number]);
            assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
        }
    });
}

/// Receives for as long as the channel is open, each time as long as `patience` says, and counts.
fn receiving(
    receiver: &Arc<Receiver>,
    received: &Arc<AtomicU64>,
    patience: Duration,
) -> thread::JoinHandle<()> {
    let (receiver, received) = (receiver.clone(), received.clone());
    thread::spawn(move || {
        loop {
            match receiver.recv(Deadline::after(patience)) {
                Ok(_) => drop(received.fetch_add(1, Ordering::SeqCst)),
                Err(Error::TimedOut | Error::Interrupted) => {
                    thread::sleep(Duration::from_micros(100));
                }
                Err(Error::Disconnected) => return,
                Err(other) => panic!("{other:?}"),
            }
        }
    })
}

/// Waits until somebody has received that many.
fn await_received(received: &AtomicU64, count: u64) {
    let begun = Instant::now();
    while received.load(Ordering::SeqCst) < count {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "message {count} is there and everybody sleeps"
        );
        thread::yield_now();
    }
}

/// Breaks when a thread that looks without waiting hears the bell of one that sleeps, and keeps it.
#[test]
fn a_thread_that_only_looks_leaves_nobody_asleep() {
    in_time(|| {
        let (sender, receiver) = laned_channel();
        let (receiver, received) = (Arc::new(receiver), Arc::new(AtomicU64::new(0)));
        let sleeping = receiving(&receiver, &received, Duration::from_secs(60));
        let begun = Instant::now();
        let mut count = 0;
        while begun.elapsed() < A_WHILE {
            thread::sleep(Duration::from_micros(100));
            send(&sender, b"x").unwrap();
            for _ in 0..=count % 3 {
                if receiver.try_recv().is_ok() {
                    received.fetch_add(1, Ordering::SeqCst);
                }
            }
            count += 1;
            await_received(&received, count);
        }
        drop(sender);
        sleeping.join().unwrap();
    });
}

/// Breaks when a thread whose deadline passes as the bell rings takes it along.
#[test]
fn a_thread_that_gives_up_leaves_nobody_asleep() {
    in_time(|| {
        let (sender, receiver) = laned_channel();
        let (receiver, received) = (Arc::new(receiver), Arc::new(AtomicU64::new(0)));
        let patience = [60_000_000, 60_000_000, 50].map(Duration::from_micros);
        let threads = patience.map(|patience| receiving(&receiver, &received, patience));
        let begun = Instant::now();
        let mut count = 0;
        while begun.elapsed() < A_WHILE {
            thread::sleep(Duration::from_micros(count * 7919 % 200));
            send(&sender, b"x").unwrap();
            count += 1;
            await_received(&received, count);
        }
        drop(sender);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// Breaks when the send that finds the receiver gone drops the lane without a word to whoever watches it.
#[test]
fn who_waits_for_room_is_told_that_the_receiver_has_gone() {
    in_time(|| {
        let (sender, receiver) = channel(1).unwrap();
        send(&sender, b"x").unwrap();
        let full = send_until(&sender, b"x", at_once());
        assert!(matches!(full, Err(Error::Full)), "{full:?}");
        let watch = sender.watch().unwrap();
        assert!(!is_readable(watch.raw()));
        drop(receiver);
        loop {
            match send_until(&sender, b"x", at_once()) {
                Err(Error::Full) => {}
                Err(Error::ReceiverGone) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(is_readable(watch.raw()));
    });
}

/// Breaks when room that one watch was told of is not told to another.
#[test]
fn all_who_watch_a_full_sender_are_told_of_room() {
    in_time(|| {
        let (sender, receiver) = channel(2).unwrap();
        let clone = sender.duplicate().unwrap();
        for _ in 0..50 {
            while send_until(&sender, b"x", at_once()).is_ok() {}
            let watches = [sender.watch().unwrap(), clone.watch().unwrap()];
            assert!(watches.iter().all(|watch| !is_readable(watch.raw())));
            assert_eq!(drain(&receiver), 2);
            assert!(watches.iter().all(|watch| is_readable(watch.raw())));
        }
    });
}
