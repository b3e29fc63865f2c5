//! Who we are, who a peer is, and which process uses a receiver that a fork has shared.

use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::os::fork;
use crate::os::socket::last_errno;
use crate::sync::Lock;

/// Process and user at the other side of a connection, as they were when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Process id.
    pub pid: u32,
    /// User id.
    pub uid: u32,
}

/// The kernel's word on who made the other end.
pub fn peer_of(socket: BorrowedFd<'_>) -> Result<Peer> {
    // By hand: a peer outside our pid namespace has the process id 0, which rustix has no value for.
    let mut credentials = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut len = size_of_val(&credentials) as libc::socklen_t;
    // SAFETY: the option's value is a ucred; both pointers are to live values of the sizes given.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &mut len,
        )
    };
    if got != 0 {
        return Err(Error::kernel("getsockopt(SO_PEERCRED)", last_errno()));
    }
    Ok(Peer {
        pid: credentials.pid.unsigned_abs(),
        uid: credentials.uid,
    })
}

/// The user whose rights this process has.
pub fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Leaves all signals to the other threads of the process.
pub fn block_signals() {
    // SAFETY: a set is filled and used; both calls touch nothing else.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut());
    }
}

static SIGNALS_ARE_NOTED: AtomicBool = AtomicBool::new(false);

/// Says that signals are only noted when they come, and heeded by the main thread when its waits end: as in Python.
pub fn signals_are_noted() {
    SIGNALS_ARE_NOTED.store(true, Ordering::Relaxed);
}

/// Whether this thread is to heed signals that may have been noted while it did not wait.
pub fn may_have_noted_signals() -> bool {
    SIGNALS_ARE_NOTED.load(Ordering::Relaxed) && is_main_thread()
}

/// The kernel is asked once: what a thread is can only change in a fork's child, whose only thread is the main one.
fn is_main_thread() -> bool {
    thread_local! {
        static KNOWN: Cell<Option<(u64, bool)>> = const { Cell::new(None) };
    }
    let generation = fork::generation();
    match KNOWN.get() {
        Some((known_in, main)) if known_in == generation => main,
        _ => {
            let main = rustix::thread::gettid() == rustix::process::getpid();
            KNOWN.set(Some((generation, main)));
            main
        }
    }
}

const MOVED: u64 = 1 << 32;
const SLOTS_A_PAGE: usize = 4096 / size_of::<AtomicU64>();

/// A word that every process sees which holds the same receiver through a fork.
///
/// Range: 0 (nobody has received yet), a process id, or a process id with [`MOVED`]. Written by
/// compare-and-swap only: 0 → id at the first receive; id → id|MOVED before the receiver leaves, and
/// back if the leaving fails. Never reset: whoever finds another's id there may not receive.
#[derive(Debug)]
pub struct Claim {
    word: &'static AtomicU64,
    forks_at_birth: u64,
}

#[derive(Debug)]
struct Slots {
    free: Vec<&'static AtomicU64>,
    /// The free words of another generation are the parent's: it sees them too, and gives them out.
    generation: u64,
}

static SLOTS: Lock<Slots> = Lock::new(Slots {
    free: Vec::new(),
    generation: 0,
});

impl Slots {
    fn ours(&mut self) -> &mut Vec<&'static AtomicU64> {
        let generation = fork::generation();
        if self.generation != generation {
            self.generation = generation;
            self.free = Vec::new();
        }
        &mut self.free
    }
}

impl Claim {
    /// A fresh unclaimed word.
    pub fn new() -> Result<Claim> {
        let mut slots = SLOTS.lock();
        let free = slots.ours();
        let word = match free.pop() {
            Some(word) => word,
            None => {
                free.extend(map_slots()?);
                // A page holds hundreds of words: there is one.
                free.pop().ok_or(Error::Empty)?
            }
        };
        word.store(0, Ordering::Relaxed);
        Ok(Claim {
            word,
            forks_at_birth: fork::forks_begun(),
        })
    }

    /// Takes the receiver for this process, or says whose it is.
    pub fn take(&self) -> Result<()> {
        let me = u64::from(std::process::id());
        match self.word.load(Ordering::Acquire) {
            owner if owner == me => Ok(()),
            0 => match self
                .word
                .compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => Ok(()),
                Err(owner) => Err(foreign(owner)),
            },
            owner => Err(foreign(owner)),
        }
    }

    /// Whether no other process can receive, or ever could through what a fork has given it.
    pub fn is_ours_alone(&self) -> bool {
        match self.word.load(Ordering::Acquire) {
            0 => fork::forks_begun() == self.forks_at_birth,
            owner => owner == u64::from(std::process::id()),
        }
    }

    /// The receiver is about to leave this process: nobody may receive through what a fork has kept.
    pub fn mark_moved(&self) -> Result<()> {
        self.take()?;
        let me = u64::from(std::process::id());
        match self
            .word
            .compare_exchange(me, me | MOVED, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => Ok(()),
            Err(owner) => Err(foreign(owner)),
        }
    }

    /// It did not leave after all.
    pub fn unmark_moved(&self) {
        let me = u64::from(std::process::id());
        // Fails only if this process never marked it; then there is nothing to restore.
        let _ = self
            .word
            .compare_exchange(me | MOVED, me, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // A word may serve another receiver only if no fork can have kept a receiver that looks at it.
        if fork::forks_begun() == self.forks_at_birth {
            SLOTS.lock().ours().push(self.word);
        }
    }
}

fn foreign(owner: u64) -> Error {
    Error::Forked {
        what: "this receiver",
        owner: (owner & (MOVED - 1)) as u32,
    }
}

fn map_slots() -> Result<impl Iterator<Item = &'static AtomicU64>> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    // SAFETY: a fresh shared mapping at an address of the kernel's choice, never unmapped.
    let page = unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            4096,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
        )
    }
    .map_err(|e| Error::kernel("mmap", e))?
    .cast::<AtomicU64>();
    // SAFETY: the page is aligned, zeroed and lives for ever; each index is inside it.
    Ok((0..SLOTS_A_PAGE).map(move |index| unsafe { &*page.add(index) }))
}
