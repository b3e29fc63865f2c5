//! The receiving side: the channel's socket, and the messages of which only a part has come.
//!
//! The rest of a large message comes by a socket of its own, and its sender may be slow, stopped or dead. So several
//! messages can be under way at once, each with what has come of it, and nobody waits for one of them alone.
//!
//! # Order
//! Let A's send return before B's began. All of A was in its sockets then. When B's first packet is seen in the
//! channel's socket, A's has been taken from there, and what is left of A is looked for once more before B is given
//! out: so A is found complete, and goes first.
//!
//! # Half messages
//! One whose sender has gone was never sent: it is dropped without a word, and everybody else's messages go on. (The
//! crate ends the whole channel there.)

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::io::Errno;

use crate::end::{End, Gone, Hint, Resident};
use crate::error::{Error, Result};
use crate::frames::outlook::Outlook;
use crate::intake::Taken;
use crate::message::{Body, Handle, Message, Received};
use crate::os::descriptor::{self, Leftovers};
use crate::os::poll::{Epoll, Interest};
use crate::os::socket::{self, Peeked, Took};
use crate::sync::Lock;
use crate::wire::rust::{
    First, MAX_HEADER, MOST_FDS, Version, WITHOUT_REST, buffer_size, forged, take_dedicated,
};

/// Messages under way at a time; further ones stay in the channel's socket until one of these has come.
const MOST_PARTIAL: usize = 64;
/// Descriptors that messages under way may keep, the sockets for their rest included. One message is always let in.
const MOST_FDS_KEPT: usize = 2 * MOST_FDS;
/// Packets of one message taken in one look: whoever sends without end gets no more.
const PACKETS_A_LOOK: usize = 256;
/// Room that is made for what has been announced and has not come.
const ROOM: usize = 256 << 10;
const PRIMARY: u64 = u64::MAX;
/// More than a socket holds, unless somebody has enlarged it.
const MOST_AT_HAND: usize = 256 << 10;

thread_local! {
    // Where packets are put of which it is not known how long they are. The kernel gives pages as they are used.
    static PACKET: RefCell<Box<[u8]>> = RefCell::new(vec![0; MOST_AT_HAND].into());
}

/// What is said of a packet that others have taken.
const ANOTHER_PROCESS: &str =
    "is not the one that was there before: another process receives here too";

/// A message of which a part has come.
#[derive(Debug)]
struct Partial {
    /// Where the rest comes.
    rest: OwnedFd,
    watched: bool,
    payload: Vec<u8>,
    total: usize,
    /// Of its packets but the first, at most.
    room: usize,
    fds: Vec<OwnedFd>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// More may come.
    Open,
    /// Its sender has gone before it was complete: it was never sent.
    Abandoned,
    /// Something came that is no part of it.
    Forged,
}

/// Who has the channel's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holders {
    /// This process, which has made it, and those that it forked.
    Us,
    /// Perhaps others: it came from another process.
    Others,
}

#[derive(Debug)]
struct State {
    holders: Holders,
    /// None once the end has left.
    primary: Option<Arc<OwnedFd>>,
    gone: Option<Gone>,
    outlook: Outlook,
    partial: Vec<Partial>,
    next_token: u64,
    /// The channel's socket and those of partial messages, once there have been some.
    poll: Option<Arc<Epoll>>,
    /// The channel's socket is in `poll`.
    listens: bool,
    /// What is polled for news is `poll` instead of the socket.
    behind: bool,
    /// `poll` does not tell of everything.
    unwatched: bool,
    /// The channel's socket has come to its end, and messages are under way.
    ended: bool,
    /// What is first in the channel's socket has too many descriptors to be under way beside what is.
    crowded: bool,
    end: Weak<End>,
    /// It is being given to another process: nothing may be taken here.
    moving: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Reader {
    version: Version,
    state: Lock<State>,
}

/// What can be taken next.
enum Next {
    /// The message that is at that place of those under way.
    Partial(usize),
    /// The packet that is first in the channel's socket, with what it carries.
    Whole(First, Vec<OwnedFd>),
    /// The same, but it is good for nothing.
    Damaged(Error, Vec<OwnedFd>),
}

impl Reader {
    /// Of a channel's socket.
    pub fn new(version: Version, primary: Arc<OwnedFd>, holders: Holders) -> Arc<Reader> {
        Arc::new(Reader {
            version,
            state: Lock::new(State {
                holders,
                primary: Some(primary),
                gone: None,
                outlook: Outlook::default(),
                partial: Vec::new(),
                next_token: 0,
                poll: None,
                listens: false,
                behind: false,
                unwatched: false,
                ended: false,
                crowded: false,
                end: Weak::new(),
                moving: false,
            }),
        })
    }

