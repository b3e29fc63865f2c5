//! Whatever a peer does with bells, doors, connections and luggage: its own source suffers, and nobody waits.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hostile;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use hostile::{Lane, RING, Storm, Victim, contained, entry, framed, honest, raw, soon, strangers};
use ipc_channel_transport::lane::consumer::Place;
use ipc_channel_transport::lane::layout::{self, Kind, pack};
use ipc_channel_transport::os::descriptor;
use ipc_channel_transport::os::{clock, socket};
use ipc_channel_transport::wire::control::{self, BELL};
use ipc_channel_transport::wire::luggage;
use ipc_channel_transport::wire::native::{PacketKind, header};
use ipc_channel_transport::{Deadline, Error, Handle, Receiver, door};
use proptest::prelude::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn moment() -> Deadline {
    Deadline::after(Duration::from_millis(200))
}

/// A door that the victim knows, and the place where to connect.
fn open_door(victim: &Victim) -> OwnedFd {
    let (listening, place) = door::make().unwrap();
    victim.send_control(PacketKind::Door, &[listening.as_fd()]);
    place
}

#[test]
fn bells_among_messages() {
    contained(|| {
        let victim = Victim::new();
        let file = std::fs::File::open("/dev/null").unwrap();
        for _ in 0..100 {
            victim.send(&BELL, &[]);
        }
        // Bells that bring something, and what only looks like one.
        victim.send(&BELL, &[file.as_raw_fd(); 253]);
        assert_eq!(victim.drain().protocol_errors, 0);
        for packet in [&[0u8][..], &[8], &[7, 7]] {
            victim.send(packet, &[]);
            victim.refuses("no bell");
        }
    });
}

#[test]
fn bells_without_end_at_a_socket() {
    contained(|| {
        let victim = Victim::new();
        let _storms: Vec<_> = (0..3)
            .map(|_| {
                let socket = descriptor::duplicate(victim.socket.as_fd()).unwrap();
                Storm::new(move || drop(socket::send(socket.as_fd(), &[IoSlice::new(&BELL)], &[])))
            })
            .collect();
        for _ in 0..20 {
            let outcome = victim.receiver.recv(moment());
            assert!(
                matches!(outcome, Err(Error::TimedOut | Error::Interrupted)),
                "{outcome:?}"
            );
        }
    });
}

#[test]
fn bells_without_end_at_a_lane() {
    contained(|| {
        let victim = Victim::new();
        let lane = Lane::new();
        lane.announce(&victim, &lane.place());
        let connection = descriptor::duplicate(lane.connection.as_fd()).unwrap();
        let _storm = Storm::new(move || drop(control::ring(connection.as_fd())));
        for _ in 0..5 {
            let outcome = victim.receiver.recv(moment());
            assert!(
                matches!(outcome, Err(Error::TimedOut | Error::Interrupted)),
                "{outcome:?}"
            );
        }
        victim.drain();
    });
}

#[test]
fn connections_without_end_at_a_door() {
    contained(|| {
        let victim = Victim::new();
        let place = open_door(&victim);
        let storm = Storm::new(move || drop(door::connect(place.as_fd())));
        for _ in 0..5 {
            match victim.receiver.recv(moment()) {
                Err(Error::TimedOut) => {}
                other => panic!("{other:?}"),
            }
            victim.drain();
        }
        drop(storm);
        victim.drain();
    });
}

/// Lets this process open so many descriptors more than it has, until this is dropped.
struct Scarcity(Rlimit);

impl Scarcity {
    fn leaving(room: u64) -> Scarcity {
        let before = getrlimit(Resource::Nofile);
        let open: std::collections::HashSet<u64> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        let free = (0..).filter(|number| !open.contains(number));
        let limit = free.take(room as usize).last();
        let scarce = Rlimit {
            current: limit,
            maximum: before.maximum,
        };
        setrlimit(Resource::Nofile, scarce).unwrap();
        Scarcity(before)
    }
}

impl Drop for Scarcity {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).unwrap();
    }
}

