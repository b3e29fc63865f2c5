//! Whatever a sender writes into the memory that it shares with a receiver, or announces: clean data, a protocol
//! error or the end of that one source. Never a panic or a hang, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hostile;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use hostile::{
    Lane, RING, Storm, Victim, contained, entry, framed, honest, raw, read, soon, strangers,
};
use ipc_channel_transport::lane::consumer::Place;
use ipc_channel_transport::lane::layout::{self, FAREWELL, Kind, pack};
use ipc_channel_transport::os::{clock, memory, socket};
use ipc_channel_transport::wire::control;
use ipc_channel_transport::wire::native::{PacketKind, header};
use ipc_channel_transport::{Deadline, Error};
use proptest::prelude::*;

#[test]
fn a_lane_made_by_hand_and_by_the_rules_is_read() {
    contained(|| {
        let victim = Victim::new();
        let mut lane = Lane::with_rings(2);
        lane.announce(&victim, &lane.place());
        lane.record(Kind::Plain, 0, b"plain");
        lane.record(Kind::Framed, 0, &honest(b"framed"));
        lane.record(Kind::Skip, 0, &[0; 100]);
        lane.record(Kind::Plain, 0, b"after a skip");
        lane.switch(4096 + RING as u64, RING as u64, FAREWELL);
        let skipped = lane.written;
        lane.put(RING, pack(Kind::Plain, 0, 6), 0, b"second");
        lane.written = skipped + 32;
        lane.publish();
        let drained = victim.drain();
        let expected = [&b"plain"[..], b"framed", b"after a skip", b"second"];
        assert_eq!(drained.messages, expected);
        assert_eq!(drained.protocol_errors, 0);
    });
}

fn places(honest: Place, size: u64) -> Vec<(&'static str, Place)> {
    let mut all = Vec::new();
    for offset in [
        0,
        1,
        4095,
        4097,
        size,
        size - 4096,
        size + 4096,
        1 << 63,
        u64::MAX - 4095,
        u64::MAX,
    ] {
        all.push(("offset", Place { offset, ..honest }));
    }
    for len in [
        0,
        1,
        16,
        4095,
        4097,
        RING as u64 + 4096,
        1 << 62,
        1 << 63,
        u64::MAX - 4095,
        u64::MAX,
    ] {
        all.push(("len", Place { len, ..honest }));
    }
    for (start, read) in [
        (1, 16),
        (0, 8),
        (16, 0),
        (u64::MAX, u64::MAX),
        (u64::MAX - 15, 0),
    ] {
        all.push((
            "start",
            Place {
                start,
                read,
                ..honest
            },
        ));
    }
    all
}

#[test]
fn announcements_of_places_that_are_none() {
    contained(|| {
        let victim = Victim::new();
        let lane = Lane::new();
        let size = (4096 + RING) as u64;
        for (field, place) in places(lane.place(), size) {
            lane.announce(&victim, &place);
            victim.refuses(&format!("{field}: {place:?}"));
        }
    });
}

#[test]
fn announcements_of_any_length() {
    contained(|| {
        let victim = Victim::new();
        let lane = Lane::new();
        for kind in [1u8, 2, 3, 4, 5] {
            for len in [0, 1, 8, 55, 57, 64, 1000] {
                let mut packet = header(PacketKind::Message).to_vec();
                packet[6] = kind;
                packet.extend(vec![0xa5; len]);
                victim.send(&packet, &[lane.theirs.as_raw_fd(), lane.file.as_raw_fd()]);
                victim.refuses(&format!("kind {kind}, {len} bytes"));
            }
        }
    });
}

