//! At the limit on open files. It is the process's: one test at a time.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(unsafe_code)]

mod ends;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ends::{LARGE, drain, foreign_sender, laned_channel, open_lane, send, send_with, soon};
use ipc_channel_transport::frames::reader::Holders;
use ipc_channel_transport::os::poll::{self, Epoll, Interest};
use ipc_channel_transport::os::socket;
use ipc_channel_transport::wire::rust::{MOST_FDS, Version};
use ipc_channel_transport::{Error, HandleRef, Receiver, channel, channel_of_frames};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Asked without opening a descriptor, which the limit would not allow.
fn is_open(fd: u64) -> bool {
    // SAFETY: fcntl(F_GETFD) only asks, and says EBADF for a number that is not open.
    unsafe { libc::fcntl(fd as i32, libc::F_GETFD) >= 0 }
}

fn open_files() -> usize {
    (0..4096).filter(|fd| is_open(*fd)).count()
}

/// This process, to itself, with the limit that it was started with.
struct Process {
    limits: Rlimit,
    _alone: MutexGuard<'static, ()>,
}

impl Process {
    fn alone() -> Process {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Process {
            limits: getrlimit(Resource::Nofile),
            _alone: alone,
        }
    }

    /// Runs `action` with room for `spare` more descriptors. The limit is on their numbers, and lower ones may
    /// be free.
    fn with_spare<T>(&self, spare: u64, action: impl FnOnce() -> T) -> T {
        let current = (0..).filter(|fd| !is_open(*fd)).nth(spare as usize);
        let limits = Rlimit {
            current,
            ..self.limits
        };
        setrlimit(Resource::Nofile, limits).unwrap();
        let outcome = action();
        self.restore();
        outcome
    }

    fn restore(&self) {
        setrlimit(Resource::Nofile, self.limits).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.restore();
    }
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
    // What could be slow to close is closed by a thread, which may take a moment.
    let patience = soon();
    while open_files() > before && !patience.passed() {
        thread::sleep(Duration::from_millis(1));
    }
    let after = open_files();
    assert!(
        after <= before,
        "{after} of {before}: descriptors of a refused message stayed open"
    );
}

/// Breaks when a message leaves its queue before all its descriptors are here, or when some of them stay open.
#[test]
fn a_message_without_room_for_its_descriptors_can_be_received_later() {
    let process = Process::alone();
    let (sender, receiver) = channel(0).unwrap();
    for count in [1usize, 5, 250, 300, 600] {
        let files: Vec<_> = (0..count)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        let handles = files.iter().map(|file| HandleRef::File(file.as_fd()));
        send_with(&sender, &count.to_le_bytes(), handles.collect(), soon()).unwrap();
        send_with(&sender, b"the next", vec![], soon()).unwrap();
        drop(files);
        for spare in [0, 4, count as u64 / 2, count as u64 - 1] {
            let spare = spare.min(count as u64 - 1);
            process.with_spare(spare, || refused(&receiver));
        }
        let message = receiver.try_recv().unwrap();
        assert_eq!(message.payload(), count.to_le_bytes());
        assert_eq!(message.handles.len(), count);
        drop(message);
        assert_eq!(receiver.try_recv().unwrap().payload(), b"the next");
    }
}

/// Sends a message as a Rust program does.
fn put(socket: &OwnedFd, payload: &[u8], fds: &[RawFd]) {
    let header = Version::Current.header(payload.len(), payload.len());
    let parts = [IoSlice::new(header.bytes()), IoSlice::new(payload)];
    let sent = socket::send(socket.as_fd(), &parts, fds).unwrap();
    assert_eq!(sent, socket::Sent::Whole);
}

