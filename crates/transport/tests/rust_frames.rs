//! Channels in the crate's frames: what is on the wire, what waits when the socket is full, and parts of messages.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ends;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ends::{at_once, in_time, send, send_until, send_with, soon};
use ipc_channel_transport::frames::reader::Holders;
use ipc_channel_transport::os::socket::{self, Peeked, Took};
use ipc_channel_transport::os::{descriptor, memory};
use ipc_channel_transport::wire::rust::{MOST_FDS, Version, buffer_size};
use ipc_channel_transport::{
    Copies, Deadline, Error, Handle, HandleRef, Receiver, ReceiverSet, Sender, SharedMemory,
    channel, channel_of_frames,
};

const VERSIONS: [Version; 3] = [Version::Current, Version::V0_21, Version::V0_20];

/// A sender of ours, and the socket that it sends to.
fn outward(version: Version) -> (Sender, OwnedFd) {
    let (ours, theirs) = socket::duplex_pair().unwrap();
    (Sender::of_frames(ours, version), theirs)
}

/// A socket, and the receiver of ours that takes what is sent there.
fn inward(version: Version) -> (OwnedFd, Receiver) {
    let (theirs, ours) = socket::duplex_pair().unwrap();
    (
        theirs,
        Receiver::of_frames(ours, version, Holders::Others).unwrap(),
    )
}

fn take(socket: &OwnedFd) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = Vec::with_capacity(1 << 20);
    match socket::take_into(socket.as_fd(), 0, &mut bytes, 1 << 20).unwrap() {
        Took::Packet { len, fds, .. } => {
            assert_eq!(len, bytes.len());
            (bytes, fds)
        }
        other => panic!("{other:?} instead of a packet"),
    }
}

fn put(socket: &OwnedFd, header: &[u8], payload: &[u8], fds: &[RawFd]) {
    let parts = [IoSlice::new(header), IoSlice::new(payload)];
    let sent = socket::send(socket.as_fd(), &parts, fds).unwrap();
    assert_eq!(sent, socket::Sent::Whole);
}

/// Sends the first packet of a message of `total` bytes, and returns the socket for the rest.
fn begin(socket: &OwnedFd, version: Version, payload: &[u8], total: usize) -> OwnedFd {
    let (mine, theirs) = socket::duplex_pair().unwrap();
    let header = version.header(payload.len(), total);
    put(socket, header.bytes(), payload, &[theirs.as_raw_fd()]);
    mine
}

fn words(bytes: &[u8]) -> Vec<usize> {
    let words = bytes.chunks_exact(8);
    words
        .map(|word| usize::from_ne_bytes(word.try_into().unwrap()))
        .collect()
}

#[test]
fn a_packet_is_a_header_and_the_payload() {
    for version in VERSIONS {
        let (sender, theirs) = outward(version);
        send(&sender, b"hello").unwrap();
        let (packet, fds) = take(&theirs);
        let (header, payload) = packet.split_at(version.header_len());
        assert_eq!(payload, b"hello");
        assert!(fds.is_empty());
        match version {
            Version::Current => assert_eq!(words(header), [16 + 5, 5]),
            Version::V0_21 | Version::V0_20 => assert_eq!(words(header), [5]),
        }
    }
}

#[test]
fn the_sizes_are_those_of_the_crate() {
    // Of a socket buffer of 212992 bytes.
    let sizes = |version: Version| {
        (
            version.largest_first(212_992),
            version.largest_further(212_992),
        )
    };
    assert_eq!(sizes(Version::Current), (212_448, 212_464));
    assert_eq!(sizes(Version::V0_21), (212_952, 212_960));
    assert_eq!(sizes(Version::V0_20), (212_952, 212_960));
}

#[test]
fn what_fits_is_one_packet_and_a_byte_more_are_two() {
    for version in VERSIONS {
        let largest = version.largest_first(buffer_size());
        let (sender, theirs) = outward(version);
        send(&sender, &vec![1; largest]).unwrap();
        let (packet, fds) = take(&theirs);
        assert_eq!(packet.len(), version.header_len() + largest);
        assert!(fds.is_empty());

        send(&sender, &vec![2; largest + 1]).unwrap();
        let (packet, mut fds) = take(&theirs);
        assert_eq!(packet.len(), version.header_len() + largest);
        assert_eq!(
            words(&packet[..version.header_len()]).last(),
            Some(&(largest + 1))
        );
        let rest = fds.pop().unwrap();
        assert!(fds.is_empty());
        assert_eq!(take(&rest).0, [2]);
    }
}

