//! The sending side: what the socket takes at once goes at once, the rest waits in order.
//!
//! Invariant (order): while anything waits, whatever comes waits behind it.
//!
//! Invariant (no gap): once something that waited was lost, nothing is sent any more. So the count of what was written
//! stays behind that of what was kept for good, and everybody who flushes afterwards is told.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use rustix::io::Errno;

use crate::deadline::Deadline;
use crate::end::{Gone, Resident};
use crate::error::{Error, Result};
use crate::frames::backlog::{AT_ONCE, Backlog, Item, Row};
use crate::frames::reader::Reader;
use crate::frames::service::{self, Held};
use crate::lane::budget;
use crate::os::poll::{self, Alarm, Interest};
use crate::os::process::Claim;
use crate::os::socket::{self, Sent};
use crate::os::{clock, descriptor, fork};
use crate::spin;
use crate::sync::{Lock, Locked};
use crate::wire::native::FdRef;
use crate::wire::rust::{Frame, MOST_FDS, Version, buffer_size};

/// Without a limit of its own, the budget is asked when so much more is kept.
const CHUNK: u64 = 1 << 20;
/// A packet that the kernel has no memory for is tried in smaller ones, down to this size.
const SMALLEST_FRAGMENT: usize = 2000;
/// Messages up to this size wait in rows: they are never taken apart.
const SMALL: usize = SMALLEST_FRAGMENT;

/// How far a message has got.
#[derive(Debug)]
struct Progress {
    /// Payload bytes sent.
    at: usize,
    /// Where the rest goes, once the first packet has been sent.
    rest: Option<Arc<Outlet>>,
    /// What a socket's buffer is taken to hold.
    buffer: usize,
}

/// A message that waits by itself. Its descriptors are open as long as it does.
#[derive(Debug)]
struct Single {
    payload: Vec<u8>,
    fds: Vec<Arc<OwnedFd>>,
    progress: Progress,
}

/// A socket by which messages go out, closed with care where its other side can write to it: what that has left there
/// may be slow to close. Never dropped under a lock.
#[derive(Debug)]
pub(super) struct Outlet {
    socket: Option<Arc<OwnedFd>>,
    duplex: bool,
    made_in: u64,
}

impl Outlet {
    fn new(socket: Arc<OwnedFd>, duplex: bool) -> Arc<Outlet> {
        Arc::new(Outlet {
            socket: Some(socket),
            duplex,
            made_in: fork::generation(),
        })
    }
}

impl AsFd for Outlet {
    #[allow(clippy::expect_used)] // Taken by the drop alone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_ref().expect("not dropped").as_fd()
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let last = self.socket.take().and_then(Arc::into_inner);
        // In the child of a fork this is a copy, whose close ends nothing.
        if let Some(socket) = last
            && self.duplex
            && self.made_in == fork::generation()
        {
            descriptor::close_own_socket(socket);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    made_in: u64,
    backlog: Backlog<Single>,
    /// What has been kept since the budget was asked.
    unasked: u64,
    /// How many messages have ever waited here.
    kept: u64,
    /// How many of them have been written.
    written: u64,
    /// The others were lost, because nobody is there to read them.
    lost: bool,
    /// The channel's socket, while anything waits.
    socket: Option<Arc<Outlet>>,
    /// When something was last sent, and when the other side was last looked at, while anything waits.
    sent_at: u64,
    looked_at: u64,
    /// The service knows of it.
    enlisted: bool,
    /// Those who wait until so many have been written.
    flushing: Vec<(u64, Arc<Alarm>)>,
}

/// How far a process had sent when it was asked: see [`Writer::mark`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    made_in: u64,
    kept: u64,
}

/// All senders of one channel that a process has made from one another.
#[derive(Debug)]
pub struct Writer {
    version: Version,
    state: Lock<State>,
    about: OnceLock<String>,
    /// The receiver that was made with the channel, here.
    receiver: OnceLock<Whereabouts>,
}

/// Where the receiver of a channel is, as seen from the process that has made it.
#[derive(Debug)]
pub struct Whereabouts {
    reader: Weak<Reader>,
    claim: Weak<Claim>,
}