/// Breaks when a packet is taken without a look at it although it has descriptors. Whether it has is asked for many
/// packets at a time, and so for others after some of them have been taken.
#[test]
fn a_message_from_a_rust_program_among_many_keeps_its_descriptors() {
    let process = Process::alone();
    for taken_before in [0, 5, 40, 99, 100] {
        let (theirs, ours) = socket::duplex_pair().unwrap();
        let receiver = Receiver::of_frames(ours, Version::Current, Holders::Others).unwrap();
        let numbers = |count: u32| {
            for number in 0..count {
                put(&theirs, &number.to_le_bytes(), &[]);
            }
        };
        let taken = |numbers: std::ops::Range<u32>| {
            for number in numbers {
                let message = receiver.try_recv().unwrap();
                assert_eq!(message.payload(), number.to_le_bytes());
            }
        };
        numbers(100);
        taken(0..taken_before);
        put(&theirs, b"five", &[theirs.as_raw_fd(); 5]);
        numbers(60);
        process.with_spare(2, || {
            taken(taken_before..100);
            refused(&receiver);
        });
        let message = receiver.try_recv().unwrap();
        assert_eq!(message.payload(), b"five");
        assert_eq!(message.handles.len(), 5);
        taken(0..60);
        assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
    }
}

/// Breaks when the descriptor by which the kernel is asked is kept where a message needs the last ones.
#[test]
fn what_is_known_of_messages_from_a_rust_program_costs_them_no_descriptor() {
    const EACH: usize = 3;
    let process = Process::alone();
    for behind in [0, 60] {
        let (theirs, ours) = socket::duplex_pair().unwrap();
        let receiver = Receiver::of_frames(ours, Version::Current, Holders::Others).unwrap();
        let plain = |count: u32| (0..count).for_each(|_| put(&theirs, b"plain", &[]));
        let taken = |count: u32| {
            for _ in 0..count {
                assert_eq!(receiver.try_recv().unwrap().payload(), b"plain");
            }
        };
        plain(100);
        let before = open_files();
        taken(50);
        assert_eq!(open_files(), before + 1, "it has not been asked");
        put(&theirs, b"three", &[theirs.as_raw_fd(); EACH]);
        plain(behind);
        process.with_spare(EACH as u64 - 1, || {
            taken(50);
            let message = receiver.try_recv().unwrap();
            assert_eq!(message.payload(), b"three");
            assert_eq!(message.handles.len(), EACH);
        });
        taken(behind);
        assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
        assert_eq!(open_files(), before);
    }
}

/// Breaks when what the kernel was asked by stays open although nothing is known any more.
#[test]
fn a_receiver_that_has_taken_what_there_was_keeps_no_descriptor() {
    let _process = Process::alone();
    let (theirs, ours) = socket::duplex_pair().unwrap();
    let receiver = Receiver::of_frames(ours, Version::Current, Holders::Others).unwrap();
    let before = open_files();
    (0..100).for_each(|_| put(&theirs, b"plain", &[]));
    let mut most = 0;
    for _ in 0..100 {
        assert_eq!(receiver.try_recv().unwrap().payload(), b"plain");
        most = most.max(open_files());
    }
    assert_eq!(most, before + 1, "it has not been asked");
    // Nobody has looked whether there is more.
    assert_eq!(open_files(), before);
}

/// Breaks when messages that have begun and do not go on take all descriptors that there are, or when the channel's
/// socket, from which nothing can be taken meanwhile, keeps telling that there is something.
#[test]
fn half_messages_from_a_rust_program_keep_few_descriptors() {
    const EACH: usize = 60;
    let _process = Process::alone();
    let (theirs, ours) = socket::duplex_pair().unwrap();
    let receiver = Receiver::of_frames(ours, Version::Current, Holders::Others).unwrap();
    let mut rests = Vec::new();
    for number in 0..10u8 {
        let (mine, given) = socket::duplex_pair().unwrap();
        let mut fds = vec![theirs.as_raw_fd(); EACH];
        fds.push(given.as_raw_fd());
        let header = Version::Current.header(1, 2);
        let beginning = [number];
        let parts = [IoSlice::new(header.bytes()), IoSlice::new(&beginning)];
        socket::send(theirs.as_fd(), &parts, &fds).unwrap();
        rests.push(mine);
    }
    put(&theirs, b"whole", &[]);
    // SAFETY: it is open as long as the receiver is.
    let readable = unsafe { BorrowedFd::borrow_raw(receiver.fileno().unwrap()) };
    let tells = || poll::is_ready(readable, Interest::Readable).unwrap();
    let before = open_files();
    for _ in 0..3 {
        assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
        // One of them is for the watch.
        assert!(open_files() <= before + 2 * MOST_FDS + 1);
        assert!(!tells());
    }
    // In any order: the last ones are not begun with.
    for number in (0..10u8).rev() {
        socket::send(rests[number as usize].as_fd(), &[IoSlice::new(b"!")], &[]).unwrap();
    }
    for number in 0..10u8 {
        assert!(tells());
        let message = receiver.try_recv().unwrap();
        assert_eq!(message.payload(), [number, b'!']);
        assert_eq!(message.handles.len(), EACH);
    }
    assert!(tells());
    assert_eq!(receiver.try_recv().unwrap().payload(), b"whole");
    assert!(!tells());
}