#[test]
fn further_packets_are_as_long_as_the_crate_has_room_for() {
    for version in VERSIONS {
        in_time(move || {
            let (sender, theirs) = outward(version);
            let payload: Vec<u8> = (0..2_000_000u32).map(|number| number as u8).collect();
            send(&sender, &payload).unwrap();
            let (packet, mut fds) = take(&theirs);
            let mut came = packet[version.header_len()..].to_vec();
            let rest = fds.pop().unwrap();
            while came.len() < payload.len() {
                if let Peeked::Nothing = socket::peek(rest.as_fd(), &mut [0]).unwrap() {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let (part, fds) = take(&rest);
                assert!(part.len() <= version.largest_further(buffer_size()));
                assert!(fds.is_empty());
                came.extend(part);
            }
            assert!(came == payload);
            sender.flush(soon()).unwrap();
            // It is all there; the socket is closed a moment later.
            let end = loop {
                match socket::peek(rest.as_fd(), &mut [0]).unwrap() {
                    Peeked::Nothing => thread::sleep(Duration::from_millis(1)),
                    other => break other,
                }
            };
            assert!(matches!(end, Peeked::End), "{end:?}");
        });
    }
}

#[test]
fn ends_come_before_regions_and_the_socket_for_the_rest_comes_last() {
    let (sender, theirs) = outward(Version::Current);
    let (one, inbox) = channel_of_frames(Version::Current).unwrap();
    let region = Arc::new(SharedMemory::create(10, false).unwrap());
    let empty = Arc::new(SharedMemory::create(0, false).unwrap());
    let handles = vec![
        HandleRef::Memory(&region),
        HandleRef::Sender(&one),
        HandleRef::Memory(&empty),
        HandleRef::Receiver(&inbox),
        HandleRef::Sender(&one),
    ];
    let payload = vec![0; 300_000];
    send_with(&sender, &payload, handles, soon()).unwrap();
    assert!(one.end().gone().is_some() && inbox.end().gone().is_some());
    let (_, fds) = take(&theirs);
    let sockets: Vec<bool> = fds
        .iter()
        .map(|fd| descriptor::is_socket(fd.as_fd()))
        .collect();
    assert_eq!(sockets, [true, true, true, false, true]);
    // The region is a copy that can be mapped writable; the receiver is second.
    let seals = rustix::fs::fcntl_get_seals(&fds[3]).unwrap();
    assert!(!seals.contains(rustix::fs::SealFlags::WRITE));
    let ours = Sender::of_frames(
        descriptor::duplicate(fds[0].as_fd()).unwrap(),
        Version::Current,
    );
    send(&ours, b"to the receiver that was sent").unwrap();
    let arrived = Receiver::of_frames(
        descriptor::duplicate(fds[1].as_fd()).unwrap(),
        Version::Current,
        Holders::Others,
    );
    let message = arrived.unwrap().recv(soon()).unwrap();
    assert_eq!(message.payload(), b"to the receiver that was sent");
}

#[test]
fn more_handles_than_the_crate_has_room_for_are_an_error_and_nothing_is_sent() {
    for (len, most) in [(1, MOST_FDS), (1 << 20, MOST_FDS - 1)] {
        let (sender, theirs) = outward(Version::Current);
        let region = Arc::new(SharedMemory::create(1, false).unwrap());
        let payload = vec![0; len];
        let handles = |count| vec![HandleRef::Memory(&region); count];
        let refused = send_with(&sender, &payload, handles(most + 1), soon());
        assert!(
            matches!(refused, Err(Error::TooManyHandles(_))),
            "{refused:?}"
        );
        let nothing = socket::peek(theirs.as_fd(), &mut [0]).unwrap();
        assert!(matches!(nothing, Peeked::Nothing));
        send_with(&sender, &payload, handles(most), soon()).unwrap();
        assert_eq!(
            take(&theirs).1.len(),
            MOST_FDS.min(most + usize::from(len > 1))
        );
    }
}

#[test]
fn ends_of_other_channels_stay() {
    let (sender, _theirs) = outward(Version::Current);
    let (native, native_inbox) = channel(0).unwrap();
    let (older, older_inbox) = channel_of_frames(Version::V0_20).unwrap();
    for handle in [
        HandleRef::Sender(&native),
        HandleRef::Receiver(&native_inbox),
        HandleRef::Sender(&older),
        HandleRef::Receiver(&older_inbox),
    ] {
        let refused = send_with(&sender, b"", vec![handle], soon());
        assert!(matches!(refused, Err(Error::Unfit(_))), "{refused:?}");
    }
    for (sender, receiver) in [(native, native_inbox), (older, older_inbox)] {
        send(&sender, b"still here").unwrap();
        assert_eq!(receiver.recv(soon()).unwrap().payload(), b"still here");
    }
}

#[test]
fn messages_of_our_own_carry_ends_of_frames() {
    let (sender, receiver) = channel_of_frames(Version::V0_21).unwrap();
    send(&sender, b"one").unwrap();
    let receiver = ends::moved_receiver(&receiver);
    assert_eq!(receiver.version(), Some(Version::V0_21));
    let (carrier, arrival) = channel(0).unwrap();
    send_with(&carrier, b"", vec![HandleRef::Sender(&sender)], soon()).unwrap();
    let sender = ends::only_sender(arrival.recv(soon()).unwrap());
    assert_eq!(sender.version(), Some(Version::V0_21));
    send(&sender, b"two").unwrap();
    drop(sender);
    assert_eq!(receiver.recv(soon()).unwrap().payload(), b"one");
    assert_eq!(receiver.recv(soon()).unwrap().payload(), b"two");
    assert!(matches!(receiver.recv(soon()), Err(Error::Disconnected)));
}

#[test]
fn a_full_socket_makes_nobody_wait() {
    in_time(|| {
        let (sender, receiver) = channel_of_frames(Version::Current).unwrap();
        for number in 0..5000u32 {
            let len = if number % 100 == 0 { 300_000 } else { 4 };
            let mut payload = number.to_le_bytes().to_vec();
            payload.resize(len, 7);
            send_until(&sender, &payload, at_once()).unwrap();
        }
        let late = sender.flush(Deadline::after(Duration::from_millis(20)));
        assert!(matches!(late, Err(Error::TimedOut)), "{late:?}");
        assert!(sender.lane().unwrap().backlog > 4000);
        let twin = sender.duplicate().unwrap();
        // What waits is sent although no sender is left.
        drop(sender);
        drop(twin);
        for number in 0..5000u32 {
            let message = receiver.recv(soon()).unwrap();
            assert_eq!(message.payload()[..4], number.to_le_bytes());
        }
        assert!(matches!(receiver.recv(soon()), Err(Error::Disconnected)));
    });
}

/// What waits goes in rows, if it is small, and else by itself. Whoever sends while a row is under way comes behind it.
#[test]
fn nothing_overtakes_what_waits() {
    const COUNT: u32 = 200_000;
    const LAST_ROW: u64 = 20;
    in_time(|| {
        let (sender, receiver) = channel_of_frames(Version::Current).unwrap();
        let reading = thread::spawn(move || {
            for number in 0..COUNT {
                let message = receiver.recv(soon()).unwrap();
                assert_eq!(message.payload()[..4], number.to_le_bytes());
            }
        });
        let region = Arc::new(SharedMemory::of_bytes(b"region").unwrap());
        for number in 0..COUNT {
            let mut payload = number.to_le_bytes().to_vec();
            let mut handles = vec![];
            match number % 1000 {
                300 => payload.resize(3000, 0),
                500 => payload.resize(300_000, 0),
                700 => handles.push(HandleRef::Memory(&region)),
                _ => {}
            }
            send_with(&sender, &payload, handles, soon()).unwrap();
            // After more than the socket takes: then the last row is under way when the next message comes.
            if number % 400 == 0 {
                while sender.lane().is_some_and(|lane| lane.backlog > LAST_ROW) {
                    thread::yield_now();
                }
            }
        }
        reading.join().unwrap();
    });
}

#[test]
fn what_waits_is_lost_with_its_receiver_and_the_next_send_says_so() {
    in_time(|| {
        let (sender, receiver) = channel_of_frames(Version::Current).unwrap();
        let (inner, inner_receiver) = channel_of_frames(Version::Current).unwrap();
        for _ in 0..1000 {
            send(&sender, &[0; 1000]).unwrap();
        }
        send_with(&sender, b"", vec![HandleRef::Sender(&inner)], soon()).unwrap();
        assert!(matches!(inner_receiver.try_recv(), Err(Error::Empty)));
        drop(receiver);
        let flushed = sender.flush(soon());
        assert!(matches!(flushed, Err(Error::ReceiverGone)), "{flushed:?}");
        let sent = send(&sender, b"");
        assert!(matches!(sent, Err(Error::ReceiverGone)), "{sent:?}");
        // The end that was still here went with the message.
        assert!(matches!(
            inner_receiver.recv(soon()),
            Err(Error::Disconnected)
        ));
    });
}

#[test]
fn a_flush_waits_for_what_had_been_sent_and_not_for_what_comes() {
    const BEFORE: usize = 1000;
    in_time(|| {
        let (sender, receiver) = channel_of_frames(Version::Current).unwrap();
        let beginning = sender.mark().unwrap();
        let send_some = || {
            for _ in 0..BEFORE {
                send(&sender, &[0; 100]).unwrap();
            }
        };
        send_some();
        let mark = sender.mark().unwrap();
        for _ in 0..5 {
            send_some();
        }
        sender.flush_until(beginning, at_once()).unwrap();
        let early = sender.flush_until(mark, at_once());
        assert!(matches!(early, Err(Error::TimedOut)), "{early:?}");
        for _ in 0..BEFORE {
            receiver.recv(soon()).unwrap();
        }
        sender.flush_until(mark, soon()).unwrap();
        assert!(sender.lane().unwrap().backlog > 0);
    });
}

#[test]
fn everybody_who_flushes_is_told_of_what_was_lost() {
    in_time(|| {
        let (sender, receiver) = channel_of_frames(Version::Current).unwrap();
        for _ in 0..1000 {
            send(&sender, &[0; 100]).unwrap();
        }
        let twin = sender.duplicate().unwrap();
        let waiting = thread::spawn(move || twin.flush(soon()));
        let twin = sender.duplicate().unwrap();
        drop(receiver);
        for flushed in [
            waiting.join().unwrap(),
            sender.flush(soon()),
            sender.flush(soon()),
            twin.flush(soon()),
        ] {
            assert!(matches!(flushed, Err(Error::ReceiverGone)), "{flushed:?}");
        }
    });
}

#[test]
fn a_large_message_comes_in_parts_and_others_are_not_kept_waiting() {
    for version in VERSIONS {
        let (theirs, receiver) = inward(version);
        let rest = begin(&theirs, version, b"large ", 14);
        assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
        assert!(!receiver.poll(at_once()).unwrap());
        let short = Deadline::after(Duration::from_millis(5));
        assert!(matches!(receiver.recv(short), Err(Error::TimedOut)));
        put(&rest, b"", b"mess", &[]);
        assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
        // Its sender cannot have sent this after that.
        put(&theirs, version.header(5, 5).bytes(), b"small", &[]);
        assert_eq!(receiver.recv(soon()).unwrap().payload(), b"small");
        put(&rest, b"", b"ages", &[]);
        // Both are whole now, and the one that was begun first goes first.
        put(&theirs, version.header(5, 5).bytes(), b"later", &[]);
        assert!(receiver.poll(at_once()).unwrap());
        assert_eq!(receiver.recv(soon()).unwrap().payload(), b"large messages");
        assert_eq!(receiver.recv(soon()).unwrap().payload(), b"later");
        drop(theirs);
        assert!(matches!(receiver.recv(soon()), Err(Error::Disconnected)));
    }
}

#[test]
fn a_large_message_that_ends_after_its_channel_still_comes() {
    let (theirs, receiver) = inward(Version::Current);
    let rest = begin(&theirs, Version::Current, b"a", 2);
    drop(theirs);
    assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
    assert!(matches!(
        receiver.recv(Deadline::after(Duration::from_millis(5))),
        Err(Error::TimedOut)
    ));
    put(&rest, b"", b"b", &[]);
    assert_eq!(receiver.recv(soon()).unwrap().payload(), b"ab");
    assert!(matches!(receiver.recv(soon()), Err(Error::Disconnected)));
}

#[test]
fn a_half_message_whose_sender_has_gone_was_never_sent() {
    let (theirs, receiver) = inward(Version::Current);
    let (inner, inner_receiver) = channel_of_frames(Version::Current).unwrap();
    let (mine, dedicated) = socket::duplex_pair().unwrap();
    let fd = inner.end().socket().unwrap();
    let fds = [fd.as_raw_fd(), dedicated.as_raw_fd()];
    put(&theirs, Version::Current.header(1, 100).bytes(), b"x", &fds);
    drop((dedicated, fd, inner));
    assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
    put(&mine, b"", b"more", &[]);
    drop(mine);
    put(&theirs, Version::Current.header(4, 4).bytes(), b"next", &[]);
    assert_eq!(receiver.recv(soon()).unwrap().payload(), b"next");
    assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
    // What came with it is closed.
    assert!(matches!(
        inner_receiver.recv(soon()),
        Err(Error::Disconnected)
    ));
    drop(theirs);
    assert!(matches!(receiver.try_recv(), Err(Error::Disconnected)));
}

#[test]
fn a_receiver_that_has_a_part_of_a_message_does_not_move() {
    let (theirs, receiver) = inward(Version::Current);
    let rest = begin(&theirs, Version::Current, b"a", 2);
    assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
    let (carrier, _arrival) = channel(0).unwrap();
    let refused = send_with(&carrier, b"", vec![HandleRef::Receiver(&receiver)], soon());
    assert!(matches!(refused, Err(Error::Unfit(_))), "{refused:?}");
    put(&rest, b"", b"b", &[]);
    assert_eq!(receiver.recv(soon()).unwrap().payload(), b"ab");
    send_with(&carrier, b"", vec![HandleRef::Receiver(&receiver)], soon()).unwrap();
}

#[test]
fn a_set_and_descriptors_tell_of_the_rest_of_a_message() {
    in_time(|| {
        let (theirs, receiver) = inward(Version::Current);
        let set = ReceiverSet::new().unwrap();
        let token = set.add(&receiver).unwrap();
        let rest = begin(&theirs, Version::Current, b"a", 2);
        assert!(set.select(at_once()).unwrap().is_empty());
        let later = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            put(&rest, b"", b"b", &[]);
        });
        let events = set.select(soon()).unwrap();
        assert!(
            matches!(&events[..], [(found, ipc_channel_transport::Event::Message(message))]
            if *found == token && message.payload() == b"ab")
        );
        later.join().unwrap();
        drop(theirs);
        let events = set.select(soon()).unwrap();
        assert!(matches!(
            &events[..],
            [(_, ipc_channel_transport::Event::Closed)]
        ));
    });
}

