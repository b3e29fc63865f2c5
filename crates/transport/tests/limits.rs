//! At the limit on open files. One test a process: the limit is the process's.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(unsafe_code)]

use std::time::Duration;

use ipc_channel_transport::{
    Deadline, Error, HandleRef, Outgoing, Parcel, Receiver, Sender, channel,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn send(sender: &Sender, payload: &[u8], files: &[std::fs::File]) {
    use std::os::fd::AsFd;
    let parcel = Parcel {
        payload,
        handles: files
            .iter()
            .map(|file| (HandleRef::File(file.as_fd()), 0))
            .collect(),
        ..Parcel::default()
    };
    let outgoing = Outgoing::new(&parcel, None).unwrap();
    sender
        .publish(&outgoing, Deadline::after(Duration::from_secs(5)))
        .unwrap();
    outgoing.delivered();
}

/// Asked without opening a descriptor, which the limit would not allow.
fn is_open(fd: u64) -> bool {
    // SAFETY: fcntl(F_GETFD) only asks, and says EBADF for a number that is not open.
    unsafe { libc::fcntl(fd as i32, libc::F_GETFD) >= 0 }
}

fn open_files() -> usize {
    (0..4096).filter(|fd| is_open(*fd)).count()
}

/// Leaves room for `spare` more descriptors. The limit is on their numbers, and lower ones may be free.
fn limit(spare: u64) {
    let free = (0..).filter(|fd| !is_open(*fd)).nth(spare as usize);
    let limits = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: free,
            ..limits
        },
    )
    .unwrap();
}

fn refused(receiver: &Receiver) {
    let before = open_files();
    for _ in 0..3 {
        let outcome = receiver.try_recv();
        assert!(
            matches!(outcome, Err(Error::TooManyHandles(_))),
            "{outcome:?}"
        );
    }
    assert_eq!(
        open_files(),
        before,
        "descriptors of a refused message stayed open"
    );
}

#[test]
fn a_message_without_room_for_its_descriptors_can_be_received_later() {
    let before = getrlimit(Resource::Nofile);
    let (sender, receiver) = channel(0).unwrap();
    for count in [1usize, 5, 250, 300, 600] {
        let files: Vec<_> = (0..count)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        send(&sender, &count.to_le_bytes(), &files);
        send(&sender, b"the next", &[]);
        drop(files);
        for spare in [0, 4, count as u64 / 2, count as u64 - 1] {
            let spare = spare.min(count as u64 - 1);
            limit(spare);
            refused(&receiver);
            setrlimit(Resource::Nofile, before).unwrap();
        }
        let message = receiver.try_recv().unwrap();
        assert_eq!(message.payload(), count.to_le_bytes());
        assert_eq!(message.handles.len(), count);
        drop(message);
        assert_eq!(receiver.try_recv().unwrap().payload(), b"the next");
    }
}