/// Breaks when a watch that could not be completed is taken for complete.
#[test]
fn a_half_message_is_watched_as_soon_as_that_is_possible() {
    let _process = Process::alone();
    let (theirs, ours) = socket::duplex_pair().unwrap();
    let receiver = Receiver::of_frames(ours, Version::Current, Holders::Others).unwrap();
    let (rest, given) = socket::duplex_pair().unwrap();
    let header = Version::Current.header(1, 2);
    let parts = [IoSlice::new(header.bytes()), IoSlice::new(b"a")];
    socket::send(theirs.as_fd(), &parts, &[given.as_raw_fd()]).unwrap();
    drop(given);
    let _another_watch = receiver.watch().unwrap();
    // SAFETY: it is open as long as the receiver is.
    let readable = unsafe { BorrowedFd::borrow_raw(receiver.fileno().unwrap()) };
    let tells = || poll::is_ready(readable, Interest::Readable).unwrap();
    {
        // One inside the other, as many as the kernel allows: what is innermost can contain no other.
        let mut nested: Vec<Epoll> = Vec::new();
        loop {
            let outer = Epoll::new().unwrap();
            let inner = nested.last().map_or(readable, AsFd::as_fd);
            if outer.add(inner, 0, Interest::Readable).is_err() {
                break;
            }
            nested.push(outer);
        }
        for _ in 0..3 {
            let outcome = receiver.try_recv();
            assert!(matches!(outcome, Err(Error::Kernel { .. })), "{outcome:?}");
            assert!(tells(), "that it must be looked at");
        }
    }
    assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
    assert!(!tells());
    socket::send(rest.as_fd(), &[IoSlice::new(b"b")], &[]).unwrap();
    assert!(tells());
    assert_eq!(receiver.try_recv().unwrap().payload(), b"ab");
    assert!(!tells());
}

/// Breaks when a receiver accepts all connections at a door before it takes what it has: each of them is a
/// descriptor until it has been read to its end.
#[test]
fn a_crowd_at_the_door_is_received_with_few_descriptors() {
    const CROWD: usize = 150;
    const EACH: usize = 5;
    let process = Process::alone();
    let (sender, receiver) = channel(0).unwrap();
    let shared = foreign_sender(&sender);
    let mut sent = 0;
    // As many as a socket holds, so that the crowd goes to the door.
    for _ in 0..278 {
        send(&shared, b"x").unwrap();
        sent += 1;
    }
    for _ in 0..CROWD {
        let one = foreign_sender(&sender);
        for _ in 0..EACH {
            send(&one, b"12345678").unwrap();
            sent += 1;
        }
    }
    drop((shared, sender));
    let received = process.with_spare(40, || {
        let (mut received, mut vain) = (0, 0);
        loop {
            match receiver.try_recv() {
                Ok(_) => (received, vain) = (received + 1, 0),
                Err(Error::Disconnected) => return received,
                Err(other) => {
                    vain += 1;
                    assert!(vain < 1000, "stuck after {received} of {sent}: {other:?}");
                }
            }
        }
    });
    assert_eq!(received, sent);
}

/// Sends and takes so much that the lane grows if it is not told of what was taken.
fn assert_that_memory_is_used_again(sender: &ipc_channel_transport::Sender, receiver: &Receiver) {
    for _ in 0..100 {
        for _ in 0..4 {
            send(sender, &vec![1; LARGE]).unwrap();
        }
        drain(receiver);
    }
    let lane = sender.lane().unwrap();
    assert!(lane.memory < 4 << 20, "{lane:?}");
}

