//! Whatever bytes and descriptors a peer sends: a message or an error for that packet alone, and no
//! descriptor left behind.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use ipc_channel_transport::os::{memory, socket};
use ipc_channel_transport::wire::native::HEADER_LEN;
use ipc_channel_transport::{Deadline, Error, Receiver};
use proptest::prelude::*;

const VERSION: u8 = 2;
/// One handle in a packet's table.
const ENTRY_LEN: u64 = 8;

struct Forger {
    socket: OwnedFd,
    receiver: Receiver,
}

impl Forger {
    fn new() -> Forger {
        let (sender, receiver) = socket::pair().unwrap();
        Forger {
            socket: sender,
            receiver: Receiver::from_socket(receiver).unwrap(),
        }
    }

    fn send(&self, packet: &[u8], fds: &[RawFd]) {
        socket::send(self.socket.as_fd(), &[IoSlice::new(packet)], fds).unwrap();
    }

    /// The packet is refused, and the honest one behind it arrives.
    fn refused(&self, packet: &[u8], fds: &[RawFd]) {
        self.send(packet, fds);
        self.send(&honest(b"next"), &[]);
        let outcome = self.receiver.recv(Deadline::after(Duration::from_secs(5)));
        assert!(
            matches!(outcome, Err(Error::Protocol(_))),
            "{outcome:?} for {packet:?}"
        );
        let next = self.receiver.recv(Deadline::after(Duration::from_secs(5)));
        assert_eq!(next.unwrap().payload(), b"next");
    }
}

fn header(flags: u8, handles: u32, buffers: u32, chains: u32, payload: u64, body: u64) -> Vec<u8> {
    let mut packet = b"ipcN".to_vec();
    packet.extend([flags, VERSION, 0, 0]);
    packet.extend(handles.to_le_bytes());
    packet.extend(buffers.to_le_bytes());
    packet.extend(chains.to_le_bytes());
    packet.extend([0; 4]);
    packet.extend(payload.to_le_bytes());
    packet.extend(body.to_le_bytes());
    packet.extend([0; 24]);
    assert_eq!(packet.len(), HEADER_LEN);
    packet
}

fn honest(payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u64;
    [header(0, 0, 0, 0, len, len), payload.to_vec()].concat()
}

/// A handle as its packet describes it.
fn entry(kind: u8, extra: u8) -> [u8; ENTRY_LEN as usize] {
    [kind, 0, extra, 0, 0, 0, 0, 0]
}

fn with_body(head: Vec<u8>, body: &[u8]) -> Vec<u8> {
    [head, body.to_vec()].concat()
}

#[test]
fn bytes_that_are_no_packet() {
    let forger = Forger::new();
    for packet in [&b""[..], b"x", b"ipcN", &[0; 63], &[0; 64], &[0xff; 4096]] {
        forger.refused(packet, &[]);
    }
    forger.refused(&vec![0; 100_000], &[]);
}

#[test]
fn an_empty_packet_is_not_the_end_of_the_stream() {
    let forger = Forger::new();
    forger.send(b"", &[]);
    forger.send(b"", &[]);
    forger.send(&honest(b"last"), &[]);
    let Forger { socket, receiver } = forger;
    drop(socket);
    assert!(matches!(receiver.try_recv(), Err(Error::Protocol(_))));
    assert!(matches!(receiver.try_recv(), Err(Error::Protocol(_))));
    assert_eq!(receiver.try_recv().unwrap().payload(), b"last");
    assert!(matches!(receiver.try_recv(), Err(Error::Disconnected)));
}