impl Whereabouts {
    /// Of the receiver that has these.
    pub fn of(reader: &Arc<Reader>, claim: &Arc<Claim>) -> Whereabouts {
        Whereabouts {
            reader: Arc::downgrade(reader),
            claim: Arc::downgrade(claim),
        }
    }

    /// Whether it is open in this process, and no other one can use it. False where that is not known.
    fn is_here_alone(&self) -> bool {
        let (reader, claim) = (self.reader.upgrade(), self.claim.upgrade());
        reader.is_some_and(|reader| reader.is_here())
            && claim.is_some_and(|claim| claim.is_ours_alone())
    }
}

/// What the service is to wait for.
pub(super) enum Next {
    /// Nothing waits any more.
    Done,
    /// Room in this socket.
    Room(Arc<Outlet>),
    /// There is room: it is only the others' turn.
    Turn,
    /// The kernel has no descriptors or memory to spare now.
    Later,
}

impl Writer {
    /// Of a channel to a program with that version of the crate.
    pub fn new(version: Version) -> Arc<Writer> {
        Arc::new(Writer {
            version,
            state: Lock::new(State {
                made_in: fork::generation(),
                ..State::default()
            }),
            about: OnceLock::new(),
            receiver: OnceLock::new(),
        })
    }

    /// Its channel was made here, and that is where its receiver is.
    pub fn made_with(&self, receiver: Option<Whereabouts>) {
        if let Some(receiver) = receiver {
            let _ = self.receiver.set(receiver);
        }
    }

    /// Whether nobody but this process can read what is sent.
    pub(super) fn leads_back(&self) -> bool {
        self.receiver.get().is_some_and(Whereabouts::is_here_alone)
    }

    /// The crate's version at the other side.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What people should know it by. Only the first call counts.
    pub fn describe(&self, text: String) {
        let _ = self.about.set(text);
    }

