//! Descriptors from a peer: what they are is asked before anything is done with them.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, SealFlags};
use rustix::io::{DupFlags, FdFlags};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::error::{Error, Result};
use crate::os::socket;

/// A second descriptor of the same open file, close-on-exec.
pub fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|e| Error::kernel("fcntl(F_DUPFD_CLOEXEC)", e))
}

/// Closes the open file behind a descriptor whose number others still hold: it becomes `/dev/null`.
pub fn disconnect(fd: BorrowedFd<'_>) {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(null) = rustix::fs::open("/dev/null", flags, Mode::empty()) {
        // SAFETY: the number is open and stays the property of its owners; what they find behind it from
        // now on answers every socket call with ENOTSOCK.
        let mut target = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) });
        let _ = rustix::io::dup3(&null, &mut target, DupFlags::CLOEXEC);
    }
}

/// Closes what threads of the parent held when this process was forked off. Those threads do not exist here, and
/// never drop what they held. Nobody else may hold it.
pub fn close_abandoned(shared: Arc<impl AsFd>) {
    match Arc::try_unwrap(shared) {
        Ok(last) => drop(last),
        Err(shared) => {
            // SAFETY: no other owner exists in this process, so nobody uses the number or closes it again. What
            // `shared` counts is never dropped.
            drop(unsafe { OwnedFd::from_raw_fd(shared.as_fd().as_raw_fd()) });
            std::mem::forget(shared);
        }
    }
}

/// An inherited descriptor must not be inherited further.
pub fn set_close_on_exec(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC).map_err(|e| Error::kernel("fcntl(F_SETFD)", e))
}

/// Whether it is a socket of any kind. No file system is asked, which may be a hostile process.
pub fn is_socket(fd: BorrowedFd<'_>) -> bool {
    sockopt::socket_type(fd).is_ok()
}

/// Fails unless `fd` is a Unix seqpacket socket that is not listening.
pub fn check_channel_socket(fd: BorrowedFd<'_>) -> Result<()> {
    let socket = sockopt::socket_domain(fd).is_ok_and(|domain| domain == AddressFamily::UNIX)
        && sockopt::socket_type(fd).is_ok_and(|kind| kind == SocketType::SEQPACKET)
        && sockopt::socket_acceptconn(fd).is_ok_and(|listening| !listening);
    if socket {
        Ok(())
    } else {
        Err(Error::Protocol(
            "the descriptor of a channel's end is not a channel's socket".into(),
        ))
    }
}

/// Fails unless `fd` is a Unix seqpacket socket that listens.
pub fn check_listening_socket(fd: BorrowedFd<'_>) -> Result<()> {
    let listens = sockopt::socket_domain(fd).is_ok_and(|domain| domain == AddressFamily::UNIX)
        && sockopt::socket_type(fd).is_ok_and(|kind| kind == SocketType::SEQPACKET)
        && sockopt::socket_acceptconn(fd).is_ok_and(|listening| listening);
    if listens {
        Ok(())
    } else {
        Err(Error::Protocol(
            "the descriptor of a channel's door is not a listening socket".into(),
        ))
    }
}

/// Fails unless `fd` is the place of a socket in a file system: opened by its path only. Asked without a word
/// to the file system, which may be a hostile process.
pub fn check_place(fd: BorrowedFd<'_>) -> Result<()> {
    use rustix::fs::{AtFlags, FileType, StatxFlags, fcntl_getfl, statx};
    let is_path = fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::PATH));
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let is_socket = || {
        statx(fd, "", flags, StatxFlags::TYPE)
            .is_ok_and(|status| FileType::from_raw_mode(status.stx_mode.into()) == FileType::Socket)
    };
    if is_path && is_socket() {
        Ok(())
    } else {
        Err(Error::Protocol(
            "the descriptor of a channel's door is not the place of a socket".into(),
        ))
    }
}

/// What a sealed memory file is.
#[derive(Clone, Copy, Debug)]
pub struct SealedMemory {
    /// Its size in bytes.
    pub size: u64,
    /// Nobody can write to it.
    pub frozen: bool,
    /// Every page of it exists: the sender has paid for what it says it sent.
    pub whole: bool,
}

/// Fails unless `fd` is memory that nobody can shrink. Seals are asked first: only a memfd has them, and
/// `fstat` on a file of a hostile FUSE server can hang.
pub fn check_sealed_memory(fd: BorrowedFd<'_>) -> Result<SealedMemory> {
    let refuse = |what: &str| {
        Err(Error::Protocol(format!(
            "shared memory from the peer {what}"
        )))
    };
    let Ok(seals) = rustix::fs::fcntl_get_seals(fd) else {
        return refuse("is not a memory file");
    };
    if !seals.contains(SealFlags::SHRINK) {
        return refuse("is not sealed against shrinking");
    }
    look_at_memory(fd, seals)
}

