//! What the kernel tells of a socket's queue.

#![allow(clippy::unwrap_used)]

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use ipc_channel_transport::os::in_flight::{self, Account};
use ipc_channel_transport::os::socket;

fn put(socket: &OwnedFd, len: usize, fds: &[RawFd]) {
    let sent = socket::send(socket.as_fd(), &[IoSlice::new(&vec![0; len])], fds);
    assert_eq!(sent.unwrap(), socket::Sent::Whole);
}

#[test]
fn bytes_and_descriptors_in_a_queue() {
    let (ours, theirs) = socket::duplex_pair().unwrap();
    let mut account = Account::default();
    let mut ask = || {
        (
            in_flight::bytes(theirs.as_fd()),
            account.has_no_descriptors(theirs.as_fd()),
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
    assert!(Account::default().has_no_descriptors(ours.as_fd()));
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
    assert!(!Account::default().has_no_descriptors(file.as_fd()));
    assert_eq!(in_flight::bytes(file.as_fd()), 0);
}

#[test]
fn an_account_that_a_thread_leaves_behind_is_opened_anew() {
    let (ours, theirs) = socket::duplex_pair().unwrap();
    put(&ours, 100, &[]);
    let mut account = Account::default();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| account.has_no_descriptors(theirs.as_fd()));
        assert!(asked.join().unwrap());
    });
    // A thread that has been joined may be there a little longer.
    while account.has_no_descriptors(theirs.as_fd()) {
        std::thread::yield_now();
    }
    assert!(account.has_no_descriptors(theirs.as_fd()));
    put(&ours, 1, &[ours.as_raw_fd()]);
    assert!(!account.has_no_descriptors(theirs.as_fd()));
}