#[test]
fn forged_headers() {
    let forger = Forger::new();
    let body = [7u8; 8];
    for head in [
        header(0, 0, 0, 0, 8, 9),
        header(0, 0, 0, 0, 9, 8),
        header(0, 0, 0, 0, 7, 8),
        header(0, 0, 0, 0, u64::MAX, 8),
        header(0, 0, 0, 0, u64::MAX, u64::MAX),
        header(0, 1, 0, 0, 1, 8),
        header(0, 2, 0, 0, 0, 8),
        header(0, u32::MAX, 0, 0, 8, 8),
        header(0, 0, 1, 0, 0, 8),
        header(0, 0, u32::MAX, 0, 8, 8),
        header(0, u32::MAX, u32::MAX, u32::MAX, 8, 8),
        header(0, 0, 0, 1, 8, 8),
        header(0, 0, 0, u32::MAX, 8, 8),
        header(1, 0, 0, 0, 8, 8),
        header(2, 0, 0, 0, 8, 8),
        header(0xff, 0, 0, 0, 8, 8),
    ] {
        forger.refused(&with_body(head, &body), &[]);
    }
    let mut other = honest(b"12345678");
    for version in [0, VERSION - 1, VERSION + 1, u8::MAX] {
        other[5] = version;
        forger.refused(&other, &[]);
    }
}

#[test]
fn every_bit_of_a_header_that_must_be_zero() {
    let forger = Forger::new();
    let zeroes = (7..8).chain(20..24).chain(56..HEADER_LEN);
    for byte in zeroes {
        for bit in 0..8 {
            let mut packet = honest(b"12345678");
            packet[byte] = 1 << bit;
            forger.refused(&packet, &[]);
        }
    }
    for kind in 6..=u8::MAX {
        let mut packet = honest(b"12345678");
        packet[6] = kind;
        forger.refused(&packet, &[]);
    }
}

#[test]
fn a_stamp_and_a_ticket_of_a_packet_mean_nothing_to_its_reader() {
    let forger = Forger::new();
    for place in [40, 48] {
        let mut packet = honest(b"12345678");
        packet[place..place + 8].fill(0xff);
        forger.send(&packet, &[]);
        assert_eq!(forger.receiver.try_recv().unwrap().payload(), b"12345678");
    }
}

#[test]
fn forged_buffer_lengths() {
    let forger = Forger::new();
    for word in [u64::MAX, 1 << 63, 2, 1 << 40] {
        forger.refused(
            &with_body(header(0, 0, 1, 0, 0, 8), &word.to_le_bytes()),
            &[],
        );
    }
}

#[test]
fn descriptors_that_are_not_what_the_packet_says() {
    let forger = Forger::new();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let stream = std::os::unix::net::UnixStream::pair().unwrap();
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let unsealed = memory::create("unsealed", 100).unwrap();
    let fds = [
        file.as_raw_fd(),
        reader.as_raw_fd(),
        stream.0.as_raw_fd(),
        listening.as_raw_fd(),
        unsealed.as_raw_fd(),
    ];
    for kind in [0u8, 1, 2, 4, 255] {
        for fd in fds {
            let packet = with_body(header(0, 1, 0, 0, 0, ENTRY_LEN), &entry(kind, 0));
            forger.refused(&packet, &[fd]);
        }
    }
    // What is said to come beside an end: a door's place, luggage.
    let (sender, receiver) = socket::pair().unwrap();
    for (kind, end) in [(0u8, sender.as_raw_fd()), (1, receiver.as_raw_fd())] {
        let packet = with_body(header(0, 1, 0, 0, 0, ENTRY_LEN), &entry(kind, 1));
        for fd in fds {
            forger.refused(&packet, &[end, fd]);
            forger.refused(&packet, &[fd, end]);
        }
        forger.refused(&packet, &[end]);
        for extra in [2, 3, 255] {
            let packet = with_body(header(0, 1, 0, 0, 0, ENTRY_LEN), &entry(kind, extra));
            forger.refused(&packet, &[end, end]);
        }
    }
    for kind in [2u8, 3] {
        let packet = with_body(header(0, 1, 0, 0, 0, ENTRY_LEN), &entry(kind, 1));
        forger.refused(&packet, &[fds[0], fds[0]]);
    }
    // Too many, too few, and some where none are mentioned.
    let one_file = with_body(header(0, 1, 0, 0, 0, ENTRY_LEN), &entry(3, 0));
    forger.refused(&one_file, &[fds[0], fds[1]]);
    forger.refused(&one_file, &[]);
    forger.refused(&honest(b"x"), &[fds[0]]);
}

