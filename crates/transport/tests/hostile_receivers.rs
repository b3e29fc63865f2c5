//! Whatever a receiver writes into the memory that a sender shares with it: the sender is told, or goes on. Never a
//! panic or a hang, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hostile;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use hostile::{
    HostileReceiver, Storm, Victim, contained, entry, framed, raw, send, soon, strangers,
};
use ipc_channel_transport::lane::layout::{CLOSED, HEAD, HEADER_LEN, SENT, TAIL, TAKEN};
use ipc_channel_transport::os::shared::Region;
use ipc_channel_transport::os::{descriptor, memory, socket};
use ipc_channel_transport::wire::control::BELL;
use ipc_channel_transport::{Deadline, Error, Handle, Sender, channel, door};
use proptest::prelude::*;

fn moment() -> Deadline {
    Deadline::after(Duration::from_millis(5))
}

/// Enough for rings to be used up, entered and left.
fn send_some(sender: &Sender) -> Vec<Result<(), Error>> {
    let sizes = [1, 100, 5000, 100_000, 1_000_000];
    (0..20)
        .map(|round| send(sender, &vec![round as u8; sizes[round % 5]], moment()))
        .collect()
}

fn check(outcomes: Vec<Result<(), Error>>) {
    for outcome in outcomes {
        match outcome {
            Ok(())
            | Err(Error::Protocol(_) | Error::ReceiverGone | Error::Full | Error::TimedOut) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn progress_that_nobody_can_have_made() {
    contained(|| {
        for head in [1, 16, 17, 1 << 20, 1 << 40, u64::MAX - 15, u64::MAX] {
            let (sender, receiver) = channel(0).unwrap();
            let hostile = HostileReceiver::of(&sender, receiver);
            hostile.set(HEAD, head);
            check(send_some(&sender));
            hostile.set(HEAD, 0);
            check(send_some(&sender));
        }
    });
}

#[test]
fn a_tail_that_the_receiver_has_changed() {
    contained(|| {
        for tail in [0, 16, 1 << 40, u64::MAX - 15] {
            let (sender, receiver) = channel(0).unwrap();
            let hostile = HostileReceiver::of(&sender, receiver);
            hostile.set(TAIL, tail);
            let outcomes = send_some(&sender);
            assert!(
                outcomes
                    .iter()
                    .any(|outcome| matches!(outcome, Err(Error::Protocol(_)))),
                "{tail}"
            );
            check(outcomes);
        }
        let (sender, receiver) = channel(0).unwrap();
        let hostile = HostileReceiver::of(&sender, receiver);
        hostile.header.word(TAIL).fetch_or(CLOSED, Ordering::SeqCst);
        assert!(matches!(
            send(&sender, b"x", soon()),
            Err(Error::ReceiverGone)
        ));
    });
}

#[test]
fn flags_at_random() {
    contained(|| {
        let (sender, receiver) = channel(0).unwrap();
        let hostile = HostileReceiver::of(&sender, receiver);
        for round in 0..5000u64 {
            let flags = (round * 7 % 16) & !CLOSED;
            hostile.header.word(TAIL).fetch_or(flags, Ordering::SeqCst);
            send(&sender, b"message", soon()).unwrap();
        }
    });
}

#[test]
fn statistics_after_progress_that_nobody_can_have_made() {
    contained(|| {
        let (sender, receiver) = channel(0).unwrap();
        let hostile = HostileReceiver::of(&sender, receiver);
        // More than the ring holds: another one is entered.
        for _ in 0..20 {
            send(&sender, &[1; 100_000], soon()).unwrap();
        }
        hostile.set(HEAD, u64::MAX - 15);
        let lane = sender.lane().unwrap();
        assert!(lane.memory < 1 << 30, "{lane:?}");
    });
}

#[test]
fn bounded_counts_that_are_forged() {
    contained(|| {
        for taken in [0, 1, 2, 1 << 40, 1 << 63, u64::MAX - 1, u64::MAX] {
            let (sender, receiver) = channel(5).unwrap();
            let hostile = HostileReceiver::of(&sender, receiver);
            hostile.set(TAKEN, taken);
            hostile.set(SENT, taken);
            check(send_some(&sender));
            let lane = sender.lane();
            drop(hostile);
            assert!(lane.is_some());
        }
    });
}

#[test]
fn a_bounded_send_to_a_receiver_that_takes_nothing_ends_at_its_deadline() {
    contained(|| {
        let (sender, receiver) = channel(3).unwrap();
        let hostile = HostileReceiver::of(&sender, receiver);
        for bells in [0, 1, 100] {
            for _ in 0..bells {
                let _ = socket::send(hostile.connection.as_fd(), &[IoSlice::new(&BELL)], &[]);
            }
            let outcome = send(&sender, b"one too many", moment());
            assert!(
                matches!(outcome, Err(Error::Full | Error::TimedOut)),
                "{outcome:?}"
            );
        }
    });
}

#[test]
fn a_bounded_send_among_bells_without_end_ends_at_its_deadline() {
    contained(|| {
        let (sender, receiver) = channel(3).unwrap();
        let hostile = HostileReceiver::of(&sender, receiver);
        let _storms: Vec<_> = (0..2)
            .map(|_| {
                let connection = descriptor::duplicate(hostile.connection.as_fd()).unwrap();
                Storm::new(move || {
                    drop(socket::send(
                        connection.as_fd(),
                        &[IoSlice::new(&BELL)],
                        &[],
                    ))
                })
            })
            .collect();
        for _ in 0..10 {
            let outcome = send(&sender, b"one too many", moment());
            assert!(
                matches!(outcome, Err(Error::Full | Error::TimedOut)),
                "{outcome:?}"
            );
        }
    });
}

#[test]
fn a_bounded_send_that_never_sleeps_looks_for_signals() {
    contained(|| {
        let (sender, receiver) = channel(3).unwrap();
        let hostile = HostileReceiver::of(&sender, receiver);
        socket::send(hostile.connection.as_fd(), &[IoSlice::new(b"")], &[]).unwrap();
        // As for a receiver: a caller that asks for signals now and then, or a wait that sleeps.
        let outcome = send(
            &sender,
            b"one too many",
            Deadline::after(Duration::from_secs(2)),
        );
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let slept = cpu.tv_sec == 0 && cpu.tv_nsec < 200_000_000;
        assert!(
            matches!(outcome, Err(Error::Interrupted)) || slept,
            "{outcome:?} after {cpu:?}"
        );
    });
}

#[test]
fn packets_of_any_kind_at_a_senders_connection() {
    contained(|| {
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        for packet in [&b""[..], b"x", &[0; 64], &[0xff; 4096]] {
            for capacity in [0, 3] {
                let (sender, receiver) = channel(capacity).unwrap();
                let hostile = HostileReceiver::of(&sender, receiver);
                for _ in 0..10 {
                    let fds = raw(&[&file; 3]);
                    socket::send(hostile.connection.as_fd(), &[IoSlice::new(packet)], &fds)
                        .unwrap();
                }
                check(send_some(&sender));
            }
        }
    });
}

#[test]
fn a_file_that_the_receiver_has_made_longer() {
    contained(|| {
        let (sender, receiver) = channel(0).unwrap();
        let hostile = HostileReceiver::of(&sender, receiver);
        memory::grow(hostile.file.as_fd(), 1 << 40).unwrap();
        check(send_some(&sender));
    });
}

#[test]
fn a_ring_that_is_scribbled_over_and_given_back_while_it_is_written() {
    contained(|| {
        for capacity in [0, 5] {
            let (sender, receiver) = channel(capacity).unwrap();
            let hostile = HostileReceiver::of(&sender, receiver);
            let file = descriptor::duplicate(hostile.file.as_fd()).unwrap();
            let memory = Region::map(file.as_fd(), 0, HEADER_LEN + (64 << 10)).unwrap();
            let mut state = 0x2545_f491_4f6c_dd1du64;
            let _storm = Storm::new(move || {
                for _ in 0..64 {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let at = HEADER_LEN + (state as usize % (64 << 10) / 8 * 8);
                    memory.word(at).store(state, Ordering::Relaxed);
                }
                for word in [HEAD, TAKEN, SENT] {
                    memory
                        .word(word)
                        .store(state % (1 << (state % 30)), Ordering::Relaxed);
                }
                memory::release(file.as_fd(), HEADER_LEN as u64, 64 << 10);
            });
            for _ in 0..10 {
                check(send_some(&sender));
            }
        }
    });
}

/// A sender that came in a message, and the sockets of its channel.
struct Arrived {
    sender: Sender,
    socket: OwnedFd,
    _other: OwnedFd,
}

/// One with these words in the message's table.
fn received(slots: u8, capacity: u32, door: Option<&OwnedFd>) -> Result<Arrived, Error> {
    let victim = Victim::new();
    let (socket, other) = socket::pair().unwrap();
    let mut table = entry(0, door.is_some().into());
    table[3] = slots;
    table[4..8].copy_from_slice(&capacity.to_le_bytes());
    let mut fds = vec![&socket];
    fds.extend(door);
    victim.send(&framed(1, 0, 0, &table), &raw(&fds));
    let mut message = victim.receiver.recv(soon())?;
    match message.handles.pop().map(|received| received.handle) {
        Some(Handle::Sender(sender)) => Ok(Arrived {
            sender,
            socket,
            _other: other,
        }),
        other => panic!("{other:?}"),
    }
}

impl Arrived {
    /// Sends when only the door is left.
    fn send_by_the_door(&self) -> Result<(), Error> {
        while socket::send(self.socket.as_fd(), &[IoSlice::new(b"full")], &[])?
            == socket::Sent::Whole
        {}
        send(&self.sender, b"x", moment())
    }
}

#[test]
fn senders_with_any_slots_and_capacity() {
    contained(|| {
        for slots in [0, 1, 199, 200, 254, 255] {
            for capacity in [0, 1, 7, u32::MAX] {
                let arrived = received(slots, capacity, None).unwrap();
                check(send_some(&arrived.sender));
                drop(arrived.sender.duplicate());
            }
        }
    });
}

#[test]
fn doors_that_lead_nowhere() {
    contained(|| {
        for (what, stranger) in strangers() {
            match received(255, 0, Some(&stranger)) {
                Err(Error::Protocol(_)) => {}
                Err(other) => panic!("{what}: {other:?}"),
                Ok(_) => panic!("{what}"),
            }
        }
        let (listening, place) = door::make().unwrap();
        assert!(matches!(
            received(255, 0, Some(&listening)),
            Err(Error::Protocol(_))
        ));
        drop(listening);
        let outcome = received(255, 0, Some(&place)).unwrap().send_by_the_door();
        assert!(matches!(outcome, Err(Error::ReceiverGone)), "{outcome:?}");
    });
}

#[test]
fn doors_that_lead_to_sockets_of_another_kind() {
    contained(|| {
        let path = std::env::temp_dir().join(format!("hostile-{}", std::process::id()));
        let _listening = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let place =
            rustix::fs::open(&path, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        std::fs::remove_file(&path).unwrap();
        check(vec![
            received(255, 0, Some(&place)).unwrap().send_by_the_door(),
        ]);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn random_words_in_a_senders_header(
        rounds in prop::collection::vec(
            (0usize..4, prop_oneof![0u64..3_000_000, any::<u64>()], any::<bool>(), 0usize..200_000), 1..20,
        ),
        capacity in prop_oneof![Just(0u32), 1u32..10],
    ) {
        contained(move || {
            let (sender, receiver) = channel(capacity.max(4) * u32::from(capacity > 0)).unwrap();
            let hostile = HostileReceiver::of(&sender, receiver);
            for (word, value, aligned, size) in rounds {
                let value = if aligned { value & !15 } else { value };
                hostile.set([TAIL, HEAD, TAKEN, SENT][word], value);
                check(vec![send(&sender, &vec![1; size], Deadline::after(Duration::from_millis(2)))]);
            }
            let _ = hostile.connection.as_raw_fd();
        });
    }
}