#[test]
fn descriptors_that_no_announcement_should_bring() {
    contained(|| {
        let victim = Victim::new();
        let lane = Lane::new();
        let strangers = strangers();
        let place = lane.place();
        for (what, stranger) in &strangers {
            for fds in [
                vec![stranger],
                vec![stranger, &lane.file],
                vec![&lane.theirs, stranger],
                vec![&lane.theirs, &lane.file, stranger],
                vec![stranger, stranger],
                vec![stranger; 253],
            ] {
                let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                control::send_place(victim.socket.as_fd(), PacketKind::Lane, &place, &fds).unwrap();
                victim.refuses(what);
                for kind in [
                    PacketKind::Door,
                    PacketKind::Link,
                    PacketKind::Source,
                    PacketKind::Next,
                ] {
                    victim.send_control(kind, &fds);
                    victim.refuses(what);
                }
            }
        }
        for kind in [
            PacketKind::Lane,
            PacketKind::Door,
            PacketKind::Link,
            PacketKind::Source,
            PacketKind::Next,
        ] {
            victim.send_control(kind, &[]);
            victim.refuses("without any");
            victim.send_control(kind, &[lane.theirs.as_fd()]);
            victim.refuses("a connected socket");
        }
    });
}

fn announce_file(victim: &Victim, file: &OwnedFd, place: &Place) {
    let (_connection, theirs) = socket::duplex_pair().unwrap();
    let fds = [theirs.as_fd(), file.as_fd()];
    control::send_place(victim.socket.as_fd(), PacketKind::Lane, place, &fds).unwrap();
}

#[test]
fn memory_that_is_no_lanes() {
    contained(|| {
        let victim = Victim::new();
        let place = Lane::new().place();
        let unsealed = memory::create("unsealed", 1 << 20).unwrap();
        announce_file(&victim, &unsealed, &place);
        victim.refuses("unsealed");
        let growing = memory::create("may shrink", 1 << 20).unwrap();
        rustix::fs::fcntl_add_seals(&growing, rustix::fs::SealFlags::GROW).unwrap();
        announce_file(&victim, &growing, &place);
        victim.refuses("may shrink");
        for size in [0, 1, 4095, 4096, 4097, 8191, 4096 + RING as u64 - 1] {
            let tiny = memory::create_growing("tiny").unwrap();
            memory::grow(tiny.as_fd(), size).unwrap();
            announce_file(&victim, &tiny, &place);
            victim.refuses(&format!("of {size} bytes"));
        }
        let flags = rustix::fs::MemfdFlags::ALLOW_SEALING | rustix::fs::MemfdFlags::HUGETLB;
        if let Ok(huge) = rustix::fs::memfd_create("huge", flags) {
            rustix::fs::ftruncate(&huge, 4 << 20).unwrap();
            rustix::fs::fcntl_add_seals(&huge, rustix::fs::SealFlags::SHRINK).unwrap();
            announce_file(&victim, &huge, &place);
            victim.refuses("huge pages");
        }
    });
}

#[test]
fn memory_that_cannot_be_written_to_is_no_lanes() {
    contained(|| {
        let victim = Victim::new();
        let place = Lane::new().place();
        let sealed = memory::create("sealed", 1 << 20).unwrap();
        assert!(memory::seal_content(sealed.as_fd()).unwrap());
        announce_file(&victim, &sealed, &place);
        victim.refuses("sealed against writing");
    });
}

#[test]
fn memory_opened_for_reading_is_no_lanes() {
    contained(|| {
        let victim = Victim::new();
        let lane = Lane::new();
        let path = format!("/proc/self/fd/{}", lane.file.as_raw_fd());
        let reading: OwnedFd = std::fs::File::open(path).unwrap().into();
        announce_file(&victim, &reading, &lane.place());
        victim.refuses("opened for reading");
    });
}

#[test]
fn a_ring_larger_than_the_address_space() {
    contained(|| {
        let victim = Victim::new();
        let file = memory::create_growing("sparse").unwrap();
        memory::grow(file.as_fd(), 1 << 61).unwrap();
        let place = Place {
            len: 1 << 60,
            ..Lane::new().place()
        };
        announce_file(&victim, &file, &place);
        victim.refuses("a ring of 2^60 bytes");
    });
}

fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmSize:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

#[test]
fn a_ring_of_holes_as_large_as_half_the_address_space_is_not_mapped() {
    contained(|| {
        let victim = Victim::new();
        let file = memory::create_growing("sparse").unwrap();
        memory::grow(file.as_fd(), 1 << 46).unwrap();
        let place = Place {
            len: 1 << 45,
            ..Lane::new().place()
        };
        let before = address_space();
        announce_file(&victim, &file, &place);
        victim.drain();
        assert!(address_space() - before < 1 << 40);
    });
}

