//! What the kernel tells of a socket's queue.

#![allow(clippy::unwrap_used)]

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use ipc_channel_transport::os::{in_flight, socket};

fn put(socket: &OwnedFd, len: usize, fds: &[RawFd]) {
    let sent = socket::send(socket.as_fd(), &[IoSlice::new(&vec![0; len])], fds);
    assert_eq!(sent.unwrap(), socket::Sent::Whole);
}

#[test]
fn bytes_and_descriptors_in_a_queue() {
    let (ours, theirs) = socket::duplex_pair().unwrap();
    let ask = || {
        (
            in_flight::bytes(theirs.as_fd()),
            in_flight::has_no_descriptors(theirs.as_fd()),
        )
    };
    assert_eq!(ask(), (0, true));
    put(&ours, 100, &[]);
    put(&ours, 20, &[]);
    assert_eq!(ask(), (120, true));
    put(&ours, 3, &[ours.as_raw_fd()]);
    put(&ours, 4, &[]);
    assert_eq!(ask(), (127, false));
    // What is under way in the other direction is another queue.
    assert!(in_flight::has_no_descriptors(ours.as_fd()));
    for left in [27, 7] {
        socket::discard(theirs.as_fd()).unwrap();
        assert_eq!(ask(), (left, false));
    }
    socket::discard(theirs.as_fd()).unwrap();
    assert_eq!(ask(), (4, true));
}

#[test]
fn what_is_no_socket_tells_nothing() {
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(!in_flight::has_no_descriptors(file.as_fd()));
    assert_eq!(in_flight::bytes(file.as_fd()), 0);
}