/// Breaks when each attempt at a message is counted as one that holds the lane's memory.
#[test]
fn failed_attempts_at_a_message_do_not_hold_its_memory() {
    let process = Process::alone();
    let (sender, receiver) = laned_channel();
    let large = vec![1; LARGE];
    send(&sender, &large).unwrap();
    let view = receiver.recv(soon()).unwrap();
    // Its lane takes more descriptors than can be seen from outside.
    let (inner, moving) = channel(0).unwrap();
    open_lane(&inner, &moving);
    send_with(&sender, &large, vec![HandleRef::Receiver(&moving)], soon()).unwrap();
    let mut failures = 0;
    let message =
        (0..20).find_map(
            |spare| match process.with_spare(spare, || receiver.try_recv()) {
                Ok(message) => Some(message),
                Err(Error::TooManyHandles(_)) => {
                    failures += 1;
                    None
                }
                Err(other) => panic!("{other:?} with {spare} to spare"),
            },
        );
    assert!(failures > 0);
    drop(message.expect("20 descriptors are enough"));
    drop(view);
    assert_that_memory_is_used_again(&sender, &receiver);
}

/// As above without a failure: shows that it is the failures that matter there.
#[test]
fn a_view_that_is_dropped_after_a_later_message_was_taken_gives_its_memory_back() {
    let _process = Process::alone();
    let (sender, receiver) = laned_channel();
    let large = vec![1; LARGE];
    send(&sender, &large).unwrap();
    let view = receiver.recv(soon()).unwrap();
    send(&sender, &large).unwrap();
    drain(&receiver);
    drop(view);
    assert_that_memory_is_used_again(&sender, &receiver);
}

/// Runs `test` on a thread of its own, and returns when that is over and so is the one that sends: with all their
/// descriptors, which other tests count.
fn with_all_its_threads(test: impl FnOnce() + Send) {
    let outcome = thread::scope(|scope| scope.spawn(test).join());
    let patience = soon();
    let sends = || {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        threads.flatten().any(|thread| {
            std::fs::read_to_string(thread.path().join("comm"))
                .is_ok_and(|name| name.starts_with("ipc-channel-sen"))
        })
    };
    while sends() && !patience.passed() {
        thread::sleep(Duration::from_millis(1));
    }
    outcome.unwrap();
}

/// Breaks when who was put off for want of a descriptor is not looked at again.
#[test]
fn a_message_that_could_not_be_begun_is_sent_later() {
    let process = Process::alone();
    with_all_its_threads(|| a_message_that_is_begun_later(&process));
}

fn a_message_that_is_begun_later(process: &Process) {
    let (sender, receiver) = channel_of_frames(Version::Current).unwrap();
    for _ in 0..1000 {
        send(&sender, b"x").unwrap();
    }
    // In parts, the first of which takes a descriptor to be sent.
    send(&sender, &vec![1; 1 << 20]).unwrap();
    process.with_spare(0, || {
        for _ in 0..1000 {
            receiver.recv(soon()).unwrap();
        }
        // The thread that sends comes to it now, and finds no descriptor.
        thread::sleep(Duration::from_millis(100));
    });
    assert_eq!(receiver.recv(soon()).unwrap().payload().len(), 1 << 20);
}

/// Breaks when the thread that sends takes a socket for watched that it had nothing to watch with.
#[test]
fn a_channel_that_could_not_be_watched_is_watched_later() {
    let process = Process::alone();
    with_all_its_threads(|| a_channel_that_is_watched_later(&process));
}

fn a_channel_that_is_watched_later(process: &Process) {
    let (sender, receiver) = channel_of_frames(Version::Current).unwrap();
    process.with_spare(0, || {
        for _ in 0..1000 {
            send(&sender, b"x").unwrap();
        }
        thread::sleep(Duration::from_millis(100));
    });
    // It looks a few times more, in vain.
    thread::sleep(Duration::from_millis(100));
    for _ in 0..1000 {
        receiver.recv(soon()).unwrap();
    }
    sender.flush(soon()).unwrap();
}