#[test]
fn records_that_are_none() {
    contained(|| {
        let words = [0u64, 5, 6, 0x7f, 0x80, 0xff].map(|kind| kind << 56 | 8);
        for word in words {
            let victim = Victim::new();
            let mut lane = Lane::new();
            lane.announce(&victim, &lane.place());
            lane.put(0, word, 0, b"12345678");
            lane.written = 32;
            lane.publish();
            victim.refuses("unknown kind");
        }
    });
}

#[test]
fn records_longer_than_their_place() {
    contained(|| {
        let longest = (1usize << 48) - 1;
        for kind in [Kind::Plain, Kind::Framed, Kind::Skip, Kind::Switch] {
            for (len, published) in [
                (17, 32),
                (RING, RING as u64),
                (RING - 15, RING as u64),
                (RING, 1 << 40),
                (longest, RING as u64),
                (longest, u64::MAX - 15),
            ] {
                let victim = Victim::new();
                let mut lane = Lane::new();
                lane.announce(&victim, &lane.place());
                lane.put(0, pack(kind, 0, len), 0, &[0; 64]);
                lane.written = published;
                lane.publish();
                victim.refuses(&format!("{kind:?} of {len} with {published} published"));
            }
        }
    });
}

#[test]
fn a_tail_that_goes_back_or_far_ahead_harms_its_own_lane_alone() {
    contained(|| {
        for tail in [16u64, 31, 32, 48, 1 << 20, 1 << 63, u64::MAX - 15, u64::MAX] {
            let victim = Victim::new();
            let mut lane = Lane::new();
            lane.announce(&victim, &lane.place());
            lane.record(Kind::Plain, 0, b"first");
            lane.record(Kind::Plain, 0, b"second");
            lane.publish();
            assert_eq!(victim.receiver.recv(soon()).unwrap().payload(), b"first");
            lane.set(layout::TAIL, tail);
            lane.ring();
            let drained = victim.drain();
            assert!(drained.protocol_errors <= 1, "{tail}: {drained:?}");
        }
    });
}

#[test]
fn a_tail_beyond_all_memory_does_not_keep_others_waiting_for_ever() {
    contained(|| {
        for (read_before, tail) in [
            (false, 1u64 << 40),
            (false, 1 << 60),
            (false, u64::MAX - 15),
            (true, 1 << 60),
            (true, 0),
            (true, 1024),
        ] {
            let victim = Victim::new();
            let mut lane = Lane::new();
            lane.announce(&victim, &lane.place());
            // A ring full of messages, each of them older than any other: after the last comes the first.
            for _ in 0..RING / 1024 {
                lane.record(Kind::Plain, 0, &[7; 1024 - layout::RECORD_HEADER]);
            }
            assert_eq!(lane.written, RING as u64);
            if read_before {
                lane.publish();
                assert_eq!(victim.drain().messages.len(), RING / 1024);
            }
            lane.set(layout::TAIL, tail);
            lane.ring();
            // None is taken before it is known that there cannot be so many.
            victim.refuses(&format!("tail {tail}, read before: {read_before}"));
        }
    });
}

