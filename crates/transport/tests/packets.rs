//! A packet is what its parts are, one behind the other, however many and however long they are.

#![allow(clippy::unwrap_used)]

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd};

use ipc_channel_transport::os::socket::{self, Peeked, Sent};

#[test]
fn parts_of_a_packet() {
    let (ours, theirs) = socket::duplex_pair().unwrap();
    let bytes: Vec<u8> = (0..10_000u32).map(|number| (number % 251) as u8).collect();
    let mut buffer = vec![0; bytes.len() + 1];
    for len in [1, 2, 16, 17, 2046, 2047, 2048, 2049, 4096, 10_000] {
        for cut in [0, 1, 16, 2047, 2048, 2049] {
            for fds in [&[][..], &[ours.as_raw_fd()]] {
                let (one, other) = bytes[..len].split_at(cut.min(len));
                let parts = [one, b"", other].map(IoSlice::new);
                let sent = socket::send_record(ours.as_fd(), &parts, fds).unwrap();
                assert_eq!(sent, Sent::Whole);
                let Peeked::Packet {
                    len: came,
                    fds: duplicates,
                    ..
                } = socket::peek(theirs.as_fd(), &mut buffer).unwrap()
                else {
                    panic!("no packet of {len} bytes, cut at {cut}");
                };
                assert_eq!((came, duplicates.len()), (len, fds.len()));
                assert_eq!(buffer[..len], bytes[..len]);
                socket::discard(theirs.as_fd()).unwrap();
            }
        }
    }
}
