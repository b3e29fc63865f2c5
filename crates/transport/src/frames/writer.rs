//! The sending side: what the socket takes at once goes at once, the rest waits in order.
//!
//! Invariant (order): while anything waits, whatever comes waits behind it.
//!
//! Invariant (no gap): once something that waited was lost, nothing is sent any more. So the count of what was written
//! stays behind that of what was kept for good, and everybody who flushes afterwards is told.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use rustix::io::Errno;

use crate::deadline::Deadline;
use crate::end::{Gone, Resident};
use crate::error::{Error, Result};
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
use crate::wire::rust::{Frame, MAX_HEADER, MOST_FDS, Version, buffer_size};

/// Messages written before other threads get at the queue.
const AT_ONCE: usize = 32;
/// Packets up to this size go in rows.
const SMALL: usize = 2048;
/// Without a limit of its own, the budget is asked when so much more is kept.
const CHUNK: u64 = 1 << 20;
/// A packet that the kernel has no memory for is tried in smaller ones, down to this size.
const SMALLEST_FRAGMENT: usize = 2000;

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

/// A message that waits. Its descriptors are open as long as it does.
#[derive(Debug)]
struct Waiting {
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

impl Waiting {
    /// Whether it is a packet that can go in a row with others.
    fn is_small(&self) -> bool {
        self.fds.is_empty()
            && self.progress.rest.is_none()
            && self.progress.at == 0
            && self.payload.len() <= SMALL
    }
}

#[derive(Debug, Default)]
struct State {
    made_in: u64,
    queue: VecDeque<Waiting>,
    /// Messages that were before those in the queue, and that the service is about to write.
    in_hand: usize,
    /// Of both.
    bytes: usize,
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
    /// When the other side was last looked at, while anything waits.
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
        let mut state = self.lock();
        let mut progress = Progress {
            at: 0,
            rest: None,
            buffer: buffer_size(),
        };
        if state.lost {
            return Err(Error::ReceiverGone);
        }
        if state.waiting() == 0 {
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
        } else if state.may_look_again() && socket::has_hung_up(socket.as_fd()) {
            return Err(Error::ReceiverGone);
        }
        if progress.rest.is_none() {
            state.admit(frame.payload.len())?;
        }
        let waiting = Waiting {
            payload: frame.payload[progress.at..].to_vec(),
            fds: match progress.rest {
                Some(_) => Vec::new(),
                None => frame.fds.iter().map(kept).collect::<Result<_>>()?,
            },
            progress: Progress { at: 0, ..progress },
        };
        if state.socket.is_none() {
            // A duplicate: an inherited end that is closed takes the descriptor away from everybody here.
            let own = descriptor::duplicate(socket.as_fd());
            let own = own.map_or_else(|_| socket.clone(), Arc::new);
            state.socket = Some(Outlet::new(own, true));
        }
        state.bytes += waiting.payload.len();
        state.queue.push_back(waiting);
        state.kept += 1;
        let known = std::mem::replace(&mut state.enlisted, true);
        drop(state);
        if known {
            service::see_that_it_runs();
        } else {
            service::enlist(self);
        }
        Ok(())
    }

    /// Sends what there is room for. Called by the service alone.
    pub(super) fn go_on(&self) -> Next {
        let mut done = Vec::new();
        let mut state = self.lock();
        let mut next = None;
        if let Some((socket, row)) = state.take_row() {
            // Whoever sends meanwhile need not wait.
            drop(state);
            let sent = send_row(self.version, socket.as_fd(), &row);
            state = self.lock();
            next = state.row_sent(row, sent, &mut done);
        }
        let next = next.unwrap_or_else(|| state.go_on(self.version, &mut done));
        let mut socket = None;
        if let Next::Done = &next {
            state.enlisted = false;
            done.extend(state.queue.drain(..));
            state.bytes = 0;
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
        (state.waiting(), state.bytes)
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
    /// Whether to look if the receiver is still there. In a burst, each look costs as much as half of a message's way;
    /// whoever closes the receiver and sends again takes longer than this.
    fn may_look_again(&mut self) -> bool {
        const BETWEEN_LOOKS_NS: u64 = 5_000;
        let now = clock::now();
        let may = now - self.looked_at >= BETWEEN_LOOKS_NS;
        if may {
            self.looked_at = now;
        }
        may
    }

    /// Fails if there is no memory to keep so much more.
    fn admit(&mut self, payload: usize) -> Result<()> {
        // Beside the payloads: small messages are many.
        let around = size_of::<Waiting>();
        let held = (self.bytes + self.waiting() * around) as u64;
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

    /// How many messages are not written yet.
    fn waiting(&self) -> usize {
        self.in_hand + self.queue.len()
    }

    /// The small messages that are first in the queue, to be sent without the lock. None if there are none.
    fn take_row(&mut self) -> Option<(Arc<Outlet>, Vec<Waiting>)> {
        let socket = self.socket.clone()?;
        let first = self.queue.iter().take(AT_ONCE);
        self.in_hand = first.take_while(|message| message.is_small()).count();
        (self.in_hand > 0).then(|| (socket, self.queue.drain(..self.in_hand).collect()))
    }

    /// After so many of a row were sent; what is left of it is first in the queue again. None if it is to be found out
    /// why not all of them were.
    fn row_sent(
        &mut self,
        mut row: Vec<Waiting>,
        sent: Result<usize>,
        done: &mut Vec<Waiting>,
    ) -> Option<Next> {
        let written = sent.unwrap_or(0);
        let next = if written < row.len() {
            None
        } else if self.queue.is_empty() {
            Some(Next::Done)
        } else {
            Some(Next::Turn)
        };
        self.in_hand = 0;
        for left in row.drain(written..).rev() {
            self.queue.push_front(left);
        }
        self.written += written as u64;
        self.bytes -= row
            .iter()
            .map(|message| message.payload.len())
            .sum::<usize>();
        done.append(&mut row);
        next
    }

    fn go_on(&mut self, version: Version, done: &mut Vec<Waiting>) -> Next {
        let Some(socket) = self.socket.clone() else {
            return Next::Done;
        };
        for _ in 0..AT_ONCE {
            let Some(first) = self.queue.front_mut() else {
                return Next::Done;
            };
            let fds: Vec<RawFd> = first.fds.iter().map(|fd| fd.as_raw_fd()).collect();
            let (payload, progress) = (&first.payload, &mut first.progress);
            let was_at = progress.at;
            let written = write(version, socket.as_fd(), payload, &fds, progress);
            self.bytes -= progress.at.min(payload.len()) - was_at;
            match written {
                Ok(Sent::Whole) => {
                    done.extend(self.queue.pop_front());
                    self.written += 1;
                }
                Ok(Sent::WouldBlock) => {
                    return Next::Room(progress.rest.as_ref().unwrap_or(&socket).clone());
                }
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

/// Sends small messages, each in one packet, as far as there is room. How many.
fn send_row(version: Version, socket: BorrowedFd<'_>, row: &[Waiting]) -> Result<usize> {
    let lens = row.iter().map(|message| MAX_HEADER + message.payload.len());
    let mut bytes = Vec::with_capacity(lens.sum());
    let mut ends = Vec::with_capacity(row.len());
    for message in row {
        let len = message.payload.len();
        bytes.extend_from_slice(version.header(len, len).bytes());
        bytes.extend_from_slice(&message.payload);
        ends.push(bytes.len());
    }
    let mut begin = 0;
    let packets = ends
        .iter()
        .map(|end| &bytes[std::mem::replace(&mut begin, *end)..*end]);
    socket::send_records(socket, &packets.collect::<Vec<_>>())
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