#[test]
fn words_of_the_header_page_that_the_receiver_never_asked_for() {
    contained(|| {
        let victim = Victim::new();
        let mut lane = Lane::new();
        let place = Place {
            bounded: true,
            ..lane.place()
        };
        lane.announce(&victim, &place);
        for round in 0..200u64 {
            lane.set(layout::SENT, round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            lane.set(layout::HEAD, u64::MAX - round);
            lane.set(layout::TAKEN, u64::MAX - round);
            lane.record(Kind::Plain, 0, b"message");
            let flags = round % 16;
            lane.set(layout::TAIL, lane.written | flags);
            lane.ring();
            assert_eq!(victim.receiver.recv(soon()).unwrap().payload(), b"message");
        }
    });
}

#[test]
fn switches_to_where_no_ring_is() {
    contained(|| {
        let size = (4096 + 2 * RING) as u64;
        for (field, place) in places(Lane::new().place(), size) {
            if field == "start" || place.offset == size - 4096 {
                continue;
            }
            let victim = Victim::new();
            let mut lane = Lane::with_rings(1);
            lane.announce(&victim, &lane.place());
            lane.switch(place.offset, place.len, 0);
            lane.publish();
            victim.refuses(&format!("{place:?}"));
        }
        for len in [0, 8, 31, 33, 64] {
            let victim = Victim::new();
            let mut lane = Lane::new();
            lane.announce(&victim, &lane.place());
            lane.record(Kind::Switch, 0, &vec![0; len]);
            lane.publish();
            victim.refuses(&format!("a switch of {len} bytes"));
        }
    });
}

#[test]
fn switches_with_padding() {
    contained(|| {
        for padding in [1, 4, 7, 8, 15, 255] {
            let victim = Victim::new();
            let mut lane = Lane::new();
            lane.announce(&victim, &lane.place());
            lane.put(0, pack(Kind::Switch, padding, 32), 0, &[]);
            lane.written = layout::record_len(padding, 32) as u64;
            lane.publish();
            victim.refuses(&format!("padding of {padding}"));
        }
    });
}

#[test]
fn a_switch_to_the_ring_it_is_in_and_to_one_that_overlaps() {
    contained(|| {
        for (offset, flags) in [(4096, 0), (4096, FAREWELL), (8192, 0), (8192, FAREWELL)] {
            let victim = Victim::new();
            let mut lane = Lane::with_rings(2);
            lane.announce(&victim, &lane.place());
            lane.switch(offset, RING as u64, flags);
            lane.set(layout::TAIL, 1 << 30);
            lane.ring();
            let drained = victim.drain();
            assert_eq!(drained.protocol_errors, 1, "{drained:?}");
            assert!(drained.messages.is_empty());
        }
    });
}

#[test]
fn skips_and_switches_without_end() {
    contained(|| {
        for skip in [true, false] {
            let victim = Victim::new();
            let mut lane = Lane::new();
            lane.announce(&victim, &lane.place());
            for _ in 0..1000 {
                if skip {
                    lane.record(Kind::Skip, 0, &[]);
                } else {
                    lane.switch(4096, RING as u64, 0);
                }
            }
            lane.publish();
            victim.refuses("without end");
        }
    });
}

#[test]
fn a_lane_after_whose_damage_another_one_is_read() {
    contained(|| {
        let victim = Victim::new();
        let mut bad = Lane::new();
        let mut good = Lane::new();
        bad.announce(&victim, &bad.place());
        good.announce(&victim, &good.place());
        bad.put(0, u64::MAX, 0, &[]);
        bad.written = 64;
        bad.publish();
        for _ in 0..3 {
            good.record(Kind::Plain, 0, b"good");
        }
        good.publish();
        let drained = victim.drain();
        assert_eq!(drained.messages, [b"good", b"good", b"good"]);
        assert_eq!(drained.protocol_errors, 1);
    });
}

/// A lane whose first record has been seen and not taken, because an earlier one was elsewhere.
fn seen_and_not_taken(victim: &Victim) -> Lane {
    let mut lane = Lane::new();
    lane.announce(victim, &lane.place());
    lane.record(Kind::Plain, clock::now(), b"later");
    lane.publish();
    // Stamped 0: earlier than everything.
    let mut other = Lane::new();
    other.announce(victim, &other.place());
    other.record(Kind::Plain, 0, b"earlier");
    other.publish();
    assert_eq!(victim.receiver.recv(soon()).unwrap().payload(), b"earlier");
    lane
}

#[test]
fn a_record_damaged_after_it_was_seen_ends_its_own_lane_alone() {
    contained(|| {
        let victim = Victim::new();
        let lane = seen_and_not_taken(&victim);
        lane.put(0, u64::MAX, 0, &[]);
        victim.refuses("damaged after it was seen");
    });
}

#[test]
fn a_record_that_becomes_a_skip_after_it_was_seen_does_not_keep_the_stream_from_ending() {
    contained(|| {
        let victim = Victim::new();
        let lane = seen_and_not_taken(&victim);
        lane.put(0, pack(Kind::Skip, 0, 5), 0, &[]);
        assert!(matches!(victim.receiver.try_recv(), Err(Error::Empty)));
        let Victim { socket, receiver } = victim;
        drop((socket, lane));
        let outcome = receiver.recv(Deadline::after(std::time::Duration::from_secs(2)));
        assert!(matches!(outcome, Err(Error::Disconnected)), "{outcome:?}");
    });
}

#[test]
fn a_place_at_the_end_of_all_numbers() {
    contained(|| {
        let victim = Victim::new();
        let end = u64::MAX - 15;
        for (start, read, taken) in [(end, end, 0), (0, end, 0), (0, 0, u64::MAX)] {
            let mut lane = Lane::new();
            let place = Place {
                start,
                read,
                taken,
                bounded: true,
                ..lane.place()
            };
            lane.announce(&victim, &place);
            let at = (((read - start) % RING as u64) as usize).min(RING - 256);
            for record in 0..3 {
                lane.put((at + 32 * record) % RING, pack(Kind::Plain, 0, 1), 0, b"x");
            }
            lane.written = read.wrapping_add(96);
            lane.publish();
            victim.drain();
        }
    });
}

#[test]
fn statistics_of_lanes_that_claim_to_be_endless() {
    contained(|| {
        let victim = Victim::new();
        let lanes = [Lane::new(), Lane::new()];
        for lane in &lanes {
            lane.announce(&victim, &lane.place());
        }
        victim.drain();
        for lane in &lanes {
            lane.set(layout::TAIL, u64::MAX);
        }
        assert_eq!(victim.receiver.lanes().0, 2);
    });
}

#[test]
fn framed_records_with_forged_headers() {
    contained(|| {
        let body = [0u8; 64];
        let good = framed(0, 64, 0, &body);
        let mut forgeries = vec![
            good[..63].to_vec(),
            good[..good.len() - 1].to_vec(),
            Vec::new(),
        ];
        for at in (0..40).chain(48..64) {
            for value in [1, 0x7f, 0xff] {
                let mut forged = good.clone();
                if forged[at] != value {
                    forged[at] = value;
                    forgeries.push(forged);
                }
            }
        }
        for forged in forgeries {
            let victim = Victim::new();
            let mut lane = Lane::new();
            lane.announce(&victim, &lane.place());
            lane.record(Kind::Framed, 0, &forged);
            lane.record(Kind::Plain, 0, b"next");
            lane.publish();
            let drained = victim.drain();
            assert_eq!(
                drained.messages.last().map(Vec::as_slice),
                Some(&b"next"[..]),
                "{forged:?}"
            );
            assert!(
                drained.messages.len() + drained.protocol_errors == 2,
                "{drained:?}"
            );
        }
    });
}

#[test]
fn large_bodies_without_pages() {
    contained(|| {
        for kind in [Kind::Plain, Kind::Framed] {
            let victim = Victim::new();
            let file = memory::create_growing("sparse").unwrap();
            memory::grow(file.as_fd(), 1 << 31).unwrap();
            let lane = sparse_lane(&file, &victim, 1 << 30);
            let len = 1 << 29;
            let mut start = header(PacketKind::Message);
            start[24..32].copy_from_slice(&(len as u64 - 64).to_le_bytes());
            start[32..40].copy_from_slice(&(len as u64 - 64).to_le_bytes());
            lane.put(0, pack(kind, 0, len), 0, &start);
            lane.set(layout::TAIL, 1 << 30);
            lane.ring();
            match victim.receiver.recv(soon()) {
                Err(Error::Protocol(_)) => {}
                outcome => panic!("{outcome:?}"),
            }
            assert!(memory::allocated(file.as_fd()).unwrap() < 1 << 20);
        }
    });
}

/// A lane over `file` with a ring of `len` bytes, of which only the beginning is mapped here.
fn sparse_lane(file: &OwnedFd, victim: &Victim, len: u64) -> Lane {
    let (connection, theirs) = socket::duplex_pair().unwrap();
    let file = ipc_channel_transport::os::descriptor::duplicate(file.as_fd()).unwrap();
    let memory =
        ipc_channel_transport::os::shared::Region::map(file.as_fd(), 0, 4096 + RING).unwrap();
    let lane = Lane {
        file,
        memory,
        connection,
        theirs,
        written: 0,
    };
    lane.announce(
        victim,
        &Place {
            len,
            ..lane.place()
        },
    );
    lane
}

#[test]
fn tables_of_a_framed_record_without_pages() {
    contained(|| {
        let victim = Victim::new();
        let file = memory::create_growing("sparse").unwrap();
        memory::grow(file.as_fd(), 1 << 31).unwrap();
        let lane = sparse_lane(&file, &victim, 1 << 30);
        let (len, handles) = (1usize << 29, 8u32 << 20);
        let mut start = header(PacketKind::Message);
        start[8..12].copy_from_slice(&handles.to_le_bytes());
        start[32..40].copy_from_slice(&(len as u64 - 64).to_le_bytes());
        lane.put(0, pack(Kind::Framed, 0, len), 0, &start);
        lane.set(layout::TAIL, 1 << 30);
        lane.ring();
        let outcome = victim.receiver.recv(soon());
        assert!(matches!(outcome, Err(Error::Protocol(_))), "{outcome:?}");
        assert!(memory::allocated(file.as_fd()).unwrap() < 1 << 20);
    });
}

fn file_record(ticket: u64, handles: usize) -> Vec<u8> {
    framed(handles as u32, 0, ticket, &entry(3, 0).repeat(handles))
}

/// A lane with a link, of which the test has the sending side.
fn linked(victim: &Victim) -> (Lane, OwnedFd) {
    let lane = Lane::new();
    lane.announce(victim, &lane.place());
    let (inlet, outlet) = socket::pair().unwrap();
    control::send(lane.connection.as_fd(), PacketKind::Link, &[outlet.as_fd()]).unwrap();
    (lane, inlet)
}

fn put_ticket(link: &OwnedFd, ticket: u64, fds: &[&OwnedFd]) {
    let word = ticket.to_le_bytes();
    socket::send(link.as_fd(), &[std::io::IoSlice::new(&word)], &raw(fds)).unwrap();
}

#[test]
fn tickets_missing_wrong_and_out_of_order() {
    contained(|| {
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        type Ticket = (u64, usize);
        // What is in the link, what the record says, how many handles it has, and whether it is a message.
        let cases: [(&[Ticket], u64, usize, bool); 13] = [
            (&[(1, 1)], 1, 1, true),
            (&[(1, 1), (2, 1)], 2, 1, true),
            (&[(1, 1), (1, 1)], 1, 1, true),
            (&[], 1, 1, false),
            (&[(2, 1)], 1, 1, false),
            (&[(1, 1)], 2, 1, false),
            (&[(1, 0)], 1, 1, false),
            (&[(1, 2)], 1, 1, false),
            (&[(1, 1)], 1, 0, false),
            (&[(1, 253)], 1, 1, false),
            (&[(u64::MAX - 1, 1)], 1, 1, false),
            (&[(u64::MAX, 1)], 1, 1, false),
            (&[(u64::MAX, 0)], u64::MAX, 1, false),
        ];
        for (tickets, said, handles, whole) in cases {
            let victim = Victim::new();
            let (mut lane, link) = linked(&victim);
            for (ticket, count) in tickets {
                put_ticket(&link, *ticket, &vec![&file; *count]);
            }
            lane.record(Kind::Framed, 0, &file_record(said, handles));
            lane.record(Kind::Plain, 0, b"next");
            lane.publish();
            let drained = victim.drain();
            let expected = if whole { (2, 0) } else { (1, 1) };
            let came = (drained.messages.len(), drained.protocol_errors);
            assert_eq!(came, expected, "{tickets:?} {said} {handles}");
        }
    });
}

#[test]
fn packets_in_a_link_that_are_no_tickets() {
    contained(|| {
        for len in [0, 1, 7, 9, 4096] {
            let victim = Victim::new();
            let (mut lane, link) = linked(&victim);
            socket::send(link.as_fd(), &[std::io::IoSlice::new(&vec![1; len])], &[]).unwrap();
            lane.record(Kind::Framed, 0, &file_record(1, 1));
            lane.publish();
            victim.refuses(&format!("{len} bytes"));
        }
    });
}

#[test]
fn a_record_with_a_ticket_and_no_link() {
    contained(|| {
        let victim = Victim::new();
        let mut lane = Lane::new();
        lane.announce(&victim, &lane.place());
        for _ in 0..3 {
            lane.record(Kind::Framed, 0, &file_record(1, 1));
        }
        lane.publish();
        assert_eq!(victim.drain().protocol_errors, 3);
    });
}

#[test]
fn links_that_are_something_else() {
    contained(|| {
        for (what, stranger) in strangers() {
            let victim = Victim::new();
            let mut lane = Lane::new();
            lane.announce(&victim, &lane.place());
            control::send(
                lane.connection.as_fd(),
                PacketKind::Link,
                &[stranger.as_fd()],
            )
            .unwrap();
            lane.record(Kind::Framed, 0, &file_record(1, 1));
            lane.publish();
            let drained = victim.drain();
            assert!(
                drained.messages.is_empty() && drained.protocol_errors > 0,
                "{what}"
            );
        }
    });
}

#[test]
fn a_second_link_a_second_lane_and_messages_beside_a_lane() {
    contained(|| {
        let victim = Victim::new();
        let (lane, _link) = linked(&victim);
        victim.drain();
        let (_inlet, outlet) = socket::pair().unwrap();
        control::send(lane.connection.as_fd(), PacketKind::Link, &[outlet.as_fd()]).unwrap();
        victim.refuses("a second link");
        let place = lane.place();
        control::send_place(
            lane.connection.as_fd(),
            PacketKind::Lane,
            &place,
            &[lane.file.as_fd()],
        )
        .unwrap();
        victim.refuses("a second lane");
        socket::send(
            lane.connection.as_fd(),
            &[std::io::IoSlice::new(&honest(b"beside"))],
            &[],
        )
        .unwrap();
        victim.refuses("a message beside the lane");
    });
}

#[test]
fn a_link_that_leads_to_itself() {
    contained(|| {
        let victim = Victim::new();
        let mut lane = Lane::new();
        lane.announce(&victim, &lane.place());
        let (inlet, outlet) = socket::pair().unwrap();
        control::send(lane.connection.as_fd(), PacketKind::Link, &[outlet.as_fd()]).unwrap();
        put_ticket(&inlet, u64::MAX, &[&outlet]);
        for _ in 0..8 {
            lane.record(Kind::Framed, 0, &file_record(1, 1));
        }
        lane.publish();
        assert_eq!(victim.drain().protocol_errors, 8);
        // The cycle in flight is broken, or the kernel has to collect it.
        let _ = socket::discard(outlet.as_fd());
    });
}

fn scribble(lane: &Lane, seed: u64) -> Storm {
    let file = ipc_channel_transport::os::descriptor::duplicate(lane.file.as_fd()).unwrap();
    let len = lane.memory.len();
    let memory = ipc_channel_transport::os::shared::Region::map(file.as_fd(), 0, len).unwrap();
    let connection =
        ipc_channel_transport::os::descriptor::duplicate(lane.connection.as_fd()).unwrap();
    let mut state = seed | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    Storm::new(move || {
        for _ in 0..64 {
            let (at, value) = (next() as usize % len / 8 * 8, next());
            // Half of the words look like records of some kind, or the beginning of a header.
            let value = match value % 8 {
                0..3 => {
                    (((value >> 8) % 4 + 1) << 56)
                        | (((value >> 16) % 256) << 48)
                        | ((value >> 24) % 70_000)
                }
                3 => pack(Kind::Switch, (value >> 16) as usize % 32 * 8, 32),
                4 => u64::from_le_bytes(*b"ipcN\0\x02\0\0"),
                5 => value % (RING as u64) / 4096 * 4096,
                _ => value,
            };
            memory
                .word(at)
                .store(value, std::sync::atomic::Ordering::Relaxed);
        }
        let words = [layout::TAIL, layout::HEAD, layout::TAKEN];
        let place = words[next() as usize % 3];
        memory.word(place).store(
            next() % (1 << (next() % 64)),
            std::sync::atomic::Ordering::Relaxed,
        );
        let _ = control::ring(connection.as_fd());
    })
}

#[test]
fn a_lane_that_is_scribbled_over_while_it_is_read() {
    contained(|| {
        for seed in 0..40u64 {
            let victim = Victim::new();
            let mut lane = Lane::with_rings(4);
            let place = Place {
                bounded: seed % 2 == 0,
                pinned: seed % 3 == 0,
                once: seed % 5 < 2,
                ..lane.place()
            };
            lane.announce(&victim, &place);
            while lane.written < RING as u64 - 2000 {
                lane.record(Kind::Plain, 0, &vec![7; lane.written as usize % 1500]);
            }
            lane.publish();
            let storm = scribble(&lane, 0x9e37_79b9 * (seed + 1));
            let mut kept = Vec::new();
            for _ in 0..2000 {
                match victim.receiver.try_recv() {
                    Ok(message) => {
                        let _ = read(&message);
                        kept.push(message);
                        kept.truncate(50);
                    }
                    Err(Error::Protocol(_) | Error::Empty) => {}
                    Err(other) => panic!("seed {seed}: {other:?}"),
                }
            }
            drop(storm);
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_streams_of_records(
        records in prop::collection::vec(
            (0u64..6, prop_oneof![Just(0u64), 0u64..256], prop_oneof![0u64..200, 0u64..70_000, any::<u64>()],
             any::<u64>(), prop::collection::vec(any::<u8>(), 0..100), any::<bool>()),
            1..20,
        ),
        ahead in prop_oneof![Just(0u64), any::<u64>()],
        bounded in any::<bool>(),
        pinned in any::<bool>(),
        once in any::<bool>(),
        base in any::<u64>(),
    ) {
        contained(move || {
            let victim = Victim::new();
            let mut lane = Lane::with_rings(2);
            lane.announce(&victim, &Place { bounded, pinned, once, base, ..lane.place() });
            for (kind, padding, len, stamp, body, honest) in records {
                // Unaligned words of a SWITCH have a test of their own.
                let padding = if kind == 4 { 0 } else { padding };
                let len = if honest { body.len() as u64 } else { len & 0xffff_ffff_ffff };
                let at = lane.written as usize;
                if at + 512 > RING {
                    break;
                }
                lane.put(at, len | padding << 48 | kind << 56, stamp, &body);
                lane.written += layout::record_len(padding as usize, (len as usize).min(200)) as u64;
            }
            lane.set(layout::TAIL, lane.written.wrapping_add(ahead));
            lane.ring();
            for _ in 0..200 {
                match victim.receiver.try_recv() {
                    Ok(message) => drop(read(&message)),
                    Err(Error::Protocol(_)) => {}
                    Err(Error::Empty) => break,
                    Err(other) => panic!("{other:?}"),
                }
            }
        });
    }

    #[test]
    fn random_framed_records(
        counts in prop::collection::vec(prop_oneof![0u32..4, any::<u32>()], 3),
        lengths in prop::collection::vec(prop_oneof![0u64..200, any::<u64>()], 2),
        ticket in prop_oneof![Just(0u64), 0u64..3, any::<u64>()],
        body in prop::collection::vec(any::<u8>(), 0..300),
        exact in any::<bool>(),
        flags in 0u8..4,
        kind in 0u8..7,
        in_link in prop::collection::vec((0u64..4, 0usize..4), 0..4),
    ) {
        contained(move || {
            let victim = Victim::new();
            let (mut lane, link) = linked(&victim);
            let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
            for (ticket, count) in in_link {
                put_ticket(&link, ticket, &vec![&file; count]);
            }
            let mut record = framed(counts[0], lengths[0] as usize, ticket, &body);
            record[4] = flags;
            record[6] = kind;
            record[12..16].copy_from_slice(&counts[1].to_le_bytes());
            record[16..20].copy_from_slice(&counts[2].to_le_bytes());
            if !exact {
                record[32..40].copy_from_slice(&lengths[1].to_le_bytes());
            }
            lane.record(Kind::Framed, 0, &record);
            lane.record(Kind::Plain, 0, b"next");
            lane.publish();
            let drained = victim.drain();
            assert_eq!(drained.messages.last().map(Vec::as_slice), Some(&b"next"[..]));
            assert_eq!(drained.messages.len() + drained.protocol_errors, 2);
        });
    }
}