/// The size of a memory file whose pages exist all: its sender has paid for what it says it sent.
pub fn check_memory(fd: BorrowedFd<'_>) -> Result<u64> {
    let refuse = |what: &str| {
        Err(Error::Protocol(format!(
            "shared memory from the peer {what}"
        )))
    };
    let Ok(seals) = rustix::fs::fcntl_get_seals(fd) else {
        return refuse("is not a memory file");
    };
    let memory = look_at_memory(fd, seals)?;
    if !memory.whole {
        return refuse("has holes");
    }
    Ok(memory.size)
}

/// What tells an open file from all others that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    number: u64,
}

/// Which file that is. Only for one that [`check_memory`] has seen: a file system is asked.
pub fn identity(memory: BorrowedFd<'_>) -> Result<Identity> {
    let stat = rustix::fs::fstat(memory).map_err(|e| Error::kernel("fstat", e))?;
    Ok(Identity {
        device: stat.st_dev,
        number: stat.st_ino,
    })
}

fn look_at_memory(fd: BorrowedFd<'_>, seals: SealFlags) -> Result<SealedMemory> {
    let refuse = |what: &str| {
        Err(Error::Protocol(format!(
            "shared memory from the peer {what}"
        )))
    };
    let stat = rustix::fs::fstat(fd).map_err(|e| Error::kernel("fstat", e))?;
    // Huge pages make lengths and faults behave differently; nothing of ours makes them.
    const HUGETLBFS_MAGIC: u64 = 0x958458f6;
    let system = rustix::fs::fstatfs(fd).map_err(|e| Error::kernel("fstatfs", e))?;
    if system.f_type as u64 == HUGETLBFS_MAGIC {
        return refuse("consists of huge pages");
    }
    let size = stat.st_size.max(0) as u64;
    Ok(SealedMemory {
        size,
        frozen: seals.contains(SealFlags::WRITE),
        whole: (stat.st_blocks.max(0) as u64).saturating_mul(512) >= size,
    })
}

/// Descriptors that came with a packet and are not yet part of a message. What is left is closed when this
/// is dropped, which must be after the packet has left its queue (or else the queue's are the last ones, and
/// whoever takes the packet off closes them) and after every lock is released.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Descriptors of any kind.
    pub fds: Vec<OwnedFd>,
    /// Sockets with more of them in their queues.
    pub chains: Vec<OwnedFd>,
    /// What is said to be the seat of a one-shot server's client.
    pub seat: Option<OwnedFd>,
    /// What concerns no message: it is only to be closed.
    pub spent: Vec<OwnedFd>,
}

impl Leftovers {
    /// The descriptors of the next message; what is left of the one before is spent.
    pub fn begin_message(&mut self, fds: Vec<OwnedFd>) {
        self.spent.append(&mut self.fds);
        self.spent.append(&mut self.chains);
        self.spent.extend(self.seat.take());
        self.fds = fds;
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        if self.fds.is_empty()
            && self.chains.is_empty()
            && self.spent.is_empty()
            && self.seat.is_none()
        {
            return;
        }
        let mut all = std::mem::take(&mut self.fds);
        all.append(&mut self.chains);
        all.append(&mut self.spent);
        all.extend(self.seat.take());
        close_unknown(all);
    }
}

/// Closes a socket that is known to be a channel's or a server's, whose queue may hold descriptors of unknown kind.
pub fn close_own_socket(socket: OwnedFd) {
    if !socket::holds_nothing(socket.as_fd()) {
        close_unknown(vec![socket]);
    }
}

/// Closes descriptors of unknown kind. Closing some files can block for as long as their sender chose (a
/// TCP socket that lingers, a file of a FUSE server), so those that might are closed on a thread of their
/// own, and waited for a moment only: normally they are closed when this returns.
pub fn close_unknown(fds: Vec<OwnedFd>) {
    const MOMENT: Duration = Duration::from_millis(10);
    let (harmless, unknown): (Vec<_>, Vec<_>) = fds.into_iter().partition(closes_at_once);
    drop(harmless);
    if unknown.is_empty() {
        return;
    }
    let (closed, wait) = mpsc::channel::<()>();
    let thread = std::thread::Builder::new().name("ipc-channel-close".into());
    // If no thread can be had, the closure is dropped, and the descriptors are closed here.
    let started = thread.spawn(move || {
        drop(unknown);
        drop(closed);
    });
    if started.is_ok() {
        // An error either way: the other side is dropped, or the moment is over.
        let _ = wait.recv_timeout(MOMENT);
    }
}

fn closes_at_once(fd: &OwnedFd) -> bool {
    // A socket whose queue holds descriptors closes those too.
    check_channel_socket(fd.as_fd()).is_ok() && socket::holds_nothing(fd.as_fd())
        || rustix::fs::fcntl_get_seals(fd).is_ok()
        || rustix::pipe::fcntl_getpipe_size(fd).is_ok()
}