#[test]
fn more_connections_than_descriptors_all_of_them_dead() {
    contained(|| {
        let victim = Victim::new();
        let place = open_door(&victim);
        victim.drain();
        for _ in 0..200 {
            door::connect(place.as_fd()).unwrap();
        }
        let _scarcity = Scarcity::leaving(30);
        victim.drain();
    });
}

#[test]
fn more_senders_that_have_sent_once_and_gone_than_descriptors() {
    contained(|| {
        let victim = Victim::new();
        let place = open_door(&victim);
        for _ in 0..200 {
            let connection = door::connect(place.as_fd()).unwrap();
            let mut packet = honest(b"last words");
            packet[40..48].copy_from_slice(&clock::now().to_le_bytes());
            socket::send(connection.as_fd(), &[IoSlice::new(&packet)], &[]).unwrap();
        }
        let _scarcity = Scarcity::leaving(30);
        for _ in 0..200 {
            assert_eq!(
                victim.receiver.recv(soon()).unwrap().payload(),
                b"last words"
            );
        }
    });
}

#[test]
fn a_door_that_blocks() {
    contained(|| {
        let victim = Victim::new();
        let (listening, place) = door::make().unwrap();
        let flags = rustix::fs::fcntl_getfl(&listening).unwrap();
        rustix::fs::fcntl_setfl(&listening, flags - rustix::fs::OFlags::NONBLOCK).unwrap();
        victim.send_control(PacketKind::Door, &[listening.as_fd()]);
        victim.drain();
        let _connection = door::connect(place.as_fd()).unwrap();
        victim.drain();
    });
}

#[test]
fn more_doors_than_anybody_needs() {
    contained(|| {
        let victim = Victim::new();
        let places: Vec<_> = (0..40).map(|_| open_door(&victim)).collect();
        assert_eq!(victim.drain().protocol_errors, 24);
        let connection = door::connect(places[0].as_fd()).unwrap();
        socket::send(
            connection.as_fd(),
            &[IoSlice::new(&honest(b"by a door"))],
            &[],
        )
        .unwrap();
        assert_eq!(
            victim.receiver.recv(soon()).unwrap().payload(),
            b"by a door"
        );
    });
}

