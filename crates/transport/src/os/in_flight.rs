//! What is in a socket's queue, told by the kernel without taking it out or making descriptors of it.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// How many bytes are in the queue, over all its packets; 0 also if that cannot be had.
pub fn bytes(socket: BorrowedFd<'_>) -> usize {
    rustix::io::ioctl_fionread(socket).map_or(0, |bytes| bytes as usize)
}

/// The kernel's account of one socket's queue, kept open: to open it takes several times as long as to read it.
#[derive(Debug, Default)]
pub struct Account(Option<OwnedFd>);

impl Account {
    /// Whether no packet in the queue has descriptors beside it. False also where the kernel does not tell: it does in
    /// /proc, which need not be there.
    ///
    /// The kernel counts descriptors before it puts their packet into the queue, and discounts them after it has taken
    /// it out. So what was in the queue before this was called, and has not been taken since, has none.
    pub fn has_no_descriptors(&mut self, socket: BorrowedFd<'_>) -> bool {
        let Some(info) = self.0.take().or_else(|| open(socket)) else {
            return false;
        };
        let mut text = [0; 1024];
        let Ok(len) = rustix::io::pread(&info, &mut text, 0) else {
            // The thread that has opened it is gone: closed here, and opened anew the next time.
            return false;
        };
        self.0 = Some(info);
        let counts = text[..len]
            .split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(b"scm_fds:"));
        counts.is_some_and(|count| count.trim_ascii() == b"0")
    }
}

fn open(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    // Of the thread, since threads can have tables of open files of their own.
    let path = format!("/proc/thread-self/fdinfo/{}", socket.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::open(path, flags, Mode::empty()).ok()
}
