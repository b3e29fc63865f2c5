//! Waiting: for sockets, and for another thread of this process that closes what is waited for.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::os::{clock, fork};

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// A message or the end of the stream.
    Readable,
    /// Room, or the end of the receiver.
    Writable,
}

impl Interest {
    fn in_poll<'fd>(self, fd: &'fd BorrowedFd<'_>) -> PollFd<'fd> {
        let flags = match self {
            Interest::Readable => PollFlags::IN,
            Interest::Writable => PollFlags::OUT,
        };
        PollFd::from_borrowed_fd(*fd, flags)
    }
}

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// A counter that wakes whoever polls it.
///
/// A fork's child has its parent's alarms, and they are the same counters: rung by the child, one would
/// ring in the parent for ever. So an alarm is dead in every process but the one that made it.
#[derive(Debug)]
pub struct Alarm {
    counter: OwnedFd,
    made_in: u64,
}

impl Alarm {
    /// A silent one.
    pub fn new() -> Result<Alarm> {
        let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::kernel("eventfd", e))?;
        Ok(Alarm {
            counter,
            made_in: fork::generation(),
        })
    }

    /// Whether this process made it.
    pub fn is_ours(&self) -> bool {
        self.made_in == fork::generation()
    }

    /// Rings until silenced.
    pub fn ring(&self) {
        if self.is_ours() {
            // EAGAIN: the counter is at its maximum, so it is ringing already.
            let one = 1u64.to_ne_bytes();
            let _ = rustix::io::retry_on_intr(|| rustix::io::write(&self.counter, &one));
        }
    }

    /// Silences it; whether it had been ringing.
    pub fn silence(&self) -> bool {
        self.is_ours()
            && rustix::io::retry_on_intr(|| rustix::io::read(&self.counter, &mut [0u8; 8])).is_ok()
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }
}

thread_local! {
    static MINE: RefCell<Option<Arc<Alarm>>> = const { RefCell::new(None) };
}

/// This thread's alarm, made at its first wait: one descriptor a waiting thread, none an end.
pub fn thread_alarm() -> Result<Arc<Alarm>> {
    MINE.with_borrow_mut(|mine| match mine {
        Some(alarm) if alarm.is_ours() => Ok(alarm.clone()),
        _ => {
            let alarm = Arc::new(Alarm::new()?);
            *mine = Some(alarm.clone());
            Ok(alarm)
        }
    })
}

/// Which of the descriptors waited for are ready, by their index.
#[derive(Debug)]
pub struct Ready(u64);

impl Ready {
    /// Whether that one is.
    pub fn contains(&self, index: u32) -> bool {
        self.0 & 1 << index != 0
    }
}

/// Waits until one of `fds` (64 at most) is ready, the deadline passes ([`Error::TimedOut`]) or a signal arrives
/// ([`Error::Interrupted`]). Exact below a millisecond.
pub fn wait(fds: &[(BorrowedFd<'_>, Interest)], deadline: Deadline) -> Result<Ready> {
    let mut polled: Vec<PollFd<'_>> = fds
        .iter()
        .map(|(fd, interest)| interest.in_poll(fd))
        .collect();
    loop {
        let left = deadline.remaining().map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match rustix::event::poll(&mut polled, left.as_ref()) {
            // The kernel's timer may round down: look at the clock before saying so.
            Ok(0) if deadline.passed() => return Err(Error::TimedOut),
            Ok(0) => {}
            Ok(_) => {
                let bit = |(index, fd): (usize, &PollFd<'_>)| {
                    u64::from(!fd.revents().is_empty()) << index
                };
                return Ok(Ready(polled.iter().enumerate().map(bit).sum()));
            }
            Err(e) => return Err(Error::kernel("poll", e)),
        }
    }
}

/// A short sleep between two tries, not beyond the deadline. What ends it is an error in any case: the caller's caller
/// looks for signals, since one that came between two pauses has interrupted neither.
pub fn pause(deadline: Deadline) -> Error {
    const PAUSE: Duration = Duration::from_millis(5);
    let left = deadline.remaining().unwrap_or(PAUSE).min(PAUSE);
    match wait(&[], Deadline::after(left)) {
        Ok(_) | Err(Error::TimedOut) => Error::Interrupted,
        Err(error) => error,
    }
}

/// Whether `fd` is ready now.
pub fn is_ready(fd: BorrowedFd<'_>, interest: Interest) -> Result<bool> {
    match rustix::event::poll(&mut [interest.in_poll(&fd)], Some(&AT_ONCE)) {
        Ok(ready) => Ok(ready > 0),
        // A poll that does not wait is interrupted only before it looks.
        Err(Errno::INTR) => Ok(false),
        Err(e) => Err(Error::kernel("poll", e)),
    }
}

/// Asks for so many nanoseconds whether `fd` is ready, and does not sleep between; `go_on` can put an end to it. Whoever
/// needs this processor, perhaps to make it ready, has it meanwhile.
pub fn is_ready_within(
    fd: BorrowedFd<'_>,
    interest: Interest,
    nanoseconds: u64,
    go_on: impl Fn() -> bool,
) -> bool {
    let until = clock::now() + nanoseconds;
    loop {
        match is_ready(fd, interest) {
            Ok(false) if clock::now() < until && go_on() => std::thread::yield_now(),
            outcome => return matches!(outcome, Ok(true)),
        }
    }
}

/// Many descriptors behind one, each with a token.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

impl Epoll {
    /// An empty one.
    pub fn new() -> Result<Epoll> {
        epoll::create(epoll::CreateFlags::CLOEXEC)
            .map(Epoll)
            .map_err(|e| Error::kernel("epoll_create1", e))
    }

    /// Watches `fd`, level-triggered.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> Result<()> {
        let flags = match interest {
            Interest::Readable => epoll::EventFlags::IN,
            Interest::Writable => epoll::EventFlags::OUT,
        };
        epoll::add(&self.0, fd, epoll::EventData::new_u64(token), flags).map_err(|e| match e {
            Errno::NOSPC => Error::TooManyHandles(
                "epoll_ctl: this user watches too many descriptors (fs.epoll.max_user_watches)"
                    .into(),
            ),
            e => Error::kernel("epoll_ctl", e),
        })
    }

    /// Stops watching `fd`. Needed before closing it: a duplicate in another process keeps it registered.
    pub fn remove(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.0, fd);
    }

    /// The tokens that are ready now, at most `most`; the kernel rotates them from call to call.
    pub fn ready(&self, most: usize) -> Result<Vec<u64>> {
        let mut tokens = Vec::new();
        self.ready_into(most, &mut tokens)?;
        Ok(tokens)
    }

    /// The same, in place of what `tokens` holds.
    pub fn ready_into(&self, most: usize, tokens: &mut Vec<u64>) -> Result<()> {
        /// Most receivers have no more; room for them costs no allocation.
        const FEW: usize = 8;
        tokens.clear();
        let mut few = [const { MaybeUninit::uninit() }; FEW];
        let mut many = Vec::new();
        let room = if most <= FEW {
            &mut few[..most]
        } else {
            many.reserve(most);
            many.spare_capacity_mut()
        };
        match epoll::wait(&self.0, room, Some(&AT_ONCE)) {
            Ok((events, _)) => {
                tokens.extend(events.iter().map(|event| event.data.u64()));
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            Err(e) => Err(Error::kernel("epoll_wait", e)),
        }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