    /// The crate's version at the other side.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The end that it belongs to from now on.
    pub fn belongs_to(&self, end: &Arc<End>) -> Result<()> {
        let mut state = self.state.lock();
        state.end = Arc::downgrade(end);
        match &state.poll {
            Some(poll) => end.set_behind(poll),
            None => Ok(()),
        }
    }

    /// Gives the next message to `deliver`. Otherwise as [`crate::intake::Intake::take`].
    pub fn take<R>(&self, deliver: &mut dyn FnMut(Taken<'_>) -> Result<R>) -> Result<R> {
        let mut leftovers = Leftovers::default();
        let mut state = self.state.lock();
        state.take(self.version, deliver, &mut leftovers)
        // The lock is released before what is left over is closed: `state` was declared last.
    }

    /// Whether a message or the end of the stream is there.
    pub fn is_ready(&self) -> Result<bool> {
        let mut leftovers = Leftovers::default();
        let mut state = self.state.lock();
        match state.look(self.version, &mut leftovers) {
            Ok(Next::Whole(_, fds) | Next::Damaged(_, fds)) => {
                leftovers.begin_message(fds);
                Ok(true)
            }
            Ok(Next::Partial(_)) | Err(Error::Disconnected) => Ok(true),
            Err(Error::Empty) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes sure that the descriptors tell of the next message. False if one is in memory already.
    pub fn rest(&self) -> bool {
        self.state.lock().is_quiet()
    }

    /// Whoever waits for the end is told of what is in memory, or can rely on the descriptors again.
    pub fn settle(&self, end: &End) {
        // Under the lock, so that what is said last is true.
        let state = self.state.lock();
        let quiet = state.is_quiet();
        if !quiet {
            end.wake();
        }
        end.hint(Hint::Memory, !quiet);
    }

    /// It is being given to another process, or no longer. What is under way cannot go along.
    pub fn set_moving(&self, moving: bool) -> Result<()> {
        let mut state = self.state.lock();
        if moving && !state.partial.is_empty() {
            return Err(Error::Unfit(
                "this receiver cannot move now: a part of a large message has been received already; \
                 receive that message first"
                    .into(),
            ));
        }
        state.moving = moving;
        // Also if it comes to nothing: the other process may have seen the socket.
        state.holders = Holders::Others;
        state.outlook.forget();
        Ok(())
    }

    /// The socket is given to another process, and stays here.
    pub fn share(&self) {
        self.state.lock().holders = Holders::Others;
    }

    /// Whether the receiver is in this process, and not on its way to another.
    pub fn is_here(&self) -> bool {
        let state = self.state.lock();
        state.primary.is_some() && !state.moving
    }

    /// Undoes what another holder of the socket may have done to make a full queue look empty.
    pub fn look_at_the_first(&self) -> Result<()> {
        match &self.state.lock().primary {
            Some(primary) => socket::peek_at_the_first(primary.as_fd()),
            None => Ok(()),
        }
    }

    /// What is polled for news instead of the socket.
    pub fn poll(&self) -> Option<Arc<Epoll>> {
        self.state.lock().poll.clone()
    }
}

impl Resident for Reader {
    fn left(&self, end: u64, why: Gone) {
        let mut state = self.state.lock();
        if state.end.upgrade().is_some_and(|heir| heir.id() != end) {
            return;
        }
        state.gone = Some(why);
        let left = (state.primary.take(), state.poll.take());
        let partial = std::mem::take(&mut state.partial);
        state.outlook.forget();
        drop(state);
        drop(left);
        close(partial);
    }

    fn after_fork_in_child(&self) {
        // The receiver is the parent's, which has taken these.
        let mut state = self.state.lock();
        let partial = std::mem::take(&mut state.partial);
        let poll = state.poll.take();
        (state.listens, state.behind, state.unwatched) = (false, false, false);
        (state.ended, state.crowded) = (false, false);
        state.outlook.forget();
        drop(state);
        drop((partial, poll));
    }
}

fn close(partial: Vec<Partial>) {
    let fds = partial
        .into_iter()
        .flat_map(|partial| partial.fds.into_iter().chain([partial.rest]));
    let fds: Vec<OwnedFd> = fds.collect();
    if !fds.is_empty() {
        descriptor::close_unknown(fds);
    }
}

impl Partial {
    /// It is whole, or there is something to be said about it.
    fn is_decided(&self) -> bool {
        self.fate == Fate::Forged || self.is_whole()
    }

    fn is_whole(&self) -> bool {
        self.payload.len() == self.total
    }

    fn is_abandoned(&self) -> bool {
        self.fate == Fate::Abandoned
    }

    /// Takes what has come.
    fn advance(&mut self, leftovers: &mut Leftovers) -> Result<()> {
        for _ in 0..PACKETS_A_LOOK {
            if self.fate != Fate::Open || self.is_whole() {
                break;
            }
            let left = self.total - self.payload.len();
            let room = left.min(self.room);
            reserve(&mut self.payload, room, self.total)?;
            match socket::take_into(self.rest.as_fd(), 0, &mut self.payload, room)? {
                Took::Nothing => break,
                Took::End => self.fate = Fate::Abandoned,
                Took::Packet {
                    len,
                    mut fds,
                    fds_missing,
                } => {
                    if !fds.is_empty() || fds_missing || len > room {
                        self.fate = Fate::Forged;
                    }
                    leftovers.spent.append(&mut fds);
                }
            }
        }
        Ok(())
    }
}

/// Makes room for `more` bytes. It is the peer who says how many come in `total`: so memory grows with what has come.
fn reserve(bytes: &mut Vec<u8>, more: usize, total: usize) -> Result<()> {
    if bytes.capacity() - bytes.len() >= more {
        return Ok(());
    }
    let wanted = (bytes.len() * 2).clamp(bytes.len() + more, total.max(bytes.len() + more));
    bytes
        .try_reserve_exact(wanted - bytes.len())
        .map_err(|_| Error::kernel("malloc", Errno::NOMEM))
}

impl State {
    fn take<R>(
        &mut self,
        version: Version,
        deliver: &mut dyn FnMut(Taken<'_>) -> Result<R>,
        leftovers: &mut Leftovers,
    ) -> Result<R> {
        if self.moving {
            return Err(Error::Gone(Gone::Sent));
        }
        // Of a message in parts, the first packet has a descriptor; see the module about the order.
        if self.partial.is_empty()
            && let Some(primary) = &self.primary
            && self.outlook.is_clear(primary.as_fd(), MOST_AT_HAND)
        {
            return self.take_plain(version, deliver, leftovers);
        }
        match self.look(version, leftovers)? {
            Next::Partial(index) => {
                let partial = self.remove(index);
                if partial.fate == Fate::Forged {
                    leftovers.spent.extend(partial.fds);
                    leftovers.spent.push(partial.rest);
                    return forged("is no part of the message that it should belong to");
                }
                leftovers.spent.push(partial.rest);
                deliver(Taken::Message(message(partial.payload, partial.fds)))
            }
            Next::Whole(first, fds)
                if fds.is_empty() && version.header_len() + first.here <= MOST_AT_HAND =>
            {
                self.take_plain(version, deliver, leftovers)
            }
            Next::Whole(first, fds) => {
                let payload = match self.take_first(version, first) {
                    Ok(payload) => payload,
                    Err(error) => {
                        leftovers.begin_message(fds);
                        return Err(error);
                    }
                };
                deliver(Taken::Message(message(payload, fds)))
            }
            Next::Damaged(error, fds) => {
                leftovers.begin_message(fds);
                if let Some(primary) = &self.primary {
                    self.outlook.forget();
                    socket::discard(primary.as_fd())?;
                }
                Err(error)
            }
        }
    }

    /// Takes the packet that is first in the channel's socket, which has no descriptors beside it, and is a message.
    fn take_plain<R>(
        &mut self,
        version: Version,
        deliver: &mut dyn FnMut(Taken<'_>) -> Result<R>,
        leftovers: &mut Leftovers,
    ) -> Result<R> {
        let Some(primary) = &self.primary else {
            return Err(Error::Gone(self.gone.unwrap_or(Gone::Closed)));
        };
        PACKET.with_borrow_mut(|packet| {
            let took = match self.holders {
                Holders::Us => socket::take_bytes(primary.as_fd(), packet),
                Holders::Others => take_bytes_among_others(primary.as_fd(), packet, leftovers),
            };
            let len = match took? {
                Some(len @ 1..) if len <= packet.len() => len,
                Some(1..) | None => {
                    self.outlook.forget();
                    return forged(ANOTHER_PROCESS);
                }
                Some(0) => {
                    // Or it is the end of the stream, behind what another process has taken: the next look tells.
                    self.outlook.forget();
                    return forged("is empty");
                }
            };
            self.outlook.took(len, primary.as_fd(), MOST_AT_HAND);
            match version.read(&packet[..len.min(MAX_HEADER)], len)? {
                first if first.is_whole() => {
                    deliver(Taken::Bytes(&packet[version.header_len()..len]))
                }
                _ => forged(WITHOUT_REST),
            }
        })
    }

    /// Takes the packet that is first in the channel's socket, whose descriptors have been taken already.
    fn take_first(&mut self, version: Version, first: First) -> Result<Vec<u8>> {
        let Some(primary) = &self.primary else {
            return Err(Error::Gone(self.gone.unwrap_or(Gone::Closed)));
        };
        let mut payload = Vec::new();
        reserve(&mut payload, first.here, first.here)?;
        self.outlook.forget();
        let header = version.header_len();
        match socket::take_into(primary.as_fd(), header, &mut payload, first.here)? {
            Took::Packet { len, fds, .. } => {
                // Duplicates of what came with the look.
                drop(fds);
                if len == header + first.here {
                    return Ok(payload);
                }
            }
            Took::Nothing | Took::End => {}
        }
        forged(ANOTHER_PROCESS)
    }

    /// What can be taken next, left where it is; but messages that are larger than a packet come in.
    fn look(&mut self, version: Version, leftovers: &mut Leftovers) -> Result<Next> {
        if self.moving {
            return Err(Error::Gone(Gone::Sent));
        }
        for _ in 0..=MOST_PARTIAL {
            if let Some(index) = self.advance(leftovers)? {
                return Ok(Next::Partial(index));
            }
            let Some(primary) = self.primary.clone() else {
                return Err(Error::Gone(self.gone.unwrap_or(Gone::Closed)));
            };
            if !self.takes_more() {
                break;
            }
            let mut beginning = [0; MAX_HEADER];
            let (len, fds) = match socket::peek(primary.as_fd(), &mut beginning)? {
                Peeked::Nothing => {
                    self.outlook.forget();
                    break;
                }
                Peeked::End if self.partial.is_empty() => return Err(Error::Disconnected),
                Peeked::End => {
                    self.ended = true;
                    break;
                }
                Peeked::Packet {
                    mut fds,
                    fds_missing: true,
                    ..
                } => {
                    let came = fds.len();
                    leftovers.spent.append(&mut fds);
                    return Err(Error::TooManyHandles(format!(
                        "the next message carries descriptors, and this process has room for {came} only; \
                         close some or raise the limit (ulimit -n), then receive it again"
                    )));
                }
                Peeked::Packet { len, fds, .. } => (len, fds),
            };
            if !self.partial.is_empty()
                && let Some(index) = self.advance(leftovers)?
            {
                // See the module about the order. The packet is still where it was.
                leftovers.spent.extend(fds);
                return Ok(Next::Partial(index));
            }
            match check(version, &beginning[..len.min(MAX_HEADER)], len, &fds) {
                Err(error) => return Ok(Next::Damaged(error, fds)),
                Ok(first) if first.is_whole() => return Ok(Next::Whole(first, fds)),
                Ok(_)
                    if self.fds_kept() + fds.len() > MOST_FDS_KEPT && !self.partial.is_empty() =>
                {
                    leftovers.spent.extend(fds);
                    self.crowded = true;
                }
                Ok(first) => {
                    if let Some(damaged) = self.begin(version, first, fds)? {
                        return Ok(damaged);
                    }
                }
            }
        }
        self.watch()?;
        Err(Error::Empty)
    }

    /// Takes the first packet of a large message.
    fn begin(
        &mut self,
        version: Version,
        first: First,
        mut fds: Vec<OwnedFd>,
    ) -> Result<Option<Next>> {
        let rest = match take_dedicated(&mut fds) {
            Ok(rest) => rest,
            Err(error) => return Ok(Some(Next::Damaged(error, fds))),
        };
        let payload = match self.take_first(version, first) {
            Ok(payload) => payload,
            Err(error) => {
                descriptor::close_unknown(fds.into_iter().chain([rest]).collect());
                return Err(error);
            }
        };
        self.partial.push(Partial {
            rest,
            watched: false,
            payload,
            total: first.total,
            room: ROOM.max(version.largest_further(buffer_size())),
            fds,
            fate: Fate::Open,
        });
        Ok(None)
    }

    /// Whether packets can be taken from the channel's socket now.
    fn takes_more(&self) -> bool {
        !self.ended && !self.crowded && self.partial.len() < MOST_PARTIAL
    }

    fn fds_kept(&self) -> usize {
        let each = self.partial.iter().map(|partial| partial.fds.len() + 1);
        each.sum()
    }

    /// Whether the descriptors tell of everything that can be taken.
    fn is_quiet(&self) -> bool {
        !self.unwatched && self.first_decided().is_none()
    }

    fn first_decided(&self) -> Option<usize> {
        self.partial.iter().position(Partial::is_decided)
    }

    /// Takes what has come of all messages that are under way. The first one that is whole, or never will be.
    fn advance(&mut self, leftovers: &mut Leftovers) -> Result<Option<usize>> {
        for partial in &mut self.partial {
            partial.advance(leftovers)?;
        }
        while let Some(index) = self.partial.iter().position(Partial::is_abandoned) {
            let abandoned = self.remove(index);
            leftovers.spent.extend(abandoned.fds);
            leftovers.spent.push(abandoned.rest);
        }
        Ok(self.first_decided())
    }

    fn remove(&mut self, index: usize) -> Partial {
        let partial = self.partial.remove(index);
        if let Some(poll) = self.poll.as_ref().filter(|_| partial.watched) {
            poll.remove(partial.rest.as_fd());
        }
        self.crowded = false;
        if self.partial.is_empty() {
            self.ended = false;
        }
        // If that fails, `rest` says that there is something to be looked at.
        let _ = self.watch();
        partial
    }

    /// Makes `poll` tell of everything that could bring news. Where that fails, each look tries again.
    fn watch(&mut self) -> Result<()> {
        let outcome = self.complete_poll();
        self.unwatched = outcome.is_err();
        outcome
    }

    fn complete_poll(&mut self) -> Result<()> {
        let Some(primary) = &self.primary else {
            return Ok(());
        };
        if self.partial.is_empty() && self.poll.is_none() {
            return Ok(());
        }
        // Kept before anything is added to it, so that what fails below can be made up for.
        let poll = match &self.poll {
            Some(poll) => poll.clone(),
            None => {
                let poll = Arc::new(Epoll::new()?);
                (self.listens, self.behind) = (false, false);
                self.poll.insert(poll).clone()
            }
        };
        let listens = self.takes_more();
        if listens && !self.listens {
            poll.add(primary.as_fd(), PRIMARY, Interest::Readable)?;
        } else if self.listens && !listens {
            // Its end, or what cannot be taken now, would be told of again and again.
            poll.remove(primary.as_fd());
        }
        self.listens = listens;
        for partial in &mut self.partial {
            if !partial.watched && !partial.is_decided() {
                poll.add(partial.rest.as_fd(), self.next_token, Interest::Readable)?;
                self.next_token += 1;
                partial.watched = true;
            }
        }
        if !self.behind {
            if let Some(end) = self.end.upgrade() {
                end.set_behind(&poll)?;
            }
            self.behind = true;
        }
        Ok(())
    }
}

/// As [`socket::take_bytes`] where others hold the socket, too. None also for a packet that is not only bytes.
fn take_bytes_among_others(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    leftovers: &mut Leftovers,
) -> Result<Option<usize>> {
    Ok(match socket::take(socket, buffer)? {
        Took::Packet {
            len,
            fds,
            fds_missing: false,
        } if fds.is_empty() => Some(len),
        Took::Packet { mut fds, .. } => {
            leftovers.spent.append(&mut fds);
            None
        }
        Took::Nothing => None,
        Took::End => Some(0),
    })
}

/// What a first packet is, unless the crate would not have sent it.
fn check(version: Version, beginning: &[u8], len: usize, fds: &[OwnedFd]) -> Result<First> {
    if fds.len() > MOST_FDS {
        return forged("has more descriptors beside it than the crate sends");
    }
    version.read(beginning, len)
}

fn message(payload: Vec<u8>, fds: Vec<OwnedFd>) -> Message {
    let mut message = Message::plain(Body::Inline(payload));
    let received = fds.into_iter().map(|fd| Received {
        handle: Handle::Foreign(fd),
        label: 0,
    });
    message.handles = received.collect();
    message
}