    fn lock(&self) -> Locked<'_, State> {
        let mut state = self.state.lock();
        if state.made_in != fork::generation() {
            // What waits is the parent's to send.
            *state = State {
                made_in: fork::generation(),
                ..State::default()
            };
        }
        state
    }

    /// Sends a message, now or as soon as there is room.
    pub fn send(self: &Arc<Self>, socket: &Arc<OwnedFd>, frame: &Frame<'_>) -> Result<()> {
        if frame.fds.is_empty() && self.send_small(socket, frame.payload)? {
            return Ok(());
        }
        let mut state = self.lock();
        let mut progress = Progress {
            at: 0,
            rest: None,
            buffer: buffer_size(),
        };
        if state.is_clear(socket)? {
            if frame.payload.len() > self.version.largest_first(progress.buffer) {
                // Once it is begun it must be kept.
                state.admit(frame.payload.len())?;
            }
            let fds: Vec<RawFd> = frame.fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
            let written = write(
                self.version,
                socket.as_fd(),
                frame.payload,
                &fds,
                &mut progress,
            );
            match written {
                Ok(Sent::Whole) => return Ok(()),
                Ok(Sent::WouldBlock) => {}
                // Half of it is there, and must be followed by the other half.
                Err(error) if progress.rest.is_some() && may_pass(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if progress.rest.is_none() {
            state.admit(frame.payload.len())?;
        }
        let single = Single {
            payload: frame.payload[progress.at..].to_vec(),
            fds: match progress.rest {
                Some(_) => Vec::new(),
                None => frame.fds.iter().map(kept).collect::<Result<_>>()?,
            },
            progress: Progress { at: 0, ..progress },
        };
        let bytes = single.payload.len();
        self.keep(state, socket, |backlog| backlog.push(single, bytes));
        Ok(())
    }

    /// The same for nothing but a few bytes. False if they are more.
    pub fn send_small(self: &Arc<Self>, socket: &Arc<OwnedFd>, payload: &[u8]) -> Result<bool> {
        if payload.len() > SMALL {
            return Ok(false);
        }
        let mut state = self.lock();
        if state.is_clear(socket)? {
            let header = self.version.header(payload.len(), payload.len());
            let parts = [IoSlice::new(header.bytes()), IoSlice::new(payload)];
            if socket::send_record(socket.as_fd(), &parts, &[])? == Sent::Whole {
                return Ok(true);
            }
        }
        state.admit(payload.len())?;
        self.keep(state, socket, |backlog| {
            backlog.push_small(self.version, payload);
        });
        Ok(true)
    }

    /// A message waits from now on.
    fn keep(
        self: &Arc<Self>,
        mut state: Locked<'_, State>,
        socket: &Arc<OwnedFd>,
        push: impl FnOnce(&mut Backlog<Single>),
    ) {
        if state.socket.is_none() {
            // A duplicate: an inherited end that is closed takes the descriptor away from everybody here.
            let own = descriptor::duplicate(socket.as_fd());
            let own = own.map_or_else(|_| socket.clone(), Arc::new);
            state.socket = Some(Outlet::new(own, true));
        }
        push(&mut state.backlog);
        state.kept += 1;
        let known = std::mem::replace(&mut state.enlisted, true);
        drop(state);
        if known {
            service::see_that_it_runs();
        } else {
            service::enlist(self);
        }
    }

    /// Sends what there is room for. Called by the service alone.
    pub(super) fn go_on(&self) -> Next {
        let mut done = Vec::new();
        let mut state = self.lock();
        let mut next = None;
        if let Some((socket, row)) = state.take_row() {
            // Whoever sends meanwhile need not wait.
            drop(state);
            let packets = row.packets().collect::<Vec<_>>();
            let sent = socket::send_records(socket.as_fd(), &packets);
            state = self.lock();
            next = state.row_sent(row, sent.unwrap_or(0), self.version);
        }
        let next = next.unwrap_or_else(|| state.go_on(self.version, &mut done));
        let mut socket = None;
        if let Next::Done = &next {
            state.enlisted = false;
            done.append(&mut state.backlog.clear());
            socket = state.socket.take();
        }
        let flushed = state.flushed();
        drop(state);
        for alarm in flushed {
            alarm.ring();
        }
        drop(socket);
        // A receiver that was sent may be gone already, and what its queue holds is closed here.
        let fds = done.into_iter().flat_map(|message| message.fds);
        let last = fds.filter_map(Arc::into_inner).collect::<Vec<_>>();
        if !last.is_empty() {
            descriptor::close_unknown(last);
        }
        next
    }

    /// What has been sent so far, for [`Writer::flush`].
    pub fn mark(&self) -> Mark {
        let state = self.lock();
        Mark {
            made_in: state.made_in,
            kept: state.kept,
        }
    }

    /// Waits until what had been sent by then waits here no more, whatever has been sent since. [`Error::ReceiverGone`]
    /// if something of it was lost, for everybody who asks.
    pub fn flush(&self, until: Mark, deadline: Deadline) -> Result<()> {
        /// How long to sleep where no alarm or no thread can be had.
        const PAUSE: Duration = Duration::from_millis(20);
        loop {
            let alarm = poll::thread_alarm().ok();
            {
                let mut state = self.lock();
                // What waited before a fork is the parent's to send.
                if state.made_in != until.made_in || state.written >= until.kept {
                    return Ok(());
                }
                if state.lost {
                    return Err(Error::ReceiverGone);
                }
                let waiting = alarm.clone().map(|alarm| (until.kept, alarm));
                state.flushing.extend(waiting);
            }
            let runs = service::see_that_it_runs();
            let slice = if runs && alarm.is_some() {
                deadline
            } else {
                Deadline::after(deadline.remaining().unwrap_or(PAUSE).min(PAUSE))
            };
            let waited = spin::sleep(slice, |until| match &alarm {
                Some(alarm) => poll::wait(&[(alarm.as_fd(), Interest::Readable)], until).map(drop),
                None => poll::wait(&[], until).map(drop),
            });
            if let Some(alarm) = &alarm {
                let mut state = self.lock();
                state
                    .flushing
                    .retain(|(_, other)| !Arc::ptr_eq(other, alarm));
                alarm.silence();
            }
            match waited {
                Ok(_) => {}
                Err(Error::TimedOut) if !deadline.passed() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Messages that wait here, and their bytes.
    pub fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.backlog.messages(), state.backlog.bytes())
    }

    /// What it is known by, and how many messages wait.
    pub(super) fn held(&self) -> Held {
        Held {
            about: self.about.get().cloned().unwrap_or_default(),
            messages: self.waiting().0,
        }
    }

    /// This is the child of a fork: what waits is the parent's.
    pub(super) fn forget(&self) {
        drop(self.lock());
    }
}

impl Resident for Writer {
    fn left(&self, _end: u64, _why: Gone) {
        // What waits is sent none the less.
    }

    fn after_fork_in_child(&self) {
        self.forget();
    }
}

impl State {
    /// Whether nothing waits, so that what comes can be sent at once. Fails if nobody will read it.
    fn is_clear(&mut self, socket: &OwnedFd) -> Result<bool> {
        if self.lost {
            return Err(Error::ReceiverGone);
        }
        let clear = self.backlog.messages() == 0;
        if !clear && self.may_look_again() && socket::has_hung_up(socket.as_fd()) {
            return Err(Error::ReceiverGone);
        }
        Ok(clear)
    }

    /// Whether to look if the receiver is still there: seldom in a burst, since each look costs as much as half of a
    /// message's way. Whoever closes the receiver and sends again makes a longer pause.
    fn may_look_again(&mut self) -> bool {
        const PAUSE_NS: u64 = 5_000;
        const BETWEEN_LOOKS_NS: u64 = 100_000;
        let now = clock::now();
        let paused = now - std::mem::replace(&mut self.sent_at, now) >= PAUSE_NS;
        let may = paused || now - self.looked_at >= BETWEEN_LOOKS_NS;
        if may {
            self.looked_at = now;
        }
        may
    }

    /// Fails if there is no memory to keep so much more.
    fn admit(&mut self, payload: usize) -> Result<()> {
        // Beside the payloads: small messages are many.
        let around = size_of::<Single>();
        let held = (self.backlog.bytes() + self.backlog.messages() * around) as u64;
        let more = (payload + around) as u64;
        if budget::limit().is_some() || self.unasked + more >= CHUNK {
            budget::admit_kept(held, more)?;
            self.unasked = 0;
        } else {
            self.unasked += more;
        }
        Ok(())
    }

    /// Those who wait for no more than has been written, or in vain.
    fn flushed(&mut self) -> Vec<Arc<Alarm>> {
        let (written, lost) = (self.written, self.lost);
        let over = |(until, _): &mut (u64, Arc<Alarm>)| lost || *until <= written;
        self.flushing
            .extract_if(.., over)
            .map(|(_, alarm)| alarm)
            .collect()
    }

    /// The small messages that are first, to be sent without the lock. None if there are none.
    fn take_row(&mut self) -> Option<(Arc<Outlet>, Row)> {
        let socket = self.socket.clone()?;
        self.backlog.take_row().map(|row| (socket, row))
    }

    /// After so many of a row were sent. None if it is to be found out why not all of them were.
    fn row_sent(&mut self, row: Row, sent: usize, version: Version) -> Option<Next> {
        let all = self.backlog.put_back(row, sent, version);
        self.written += sent as u64;
        if !all {
            None
        } else if self.backlog.messages() == 0 {
            Some(Next::Done)
        } else {
            Some(Next::Turn)
        }
    }

    fn go_on(&mut self, version: Version, done: &mut Vec<Single>) -> Next {
        let Some(socket) = self.socket.clone() else {
            return Next::Done;
        };
        for _ in 0..AT_ONCE {
            let (room, written) = match self.backlog.first() {
                None => return Next::Done,
                Some(Item::Row(row)) => {
                    let packet = row.packets().next().unwrap_or_default();
                    let sent = socket::send_record(socket.as_fd(), &[IoSlice::new(packet)], &[]);
                    (None, sent)
                }
                Some(Item::Single(single)) => {
                    let fds: Vec<RawFd> = single.fds.iter().map(|fd| fd.as_raw_fd()).collect();
                    let (payload, progress) = (&single.payload, &mut single.progress);
                    let was_at = progress.at;
                    let sent = write(version, socket.as_fd(), payload, &fds, progress);
                    let bytes = progress.at.min(payload.len()) - was_at;
                    let rest = progress.rest.clone();
                    self.backlog.sent_bytes(bytes);
                    (rest, sent)
                }
            };
            match written {
                Ok(Sent::Whole) => {
                    done.extend(self.backlog.sent_first(version));
                    self.written += 1;
                }
                Ok(Sent::WouldBlock) => return Next::Room(room.unwrap_or(socket)),
                Err(error) if may_pass(&error) => return Next::Later,
                Err(_) => {
                    // Nobody is there, or nothing can be sent to whoever is.
                    self.lost = true;
                    return Next::Done;
                }
            }
        }
        Next::Turn
    }
}

/// Whether the same may be possible later.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::TooManyHandles(_) => true,
        Error::Kernel { source, .. } => [Errno::NOBUFS, Errno::NOMEM]
            .iter()
            .any(|errno| source.raw_os_error() == Some(errno.raw_os_error())),
        _ => false,
    }
}

/// The kernel could not take so much in one piece.
fn is_too_large(error: &Error) -> bool {
    matches!(error, Error::Kernel { source, .. } if [Errno::NOBUFS, Errno::MSGSIZE]
        .iter()
        .any(|errno| source.raw_os_error() == Some(errno.raw_os_error())))
}

fn kept(fd: &FdRef<'_>) -> Result<Arc<OwnedFd>> {
    match fd {
        FdRef::Shared(fd) => Ok(fd.clone()),
        other => descriptor::duplicate(other.as_fd()).map(Arc::new),
    }
}

/// Sends as much of a message as there is room for.
fn write(
    version: Version,
    socket: BorrowedFd<'_>,
    payload: &[u8],
    fds: &[RawFd],
    progress: &mut Progress,
) -> Result<Sent> {
    loop {
        let (sent, len) = match &progress.rest {
            None => {
                let largest = version.largest_first(progress.buffer);
                let here = payload.len().min(largest);
                (
                    send_first(version, socket, payload, here, fds, progress),
                    here,
                )
            }
            Some(rest) => {
                let largest = version.largest_further(progress.buffer);
                let here = (payload.len() - progress.at).min(largest);
                let part = IoSlice::new(&payload[progress.at..progress.at + here]);
                let sent = socket::send(rest.as_fd(), &[part], &[]);
                if let Ok(Sent::Whole) = sent {
                    progress.at += here;
                }
                (sent, here)
            }
        };
        match sent {
            Ok(Sent::Whole) if progress.at == payload.len() => return Ok(Sent::Whole),
            Ok(Sent::Whole) => {}
            Ok(Sent::WouldBlock) => return Ok(Sent::WouldBlock),
            // In pieces, it takes a descriptor more.
            Err(error)
                if is_too_large(&error)
                    && len > SMALLEST_FRAGMENT
                    && (progress.rest.is_some() || fds.len() < MOST_FDS) =>
            {
                progress.buffer = (progress.buffer / 2).min(len);
            }
            // The message was thrown away at the other side, and nothing else.
            Err(Error::ReceiverGone) if progress.rest.is_some() && !socket::has_hung_up(socket) => {
                progress.at = payload.len();
                return Ok(Sent::Whole);
            }
            Err(error) => return Err(error),
        }
    }
}

fn send_first(
    version: Version,
    socket: BorrowedFd<'_>,
    payload: &[u8],
    here: usize,
    fds: &[RawFd],
    progress: &mut Progress,
) -> Result<Sent> {
    let header = version.header(here, payload.len());
    let parts = [IoSlice::new(header.bytes()), IoSlice::new(&payload[..here])];
    let sent = if here == payload.len() {
        socket::send_record(socket, &parts, fds)?
    } else {
        // Shut for reading, so that nobody can put anything there that would have to be closed here.
        let (mine, theirs) = socket::pair()?;
        let mut fds = fds.to_vec();
        fds.push(theirs.as_raw_fd());
        let sent = socket::send_record(socket, &parts, &fds)?;
        if sent == Sent::Whole {
            progress.rest = Some(Outlet::new(Arc::new(mine), false));
        }
        sent
    };
    if sent == Sent::Whole {
        progress.at = here;
    }
    Ok(sent)
}