#[test]
fn bodies_in_files_that_could_change_or_are_not_there() {
    let forger = Forger::new();
    let packet = header(1, 0, 0, 0, 100, 100);
    let unsealed = memory::create("unsealed", 100).unwrap();
    let size_only = memory::create("size-only", 100).unwrap();
    memory::write_all(size_only.as_fd(), &[&[1; 100]]).unwrap();
    memory::seal_size(size_only.as_fd()).unwrap();
    let short = memory::create("short", 99).unwrap();
    memory::write_all(short.as_fd(), &[&[1; 99]]).unwrap();
    memory::seal_content(short.as_fd()).unwrap();
    let sparse = memory::create("sparse", 1 << 40).unwrap();
    memory::seal_content(sparse.as_fd()).unwrap();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    for fd in [
        unsealed.as_raw_fd(),
        size_only.as_raw_fd(),
        short.as_raw_fd(),
        file.as_raw_fd(),
    ] {
        forger.refused(&packet, &[fd]);
    }
    forger.refused(&header(1, 0, 0, 0, 1 << 40, 1 << 40), &[sparse.as_raw_fd()]);
    forger.refused(&header(1, 0, 0, 0, 0, 0), &[unsealed.as_raw_fd()]);
}

#[test]
fn damaged_chains() {
    let forger = Forger::new();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let fd = file.as_raw_fd();
    let table = entry(3, 0).repeat(300);
    let packet = with_body(header(0, 300, 0, 1, 0, 300 * ENTRY_LEN), &table);
    let put = |inlet: &OwnedFd, index: u32, count: usize| {
        let fds = vec![fd; count];
        let index = index.to_le_bytes();
        socket::send(inlet.as_fd(), &[IoSlice::new(&index)], &fds).unwrap();
    };
    type Share = (u32, usize);
    let damaged: [&[Share]; 8] = [
        &[],
        &[(0, 253)],
        &[(0, 253), (0, 47)],
        &[(0, 253), (2, 47)],
        &[(0, 253), (u32::MAX, 47)],
        &[(0, 253), (1, 46)],
        &[(1, 253), (0, 47)],
        &[(1, 47), (0, 253)],
    ];
    for shares in damaged {
        let (inlet, outlet) = socket::pair().unwrap();
        for (index, count) in shares {
            put(&inlet, *index, *count);
        }
        forger.refused(&packet, &[outlet.as_raw_fd()]);
        forger.refused(&packet, &[outlet.as_raw_fd(), inlet.as_raw_fd()]);
    }
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    forger.refused(&packet, &[reader.as_raw_fd()]);
    // A socket that was never connected: the kernel's own error is the peer's doing.
    let unconnected = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        None,
    )
    .unwrap();
    forger.refused(&packet, &[unconnected.as_raw_fd()]);
    // The same chain undamaged.
    let (inlet, outlet) = socket::pair().unwrap();
    put(&inlet, 0, 253);
    put(&inlet, 1, 47);
    forger.send(&packet, &[outlet.as_raw_fd()]);
    assert_eq!(forger.receiver.try_recv().unwrap().handles.len(), 300);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_packets(
        words in prop::collection::vec(prop_oneof![0u32..20, any::<u32>()], 3),
        lengths in prop::collection::vec(prop_oneof![0u64..200, any::<u64>()], 2),
        flags in 0u8..4,
        body in prop::collection::vec(any::<u8>(), 0..200),
        exact in any::<bool>(),
    ) {
        let forger = Forger::new();
        let len = if exact { body.len() as u64 } else { lengths[1] };
        let packet = with_body(header(flags, words[0], words[1], words[2], lengths[0], len), &body);
        forger.send(&packet, &[]);
        forger.send(&honest(b"next"), &[]);
        match forger.receiver.try_recv() {
            Ok(message) => prop_assert!(message.payload().len() <= body.len()),
            Err(Error::Protocol(_)) => {}
            Err(other) => prop_assert!(false, "{:?}", other),
        }
        let next = forger.receiver.try_recv().unwrap();
        prop_assert_eq!(next.payload(), b"next");
    }
}
