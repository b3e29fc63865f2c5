//! What is in a socket's queue, told by the kernel without taking it out or making descriptors of it.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{Mode, OFlags};

/// How many bytes are in the queue, over all its packets; 0 also if that cannot be had.
pub fn bytes(socket: BorrowedFd<'_>) -> usize {
    rustix::io::ioctl_fionread(socket).map_or(0, |bytes| bytes as usize)
}

/// The kernel's account of one socket's queue, kept open: to open it takes several times as long as to read it.
#[derive(Debug, Default)]
pub struct Account(Option<Kept>);

/// Descriptors that all accounts of the process may keep; further ones are opened for each look.
const MOST_KEPT: usize = 8;

static KEPT: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct Kept(OwnedFd);

impl Kept {
    fn new(info: OwnedFd) -> Option<Kept> {
        let kept = Kept(info);
        // Counted with it, so that its drop is right in any case.
        (KEPT.fetch_add(1, Ordering::Relaxed) < MOST_KEPT).then_some(kept)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Account {
    /// Whether a descriptor is kept for it.
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Whether no packet in the queue has descriptors beside it. False also where the kernel does not tell: it does in
    /// /proc, which need not be there.
    ///
    /// The kernel counts descriptors before it puts their packet into the queue, and discounts them after it has taken
    /// it out. So what was in the queue before this was called, and has not been taken since, has none.
    pub fn has_no_descriptors(&mut self, socket: BorrowedFd<'_>) -> bool {
        if let Some(kept) = &self.0 {
            let read = says_none(&kept.0);
            if read.is_none() {
                // The thread that has opened it is gone. It is opened anew the next time.
                self.0 = None;
            }
            return read.unwrap_or(false);
        }
        let Some(info) = open(socket) else {
            return false;
        };
        let none = says_none(&info).unwrap_or(false);
        if none {
            self.0 = Kept::new(info);
        }
        none
    }
}

/// What an account says; None if it cannot be read.
fn says_none(info: &OwnedFd) -> Option<bool> {
    let mut text = [0; 1024];
    let len = rustix::io::pread(info, &mut text, 0).ok()?;
    let counts = text[..len]
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"scm_fds:"));
    Some(counts.is_some_and(|count| count.trim_ascii() == b"0"))
}

fn open(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    // Of the thread, since threads can have tables of open files of their own.
    let path = format!("/proc/thread-self/fdinfo/{}", socket.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}
