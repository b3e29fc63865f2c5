//! Whatever a Rust program, or who pretends to be one, sends: a message, nothing, or an error for that packet alone;
//! no wait without end, no memory for what did not come, and no descriptor left behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ends;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use ends::soon;
use ipc_channel_transport::frames::reader::Holders;
use ipc_channel_transport::os::{memory, socket};
use ipc_channel_transport::wire::rust::{First, MOST_FDS, Version};
use ipc_channel_transport::{Error, Receiver};
use proptest::prelude::*;

const VERSIONS: [Version; 3] = [Version::Current, Version::V0_21, Version::V0_20];

struct Forger {
    version: Version,
    socket: OwnedFd,
    receiver: Receiver,
}

impl Forger {
    fn new(version: Version) -> Forger {
        let (socket, ours) = socket::duplex_pair().unwrap();
        Forger {
            version,
            socket,
            receiver: Receiver::of_frames(ours, version, Holders::Others).unwrap(),
        }
    }

    fn send(&self, packet: &[u8], fds: &[RawFd]) {
        let sent = socket::send(self.socket.as_fd(), &[IoSlice::new(packet)], fds);
        assert_eq!(sent.unwrap(), socket::Sent::Whole);
    }

    /// The packet is refused, and the honest one behind it comes.
    fn refused(&self, packet: &[u8], fds: &[RawFd]) {
        self.send(packet, fds);
        let outcome = self.receiver.recv(soon());
        assert!(
            matches!(outcome, Err(Error::Protocol(_))),
            "{outcome:?} for {packet:?}"
        );
        self.goes_on();
    }

    fn goes_on(&self) {
        self.send(&self.packet(b"next", 4), &[]);
        assert_eq!(self.receiver.recv(soon()).unwrap().payload(), b"next");
    }

    fn packet(&self, payload: &[u8], total: usize) -> Vec<u8> {
        let mut packet = self.version.header(payload.len(), total).bytes().to_vec();
        packet.extend(payload);
        packet
    }

    /// The first packet of a message that goes on by the socket that is returned.
    fn begin(&self, payload: &[u8], total: usize) -> OwnedFd {
        let (mine, theirs) = socket::duplex_pair().unwrap();
        self.send(&self.packet(payload, total), &[theirs.as_raw_fd()]);
        mine
    }
}

/// A socket that was sent, and one that hangs up when that is closed everywhere.
fn witness() -> (OwnedFd, OwnedFd) {
    socket::duplex_pair().unwrap()
}

fn is_closed(witness: &OwnedFd) -> bool {
    socket::has_hung_up(witness.as_fd())
}

#[test]
fn short_packets() {
    for version in VERSIONS {
        let forger = Forger::new(version);
        forger.send(b"", &[]);
        assert!(matches!(
            forger.receiver.recv(soon()),
            Err(Error::Protocol(_))
        ));
        forger.goes_on();
        for len in 1..version.header_len() {
            forger.refused(&vec![0; len], &[]);
        }
    }
}

#[test]
fn lengths_that_are_not_true() {
    let forger = Forger::new(Version::Current);
    for said in [0, 1, 16, 20, 22, usize::MAX] {
        let mut packet = forger.packet(b"hello", 5);
        packet[..8].copy_from_slice(&said.to_ne_bytes());
        forger.refused(&packet, &[]);
    }
    for version in VERSIONS {
        let forger = Forger::new(version);
        for total in [0, 4, usize::MAX, isize::MAX as usize + 1] {
            forger.refused(&forger.packet(b"hello", total), &[]);
        }
    }
}

#[test]
fn large_messages_whose_rest_comes_nowhere() {
    for version in VERSIONS {
        let forger = Forger::new(version);
        forger.refused(&forger.packet(b"hello", 6), &[]);
        let file = memory::create("test", 4096).unwrap();
        forger.refused(&forger.packet(b"hello", 6), &[file.as_raw_fd()]);
        let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (sent, witness) = witness();
        forger.refused(
            &forger.packet(b"hello", 6),
            &[sent.as_raw_fd(), stream.as_raw_fd()],
        );
        drop(sent);
        assert!(is_closed(&witness));
    }
}

#[test]
fn parts_that_are_no_parts() {
    for version in VERSIONS {
        let forger = Forger::new(version);
        // Longer than what is left.
        let rest = forger.begin(b"a", 3);
        socket::send(rest.as_fd(), &[IoSlice::new(b"bcd")], &[]).unwrap();
        assert!(matches!(
            forger.receiver.recv(soon()),
            Err(Error::Protocol(_))
        ));
        assert!(is_closed(&rest));
        // With descriptors.
        let rest = forger.begin(b"a", 3);
        let (sent, witness) = witness();
        socket::send(rest.as_fd(), &[IoSlice::new(b"b")], &[sent.as_raw_fd()]).unwrap();
        drop(sent);
        assert!(matches!(
            forger.receiver.recv(soon()),
            Err(Error::Protocol(_))
        ));
        assert!(is_closed(&rest) && is_closed(&witness));
        // Empty: as if its sender had gone.
        let rest = forger.begin(b"a", 3);
        socket::send(rest.as_fd(), &[IoSlice::new(b"")], &[]).unwrap();
        assert!(matches!(forger.receiver.try_recv(), Err(Error::Empty)));
        assert!(is_closed(&rest));
        forger.goes_on();
    }
}

