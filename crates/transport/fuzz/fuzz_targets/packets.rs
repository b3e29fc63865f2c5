//! Packets and descriptors of any kind in a receiver's socket, in a connection of its, or in the luggage of one that
//! moves: each is a message, an announcement or an error by itself, and an honest message behind them arrives.

#![no_main]

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use ipc_channel_transport::os::{memory, socket};
use ipc_channel_transport::wire::native::{HEADER_LEN, PacketKind, header};
use ipc_channel_transport::wire::{control, luggage};
use ipc_channel_transport::{Error, Receiver, door};
use libfuzzer_sys::fuzz_target;

const PACKETS: usize = 16;
/// Each packet is good for one outcome, and for another if it announced something that then fails.
const LOOKS: usize = 4 * PACKETS;
/// Of the memory file that lanes are announced with.
const LANE_LEN: u64 = 4096 + 16384;

/// What this side keeps of the descriptors that it sends.
#[derive(Default)]
struct Peers(Vec<OwnedFd>);

impl Peers {
    fn descriptor(&mut self, kind: u8) -> OwnedFd {
        match kind % 6 {
            0 => {
                let (mine, theirs) = socket::duplex_pair().expect("sockets");
                self.0.push(mine);
                theirs
            }
            1 => {
                let file = memory::create_growing("fuzz").expect("a memory file");
                memory::grow(file.as_fd(), LANE_LEN).expect("a longer file");
                file
            }
            2 => {
                let (inlet, outlet) = socket::pair().expect("sockets");
                self.0.push(inlet);
                outlet
            }
            3 => {
                let (listening, place) = door::make().expect("a door");
                self.0.push(place);
                listening
            }
            4 => File::open("/dev/null").expect("/dev/null").into(),
            // One whose other side is gone.
            _ => socket::duplex_pair().expect("sockets").0,
        }
    }
}

fn honest(payload: &[u8]) -> Vec<u8> {
    let mut packet = header(PacketKind::Message).to_vec();
    let len = (payload.len() as u64).to_le_bytes();
    packet[24..32].copy_from_slice(&len);
    packet[32..40].copy_from_slice(&len);
    packet.extend(payload);
    packet
}

fn send(to: BorrowedFd<'_>, packet: &[u8], fds: &[OwnedFd]) {
    let fds: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    // A full queue, or one whose reader has left, takes no more.
    let _ = socket::send(to, &[IoSlice::new(packet)], &fds);
}

fn is_end(error: &Error) -> bool {
    matches!(error, Error::Empty | Error::Disconnected)
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let (sender, receiver) = socket::pair().expect("sockets");
    let receiver = Receiver::from_socket(receiver).expect("a receiver");
    let (mine, theirs) = socket::duplex_pair().expect("sockets");
    let (inlet, outlet) = socket::pair().expect("sockets");
    let mut peers = Peers::default();

    // So that there is a connection to which packets can go: that of a lane.
    let file = peers.descriptor(1);
    let mut packet = header(PacketKind::Lane).to_vec();
    for word in [4096, LANE_LEN - 4096, 0, 0, 0, 0, 0] {
        packet.extend(word.to_le_bytes());
    }
    assert_eq!(packet.len(), HEADER_LEN + control::PLACE_LEN);
    send(sender.as_fd(), &packet, &[theirs, file]);

    for _ in 0..PACKETS {
        let Some((&[to, kind, len, count, first, second], rest)) = data.split_first_chunk::<6>()
        else {
            break;
        };
        let (body, rest) = rest.split_at(rest.len().min(len.into()));
        data = rest;
        // Half of the packets begin as they should; the others as the data wants.
        let mut packet = match kind {
            0..128 => {
                let mut head = header(PacketKind::Message);
                head[6] = kind % 8;
                head.to_vec()
            }
            _ => Vec::new(),
        };
        packet.extend(body);
        let kinds = [first % 16, first / 16, second % 16, second / 16];
        let fds: Vec<_> = kinds[..usize::from(count % 5)]
            .iter()
            .map(|kind| peers.descriptor(*kind))
            .collect();
        let to = [&sender, &mine, &inlet][usize::from(to % 3)];
        send(to.as_fd(), &packet, &fds);
    }

    match luggage::read(outlet.as_fd()) {
        Ok(_) | Err(Error::Protocol(_)) => {}
        Err(other) => panic!("{other:?}"),
    }
    let sent = socket::send(sender.as_fd(), &[IoSlice::new(&honest(b"honest"))], &[]);
    assert!(matches!(sent, Ok(socket::Sent::Whole)), "{sent:?}");
    let mut arrived = false;
    for look in 0.. {
        assert!(look < LOOKS, "there is no end of it");
        match receiver.try_recv() {
            Ok(message) => arrived |= message.payload() == b"honest",
            Err(Error::Protocol(_)) => {}
            Err(error) if is_end(&error) => break,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(arrived, "the honest message is lost");
});