#[test]
fn a_door_that_is_shut() {
    contained(|| {
        let victim = Victim::new();
        let (listening, _place) = door::make().unwrap();
        victim.send_control(PacketKind::Door, &[listening.as_fd()]);
        victim.drain();
        rustix::net::shutdown(&listening, rustix::net::Shutdown::Both).unwrap();
        for _ in 0..3 {
            match victim.receiver.try_recv() {
                Err(Error::Empty | Error::Protocol(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        victim.drain();
    });
}

#[test]
fn garbage_in_a_connection() {
    contained(|| {
        let victim = Victim::new();
        let place = open_door(&victim);
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        victim.drain();
        for packet in [
            &b""[..],
            b"x",
            &[0; 64],
            &[0xff; 4096],
            &header(PacketKind::Source),
            &header(PacketKind::Next),
        ] {
            for fds in [0, 1, 3, 253] {
                let connection = door::connect(place.as_fd()).unwrap();
                let fds = raw(&vec![&file; fds]);
                socket::send(connection.as_fd(), &[IoSlice::new(packet)], &fds).unwrap();
                victim.refuses(&format!("{fds:?} {packet:?}"));
            }
        }
    });
}

#[test]
fn a_packet_stolen_after_it_was_seen() {
    contained(|| {
        for end in [false, true] {
            let (peer, socket) = socket::pair().unwrap();
            let thief = descriptor::duplicate(socket.as_fd()).unwrap();
            let victim = Victim {
                socket: peer,
                receiver: Receiver::from_socket(socket).unwrap(),
            };
            let _place = open_door(&victim);
            let mut lane = Lane::new();
            lane.announce(&victim, &lane.place());
            let mut later = honest(b"later");
            later[40..48].copy_from_slice(&clock::now().to_le_bytes());
            victim.send(&later, &[]);
            lane.record(Kind::Plain, 0, b"first");
            lane.publish();
            assert_eq!(victim.receiver.recv(soon()).unwrap().payload(), b"first");
            socket::discard(thief.as_fd()).unwrap();
            let Victim { socket, receiver } = victim;
            let mut socket = Some(socket);
            if end {
                socket.take();
            }
            lane.record(Kind::Plain, clock::now(), b"second");
            lane.publish();
            let outcome = receiver.recv(Deadline::after(Duration::from_secs(2)));
            assert!(
                outcome.as_ref().is_ok_and(|m| m.payload() == b"second"),
                "{outcome:?}"
            );
        }
    });
}

/// A lane of messages that are older than any other, with a ring of that size.
fn lane_of_the_past(victim: &Victim, ring: usize) -> Lane {
    let lane = Lane::with_rings(ring / RING);
    let place = Place {
        len: ring as u64,
        ..lane.place()
    };
    lane.announce(victim, &place);
    for at in (0..ring).step_by(32) {
        lane.put(at, pack(Kind::Plain, 0, 4), 0, b"past");
    }
    lane.set(layout::TAIL, ring as u64 / 2);
    lane.ring();
    lane
}

/// Receives up to the honest message that is sent now, while the lane is never empty.
fn honest_in_the_end(victim: &Victim, lane: &Lane, ring: usize) {
    victim.send(&stamped(b"honest"), &[]);
    for turn in 0..200_000 {
        // Always some ahead of the receiver, never more than fits the ring.
        lane.set(layout::TAIL, ring as u64 / 2 + turn * 32);
        if victim.receiver.recv(soon()).unwrap().payload() == b"honest" {
            return;
        }
    }
    panic!("the honest message is never received");
}

fn stamped(payload: &[u8]) -> Vec<u8> {
    let mut packet = honest(payload);
    packet[40..48].copy_from_slice(&clock::now().to_le_bytes());
    packet
}

#[test]
fn stamps_of_the_past_without_end() {
    contained(|| {
        let victim = Victim::new();
        let lane = lane_of_the_past(&victim, RING);
        honest_in_the_end(&victim, &lane, RING);
    });
}

/// Breaks when a lane that is looked at anew now and then is so before its batch is at its end, although something
/// else is waiting for that.
#[test]
fn stamps_of_the_past_without_end_in_a_ring_that_holds_many() {
    contained(|| {
        let victim = Victim::new();
        let lane = lane_of_the_past(&victim, 8 * RING);
        honest_in_the_end(&victim, &lane, 8 * RING);
    });
}

/// Breaks when what comes by a lane belongs to the batch in which the lane was found, however late it comes.
#[test]
fn stamps_of_the_past_without_end_from_the_moment_of_the_announcement_on() {
    contained(|| {
        let victim = Victim::new();
        // Another lane, so that the socket is not all there is.
        let other = Lane::new();
        other.announce(&victim, &other.place());
        victim.drain();
        victim.send(&stamped(b"before"), &[]);
        let lane = lane_of_the_past(&victim, RING);
        honest_in_the_end(&victim, &lane, RING);
    });
}

/// A message that carries a receiver with that luggage.
fn carry(victim: &Victim, luggage: &OwnedFd) {
    let (_sender, receiver) = socket::pair().unwrap();
    victim.send(&framed(1, 0, 0, &entry(1, 1)), &raw(&[&receiver, luggage]));
}

#[test]
fn luggage_that_is_damaged() {
    contained(|| {
        let lane = Lane::new();
        let place = {
            let mut bytes = Vec::new();
            for word in [4096u64, RING as u64, 0, 0, 0, 0, 0] {
                bytes.extend(word.to_le_bytes());
            }
            bytes
        };
        let with_place = |kind| [&header(kind)[..], &place].concat();
        let strangers = strangers();
        let mut packets: Vec<(Vec<u8>, Vec<&OwnedFd>)> = vec![
            (b"x".to_vec(), vec![]),
            (vec![0; 64], vec![]),
            (vec![0; 4096], vec![&lane.theirs]),
            (honest(b"a message"), vec![]),
            (header(PacketKind::Door).to_vec(), vec![&lane.theirs]),
            (
                header(PacketKind::Lane).to_vec(),
                vec![&lane.theirs, &lane.file],
            ),
            (header(PacketKind::Source).to_vec(), vec![]),
            (
                header(PacketKind::Source).to_vec(),
                vec![&lane.theirs, &lane.theirs],
            ),
            (
                header(PacketKind::Next).to_vec(),
                vec![&lane.theirs, &lane.theirs],
            ),
            (with_place(PacketKind::Door), vec![&lane.theirs]),
            (with_place(PacketKind::Next), vec![&lane.theirs]),
            (with_place(PacketKind::Source), vec![&lane.theirs]),
            (with_place(PacketKind::Source), vec![&lane.theirs; 4]),
            (with_place(PacketKind::Source), vec![&lane.theirs; 253]),
            (
                [with_place(PacketKind::Source), vec![0]].concat(),
                vec![&lane.theirs, &lane.file],
            ),
        ];
        for (_, stranger) in &strangers {
            packets.push((header(PacketKind::Door).to_vec(), vec![stranger]));
            packets.push((header(PacketKind::Source).to_vec(), vec![stranger]));
            packets.push((header(PacketKind::Next).to_vec(), vec![stranger]));
            packets.push((with_place(PacketKind::Source), vec![stranger, &lane.file]));
            packets.push((
                with_place(PacketKind::Source),
                vec![&lane.theirs, &lane.file, stranger],
            ));
        }
        for (packet, fds) in packets {
            let victim = Victim::new();
            let (inlet, outlet) = socket::pair().unwrap();
            socket::send(inlet.as_fd(), &[IoSlice::new(&packet)], &raw(&fds)).unwrap();
            drop(inlet);
            carry(&victim, &outlet);
            victim.refuses(&format!("{packet:?}"));
        }
    });
}

#[test]
fn lanes_in_luggage_that_are_none_are_found_when_it_is_unpacked() {
    contained(|| {
        for (place, whole) in [(0u64, false), (4096, true)] {
            let victim = Victim::new();
            let mut lane = Lane::new();
            let place = Place {
                offset: place,
                ..lane.place()
            };
            let outgoing = luggage::Outgoing::Lane {
                place,
                file: lane.file.as_fd(),
                connection: lane.theirs.as_fd(),
                link: None,
            };
            let outlet = luggage::write(&[outgoing]).unwrap();
            let (sender, receiver) = socket::pair().unwrap();
            victim.send(&framed(1, 0, 0, &entry(1, 1)), &raw(&[&receiver, &outlet]));
            drop(receiver);
            lane.record(Kind::Plain, 0, b"in the lane");
            lane.publish();
            let mut message = victim.receiver.recv(soon()).unwrap();
            let Some(Handle::Receiver(arrived)) =
                message.handles.pop().map(|received| received.handle)
            else {
                panic!("no receiver");
            };
            let inner = Victim {
                socket: sender,
                receiver: arrived,
            };
            let drained = inner.drain();
            let came = (drained.messages.len(), drained.protocol_errors);
            assert_eq!(came, if whole { (1, 0) } else { (0, 1) });
        }
    });
}

#[test]
fn luggage_without_end() {
    contained(|| {
        let victim = Victim::new();
        // In a ring: the last socket leads to itself.
        let (inlet, outlet) = socket::pair().unwrap();
        control::send(inlet.as_fd(), PacketKind::Next, &[outlet.as_fd()]).unwrap();
        carry(&victim, &outlet);
        victim.refuses("luggage that leads to itself");
        let _ = socket::peek_at_the_first(outlet.as_fd());
        let _ = socket::discard(outlet.as_fd());
        // Longer than any honest one.
        let mut last = socket::pair().unwrap().1;
        for _ in 0..200 {
            let (inlet, outlet) = socket::pair().unwrap();
            control::send(inlet.as_fd(), PacketKind::Next, &[last.as_fd()]).unwrap();
            last = outlet;
        }
        carry(&victim, &last);
        victim.refuses("two hundred sockets");
        // More sources in one socket than an honest peer puts there.
        let (inlet, outlet) = socket::pair().unwrap();
        let connection = Lane::new().theirs;
        for _ in 0..200 {
            control::send(inlet.as_fd(), PacketKind::Source, &[connection.as_fd()]).unwrap();
        }
        carry(&victim, &outlet);
        victim.refuses("two hundred sources");
    });
}

#[test]
fn receivers_in_receivers_in_receivers() {
    contained(|| {
        let victim = Victim::new();
        let mut inner = Victim::new().socket;
        for _ in 0..50 {
            let (sender, receiver) = socket::pair().unwrap();
            let packet = framed(1, 0, 0, &entry(1, 0));
            socket::send(sender.as_fd(), &[IoSlice::new(&packet)], &raw(&[&inner])).unwrap();
            inner = receiver;
        }
        victim.send(&framed(1, 0, 0, &entry(1, 0)), &raw(&[&inner]));
        drop(inner);
        assert_eq!(victim.drain().messages.len(), 1);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_control_packets(
        packets in prop::collection::vec(
            (0u8..7, any::<bool>(), prop::collection::vec(prop_oneof![0u64..3, Just(4096), Just(RING as u64), any::<u64>()], 0..9),
             prop::collection::vec(0usize..6, 0..5)),
            1..8,
        ),
    ) {
        contained(move || {
            let victim = Victim::new();
            let place = open_door(&victim);
            let connection = door::connect(place.as_fd()).unwrap();
            let lane = Lane::new();
            let (link, other) = socket::pair().unwrap();
            let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
            let fds = [&lane.theirs, &lane.file, &link, &other, &file, &place];
            for (kind, by_connection, words, indices) in packets {
                let mut packet = header(PacketKind::Message).to_vec();
                packet[6] = kind;
                for word in words {
                    packet.extend(word.to_le_bytes());
                }
                let chosen: Vec<_> = indices.iter().map(|index| fds[*index]).collect();
                let socket = if by_connection { &connection } else { &victim.socket };
                socket::send(socket.as_fd(), &[IoSlice::new(&packet)], &raw(&chosen)).unwrap();
            }
            victim.drain();
        });
    }

    #[test]
    fn random_luggage(
        packets in prop::collection::vec(
            (0u8..7, any::<bool>(), prop::collection::vec(any::<u64>(), 7), prop::collection::vec(0usize..5, 0..5)),
            0..6,
        ),
    ) {
        contained(move || {
            let lane = Lane::new();
            let (link, other) = socket::pair().unwrap();
            let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
            let fds = [&lane.theirs, &lane.file, &link, &other, &file];
            let (inlet, outlet) = socket::pair().unwrap();
            for (kind, with_place, words, indices) in packets {
                let mut packet = header(PacketKind::Message).to_vec();
                packet[6] = kind;
                if with_place {
                    for word in words {
                        packet.extend(word.to_le_bytes());
                    }
                }
                let chosen: Vec<_> = indices.iter().map(|index| fds[*index]).collect();
                socket::send(inlet.as_fd(), &[IoSlice::new(&packet)], &raw(&chosen)).unwrap();
            }
            match luggage::read(outlet.as_fd()) {
                Ok(_) | Err(Error::Protocol(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        });
    }

    #[test]
    fn random_bytes_parsed(bytes in prop::collection::vec(any::<u8>(), 0..200), repair in any::<bool>()) {
        use ipc_channel_transport::wire::native::Header;
        let mut bytes = bytes;
        if repair && bytes.len() >= 64 {
            let honest = header(PacketKind::Message);
            bytes[..8].copy_from_slice(&honest[..8]);
            bytes[20..24].fill(0);
            bytes[56..64].fill(0);
        }
        match Header::read(&bytes) {
            Ok(header) => prop_assert!(header.tables_len().is_err() || header.tables_len().unwrap() <= header.body_len()),
            Err(error) => prop_assert!(matches!(error, Error::Protocol(_))),
        }
        match control::read_place(&bytes) {
            Ok(_) => prop_assert_eq!(bytes.len(), 64 + control::PLACE_LEN),
            Err(error) => prop_assert!(matches!(error, Error::Protocol(_))),
        }
    }
}