#[test]
fn a_message_that_is_its_own_rest() {
    // The socket for the rest is the channel's own, sent over itself.
    let (socket, ours) = socket::duplex_pair().unwrap();
    let again = ipc_channel_transport::os::descriptor::duplicate(ours.as_fd()).unwrap();
    let receiver = Receiver::of_frames(ours, Version::Current, Holders::Others).unwrap();
    let mut packet = Version::Current.header(1, 100).bytes().to_vec();
    packet.push(b'a');
    socket::send(
        socket.as_fd(),
        &[IoSlice::new(&packet)],
        &[again.as_raw_fd()],
    )
    .unwrap();
    drop(again);
    assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
    drop(socket);
    assert!(matches!(receiver.recv(soon()), Err(Error::Disconnected)));
}

#[test]
fn more_descriptors_than_the_crate_sends() {
    for version in VERSIONS {
        let forger = Forger::new(version);
        for (payload, total) in [(b"a", 1), (b"a", 2)] {
            let packet = forger.packet(payload, total);
            let (sent, witness) = witness();
            forger.refused(&packet, &vec![sent.as_raw_fd(); MOST_FDS + 1]);
            drop(sent);
            assert!(is_closed(&witness));
        }
        let (sent, _witness) = witness();
        forger.send(&forger.packet(b"a", 1), &[sent.as_raw_fd(); MOST_FDS]);
        let message = forger.receiver.recv(soon()).unwrap();
        assert_eq!(message.handles.len(), MOST_FDS);
    }
}

#[test]
fn another_process_takes_messages_too() {
    for theirs in [1u8, 30, 55] {
        let forger = Forger::new(Version::Current);
        let thief = forger.receiver.end().socket().unwrap();
        for number in 0..60u8 {
            forger.send(&forger.packet(&[number], 1), &[]);
        }
        for number in 0..20u8 {
            let message = forger.receiver.recv(soon()).unwrap();
            assert_eq!(message.payload(), [number]);
        }
        let (sent, witness) = witness();
        forger.send(&forger.packet(b"x", 1), &[sent.as_raw_fd()]);
        drop(sent);
        for _ in 0..theirs {
            socket::discard(thief.as_fd()).unwrap();
        }
        for _ in 0..60 {
            forger.send(&forger.packet(b"y", 1), &[]);
        }
        // What is left of the first, the one with a descriptor, or an error for it; then the others.
        for number in 20 + theirs..61 {
            match forger.receiver.recv(soon()) {
                Ok(message) if message.payload() == b"x" => assert_eq!(message.handles.len(), 1),
                Ok(message) => assert_eq!(message.payload(), [number]),
                Err(Error::Protocol(_)) => assert_eq!(number, 60),
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(is_closed(&witness));
        while let Ok(message) = forger.receiver.try_recv() {
            assert_eq!(message.payload(), b"y");
        }
        forger.goes_on();
    }
}

#[test]
fn what_is_announced_costs_nothing() {
    let forger = Forger::new(Version::Current);
    let mut rests = Vec::new();
    for _ in 0..50 {
        rests.push(forger.begin(b"a", isize::MAX as usize));
    }
    assert!(matches!(forger.receiver.try_recv(), Err(Error::Empty)));
    forger.goes_on();
    drop(rests);
    drop(forger.socket);
    assert!(matches!(
        forger.receiver.recv(soon()),
        Err(Error::Disconnected)
    ));
}

#[test]
fn more_half_messages_than_are_kept() {
    let forger = Forger::new(Version::Current);
    let rests: Vec<OwnedFd> = (0..100).map(|_| forger.begin(b"a", 2)).collect();
    for _ in 0..10 {
        assert!(matches!(forger.receiver.try_recv(), Err(Error::Empty)));
    }
    for rest in &rests {
        socket::send(rest.as_fd(), &[IoSlice::new(b"b")], &[]).unwrap();
    }
    for _ in &rests {
        assert_eq!(forger.receiver.recv(soon()).unwrap().payload(), b"ab");
    }
    forger.goes_on();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_header_says_what_was_written(here in 0..1usize << 20, more in 0..1usize << 40) {
        for version in VERSIONS {
            let header = version.header(here, here + more);
            let read = version.read(header.bytes(), header.bytes().len() + here).unwrap();
            prop_assert_eq!(read, First { here, total: here + more });
            prop_assert_eq!(read.is_whole(), more == 0);
        }
    }

    #[test]
    fn any_packets(
        packets in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..64), 0..3usize, any::<bool>()), 1..12,
        ),
        version in 0..3usize,
    ) {
        let forger = Forger::new(VERSIONS[version]);
        let mut witnesses = Vec::new();
        for (bytes, fds, honest) in packets {
            let packet = if honest { forger.packet(&bytes, bytes.len() + fds) } else { bytes };
            let (sent, kept): (Vec<_>, Vec<_>) = (0..fds).map(|_| witness()).unzip();
            let raw: Vec<RawFd> = sent.iter().map(|fd| fd.as_raw_fd()).collect();
            forger.send(&packet, &raw);
            witnesses.extend(kept);
        }
        let Forger { socket, receiver, .. } = forger;
        drop(socket);
        loop {
            match receiver.try_recv() {
                Ok(_) | Err(Error::Protocol(_)) => {}
                // The witness of a message that is not complete could still send the rest.
                Err(Error::Disconnected | Error::Empty) => break,
                Err(other) => prop_assert!(false, "{other:?}"),
            }
        }
        drop(receiver);
        prop_assert!(witnesses.iter().all(is_closed));
    }
}