#[test]
fn regions_are_copied_and_must_be_memory_that_was_paid_for() {
    let file = memory::create("test", 8).unwrap();
    memory::write_all(file.as_fd(), &[b"contents"]).unwrap();
    let copy = SharedMemory::copy_of(&file).unwrap();
    memory::write_all(file.as_fd(), &[b"changed!"]).unwrap();
    memory::grow(file.as_fd(), 0).unwrap();
    assert!(copy.is_frozen() && !copy.is_mutable());
    let mut bytes = [0; 8];
    rustix::io::pread(copy.file(), &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"contents");

    let holes = memory::create("test", 1 << 40).unwrap();
    assert!(matches!(
        SharedMemory::copy_of(&holes),
        Err(Error::Protocol(_))
    ));
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    assert!(matches!(
        SharedMemory::copy_of(&pipe),
        Err(Error::Protocol(_))
    ));
}

#[test]
fn a_region_that_came_twice_is_copied_once() {
    let [one, another] = [b"one", b"two"].map(|content| {
        let file = memory::create("test", 3).unwrap();
        memory::write_all(file.as_fd(), &[content]).unwrap();
        file
    });
    let again = descriptor::duplicate(one.as_fd()).unwrap();
    let copies = Copies::default();
    let [first, second, third] = [&one, &another, &again].map(|file| copies.of(file).unwrap());
    assert!(Arc::ptr_eq(&first, &third) && !Arc::ptr_eq(&first, &second));
    // What is no memory is refused here as well.
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    assert!(matches!(copies.of(&pipe), Err(Error::Protocol(_))));
}

#[test]
fn what_came_beside_a_message_waits_to_be_said_what_it_is() {
    let (theirs, receiver) = inward(Version::Current);
    let (one, other) = socket::duplex_pair().unwrap();
    let file = memory::create("test", 0).unwrap();
    let fds = [one.as_raw_fd(), file.as_raw_fd()];
    put(&theirs, Version::Current.header(1, 1).bytes(), b"x", &fds);
    drop(one);
    let message = receiver.recv(soon()).unwrap();
    assert!(
        message
            .handles
            .iter()
            .all(|received| matches!(received.handle, Handle::Foreign(_)))
    );
    assert!(!socket::has_hung_up(other.as_fd()));
    drop(message);
    assert!(socket::has_hung_up(other.as_fd()));
}
