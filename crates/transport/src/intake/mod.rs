//! Where a receiver's messages come from, and in which order they are taken.
//!
//! At first there is the channel's socket alone, and its order is the order. Announcements in it (and at the
//! door) bring further sources: connections of single processes, some of them with a lane.
//!
//! # Order across sources
//! Every message carries the monotonic time at which its send began. `horizon` is a time at which no source
//! had anything that has not been seen since: after it was read, one system call has told which sockets have
//! news, and the tail of every lane that could have some has been read. Of what is seen, the message with the
//! earliest stamp is taken, and only if that is not after the horizon; otherwise everything is looked at anew.
//!
//! Proof. Let A's send return before B's began, and let B be taken now: stamp(B) ≤ horizon. A was in its source,
//! and its bell rung if its lane was asleep, before stamp(B), so before the look began that the horizon stands
//! for. So A was seen then, or taken before. If it was seen, it is the first of its source or behind others
//! which were sent before A's send returned, so have stamps before B's too. The earliest goes first: all of
//! them, and A, before B. A source announced by a packet (a lane, a door) is looked at as soon as the packet
//! is first in its queue; until then the packets before it, sent earlier, stand for it.
//!
//! So everything that lay in a lane at the look and is not stamped later than the horizon is one batch, and so is
//! what lay in a lane that was found since: nothing that comes meanwhile can have been sent before any of it. Until
//! it is taken no lane is looked at again, and the lane with the earliest message gives one after the other up to the
//! stamp of the first message elsewhere.
//!
//! A stamp from the future is a lie, or of another time namespace. It waits until everything else is taken,
//! and so puts off its own sender alone.
//!
//! # Alone
//! While there is but one lane, whose producer has not set SHARED, nothing else can hold a message sent
//! before one that is seen in it: whoever gets to send elsewhere does so after SHARED was set, which was before
//! anything that the producer published afterwards. Then its records are taken without a look at the others.

mod many;
mod queue;
mod source;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use crate::end::{End, Gone, Hint, Resident};
use crate::error::{Error, Result};
use crate::fd_link::LinkReader;
use crate::intake::many::Many;
use crate::intake::queue::{First, first_packet, take_packet};
use crate::intake::source::Source;
use crate::lane::consumer::{Consumer, Record};
use crate::lane::layout::Kind;
use crate::message::{Body, Message, Placed};
use crate::os::descriptor::{self, Leftovers};
use crate::os::poll::Epoll;
use crate::os::{fork, socket};
use crate::sync::Lock;
use crate::wire::luggage::{self, Incoming};
use crate::wire::native::HEADER_LEN;

/// Bodies in a lane from this length on are read where they lie, if the codec can.
const LARGE: usize = 64 << 10;
/// Announcements, bells and connections taken in one look: whoever floods us with them gets no more.
const WORK_A_LOOK: usize = 4608;
/// Messages taken from a lane that is alone, or so its producer says, before everything else is looked at too.
const MOST_ALONE: u32 = 4096;

/// A message that is about to be taken.
#[derive(Debug)]
pub enum Taken<'a> {
    /// Nothing but a payload, in a lane.
    Plain(Plain<'a>),
    /// The same, in memory of this thread. It has been taken already: if it is refused, it is lost.
    Bytes(&'a [u8]),
    /// Anything.
    Message(Message),
}

/// A payload in a lane.
#[derive(Debug)]
pub struct Plain<'a> {
    consumer: &'a Consumer,
    record: Record,
}

impl Plain<'_> {
    /// Its length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.record.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.record.len == 0
    }

    /// Where it lies while this value lives. Its sender could still write there.
    #[inline]
    pub fn pointer(&self) -> *const u8 {
        self.consumer.pointer(&self.record)
    }

    /// As a message: where it lies if it is large, else copied.
    pub fn into_message(self) -> Message {
        if self.record.len < LARGE {
            let mut bytes = vec![0; self.record.len];
            self.consumer.copy_out(&self.record, &mut bytes);
            return Message::plain(Body::Inline(bytes));
        }
        let hold = self.consumer.hold(&self.record, 0);
        Message::plain(Body::Placed(Arc::new(Placed::Lane(hold))))
    }
}

/// The lane whose records come next, one after the other.
struct Row<'a> {
    source: &'a mut Source,
    index: usize,
    /// For as long as its tail does not say that it is shared.
    alone: bool,
    /// Otherwise for records that lie before this place,
    seen: u64,
    /// and are not stamped later than this.
    until: u64,
    /// And for so many.
    most: u32,
}

impl Row<'_> {
    /// Gives small plain messages to `deliver` as long as it says yes. How many, and whether the next one is for it.
    #[inline]
    fn take_plain(&mut self, deliver: &mut impl FnMut(&Plain<'_>) -> bool) -> (u32, bool) {
        let Some(lane) = &mut self.source.lane else {
            return (0, false);
        };
        let mut taken = 0;
        let mut willing = true;
        while taken < self.most {
            let Ok(Some(record)) = lane.peek() else {
                break;
            };
            let in_order = if self.alone {
                !lane.is_shared()
            } else {
                lane.position() < self.seen && record.stamp <= self.until
            };
            if !in_order {
                break;
            }
            let plain = Plain {
                consumer: lane,
                record,
            };
            willing = record.kind == Kind::Plain && record.len < LARGE && deliver(&plain);
            if !willing {
                break;
            }
            self.source.owed |= lane.take(&record);
            taken += 1;
        }
        self.source.ring();
        (taken, willing)
    }
}

#[derive(Debug)]
struct State {
    /// None once the end has left.
    primary: Option<Arc<OwnedFd>>,
    gone: Option<Gone>,
    /// What came with the receiver, until it is first used.
    packed: Vec<Incoming>,
    many: Option<Box<Many>>,
    born_in: u64,
    end: Weak<End>,
    /// It is being given to another process: nothing may be taken here.
    moving: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Intake {
    state: Lock<State>,
}

impl Intake {
    /// Of a channel's socket and what came with it.
    pub fn new(primary: Arc<OwnedFd>, packed: Vec<Incoming>) -> Arc<Intake> {
        Arc::new(Intake {
            state: Lock::new(State {
                primary: Some(primary),
                gone: None,
                packed,
                many: None,
                born_in: fork::generation(),
                end: Weak::new(),
                moving: false,
            }),
        })
    }

    /// The end that it belongs to from now on.
    pub fn belongs_to(&self, end: &Arc<End>) -> Result<()> {
        let mut state = self.state.lock();
        state.end = Arc::downgrade(end);
        match &state.many {
            Some(many) => end.set_behind(&many.poll),
            None => Ok(()),
        }
    }

    /// Gives the next message to `deliver`, and takes it off its source unless that fails.
    ///
    /// [`Error::Empty`] or [`Error::Disconnected`] if there is none. [`Error::Protocol`] is for that packet or
    /// lane alone, which is then done with. After any other error the message is still there.
    #[inline]
    pub fn take<R>(&self, deliver: &mut dyn FnMut(Taken<'_>) -> Result<R>) -> Result<R> {
        let mut leftovers = Leftovers::default();
        let mut state = self.state.lock();
        state.take(deliver, &mut leftovers)
        // The lock is released before what is left over is closed: `state` was declared last.
    }

    /// Gives messages that are nothing but a small payload to `deliver`, as long as it says yes and the next one
    /// can be seen without asking the kernel; `most` at most. Returns how many were taken.
    #[inline]
    pub fn take_plain(&self, most: u32, mut deliver: impl FnMut(&Plain<'_>) -> bool) -> u32 {
        let mut state = self.state.lock();
        if state.moving {
            return 0;
        }
        let Some(many) = &mut state.many else {
            return 0;
        };
        let mut taken = 0;
        while taken < most {
            let Some(mut row) = many.row(most - taken) else {
                break;
            };
            let (count, willing) = row.take_plain(&mut deliver);
            let (index, alone) = (row.index, row.alone);
            taken += count;
            if alone {
                many.taken_alone += count;
                break;
            }
            if count > 0 {
                many.behind = Some(index);
            }
            if !willing || taken == most || many.behind.is_none() {
                break;
            }
            many.catch_up();
        }
        taken
    }

    /// Whether a message or the end of the stream is there.
    pub fn is_ready(&self) -> Result<bool> {
        let mut leftovers = Leftovers::default();
        let mut state = self.state.lock();
        match state.look(&mut leftovers) {
            Ok(_) | Err(Error::Disconnected) => Ok(true),
            Err(Error::Empty) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a lane has news, as far as that can be seen without asking the kernel.
    #[inline]
    pub fn has_news(&self) -> bool {
        let mut state = self.state.lock();
        state.many.as_mut().is_some_and(|many| many.has_news())
    }

    /// Whether there is a lane whose news could be seen coming.
    pub fn has_lanes(&self) -> bool {
        let state = self.state.lock();
        state.many.as_ref().is_some_and(|many| {
            many.sources
                .iter()
                .flatten()
                .any(|source| source.lane.is_some())
        })
    }

    /// Whether what came with the receiver has not been looked at yet.
    pub fn is_packed(&self) -> bool {
        !self.state.lock().packed.is_empty()
    }

    /// Makes sure that the descriptors tell of the next message. False if one is in memory already.
    pub fn rest(&self) -> bool {
        let mut state = self.state.lock();
        state.many.as_mut().is_none_or(|many| many.rest())
    }

    /// Whoever waits for the end is told of what is still in memory, or can rely on the descriptors again.
    pub fn settle(&self, end: &End) {
        // Under the lock, so that what is said last is true.
        let mut state = self.state.lock();
        let quiet = state.many.as_mut().is_none_or(|many| many.rest());
        if !quiet {
            end.wake();
        }
        end.hint(Hint::Memory, !quiet);
    }

    /// It is being given to another process, or no longer.
    pub fn set_moving(&self, moving: bool) {
        self.state.lock().moving = moving;
    }

    /// Undoes what another holder of the socket may have done to make a full queue look empty.
    pub fn look_at_the_first(&self) -> Result<()> {
        let state = self.state.lock();
        match &state.primary {
            Some(primary) => socket::peek_at_the_first(primary.as_fd()),
            None => Ok(()),
        }
    }

    /// What else than the socket is polled for news.
    pub fn poll(&self) -> Option<Arc<Epoll>> {
        self.state
            .lock()
            .many
            .as_ref()
            .map(|many| many.poll.clone())
    }

    /// Everything besides the socket, packed for another process; None if there is nothing.
    pub fn pack(&self) -> Result<Option<OwnedFd>> {
        let mut state = self.state.lock();
        let State { packed, many, .. } = &mut *state;
        let mut sources = Vec::new();
        for incoming in &*packed {
            sources.push(match incoming {
                Incoming::Door(door) => luggage::Outgoing::Door(door.as_fd()),
                Incoming::Connection(connection) => {
                    luggage::Outgoing::Connection(connection.as_fd())
                }
                Incoming::Lane {
                    place,
                    file,
                    connection,
                    link,
                } => luggage::Outgoing::Lane {
                    place: *place,
                    file: file.as_fd(),
                    connection: connection.as_fd(),
                    link: link.as_ref().map(|link| link.as_fd()),
                },
            });
        }
        if let Some(many) = many {
            let doors = many.doors.iter().map(|door| door.as_fd());
            sources.extend(doors.map(luggage::Outgoing::Door));
            let stranded = many.stranded.iter().map(|fd| fd.as_fd());
            sources.extend(stranded.map(luggage::Outgoing::Connection));
            for source in many.sources.iter_mut().flatten() {
                sources.push(match &mut source.lane {
                    None => luggage::Outgoing::Connection(source.connection.as_fd()),
                    Some(lane) => luggage::Outgoing::Lane {
                        place: lane.depart(),
                        file: lane.file(),
                        connection: source.connection.as_fd(),
                        link: source.link.as_ref().map(LinkReader::socket),
                    },
                });
            }
        }
        if sources.is_empty() {
            return Ok(None);
        }
        luggage::write(&sources).map(Some)
    }

    /// What its lanes hold: how many there are, and the bytes not yet read.
    pub fn lanes(&self) -> (usize, u64) {
        let state = self.state.lock();
        let lanes = state
            .many
            .iter()
            .flat_map(|many| many.sources.iter().flatten());
        lanes
            .filter_map(|source| source.lane.as_ref())
            .fold((0, 0), |(count, bytes), lane| {
                (count + 1, bytes.saturating_add(lane.backlog()))
            })
    }
}

impl Resident for Intake {
    fn left(&self, end: u64, why: Gone) {
        let mut state = self.state.lock();
        if state.end.upgrade().is_some_and(|heir| heir.id() != end) {
            return;
        }
        state.gone = Some(why);
        let primary = state.primary.take();
        let packed = std::mem::take(&mut state.packed);
        let many = state.many.take();
        let ours = state.born_in == fork::generation();
        // Closed while it travels: what travels belongs to whoever receives it.
        let why = if state.moving { Gone::Sent } else { why };
        drop(state);
        drop(primary);
        if let Some(many) = &many
            && ours
        {
            many.leave(why);
        }
        close_sources(packed, many);
    }

    fn before_fork(&self, _socket: BorrowedFd<'_>) {
        let mut state = self.state.lock();
        let sources = state
            .many
            .iter_mut()
            .flat_map(|many| many.sources.iter_mut());
        for lane in sources.flatten().filter_map(|source| source.lane.as_mut()) {
            lane.before_fork();
        }
    }

    fn after_fork_in_child(&self) {
        // The receiver is the parent's, which uses these. What has not been used yet, in the socket or among
        // what came with the receiver, is whoever's receives first.
        let mut state = self.state.lock();
        let many = state.many.take();
        state.born_in = fork::generation();
        drop(state);
        drop(many);
    }
}

/// A link's queue may hold whatever files a peer has put there.
fn close_sources(packed: Vec<Incoming>, many: Option<Box<Many>>) {
    let mut unknown = Vec::new();
    for incoming in packed {
        match incoming {
            Incoming::Door(fd) | Incoming::Connection(fd) => unknown.push(fd),
            Incoming::Lane {
                connection, link, ..
            } => unknown.extend([connection].into_iter().chain(link)),
        }
    }
    if let Some(many) = many {
        let many = *many;
        unknown.extend(many.doors);
        unknown.extend(many.stranded);
        for source in many.sources.into_iter().flatten() {
            unknown.extend(source.into_unknown());
        }
    }
    if !unknown.is_empty() {
        descriptor::close_unknown(unknown);
    }
}

/// Where the next message is.
enum Next {
    /// First in the channel's socket.
    Primary,
    /// First in a connection.
    Connection(usize),
    /// In a lane.
    Lane(usize, Record),
}

impl State {
    fn take<R>(
        &mut self,
        deliver: &mut dyn FnMut(Taken<'_>) -> Result<R>,
        leftovers: &mut Leftovers,
    ) -> Result<R> {
        if self.moving {
            return Err(Error::Gone(Gone::Sent));
        }
        if let Some(taken) = self.take_alone(deliver, leftovers) {
            return taken;
        }
        if self.many.is_none()
            && self.packed.is_empty()
            && let Some(primary) = self.primary.clone()
            && let Some(taken) = take_packet(primary.as_fd(), deliver, leftovers)?
        {
            return Ok(taken);
        }
        loop {
            let next = self.look(leftovers)?;
            if let (Next::Lane(index, record), Some(many), Some(primary)) =
                (&next, &mut self.many, &self.primary)
                && record.kind == Kind::Framed
            {
                // The link's announcement was sent before the first record that needs it.
                many.read_announcements(*index, primary.as_fd(), leftovers)?;
            }
            let outcome = match &next {
                Next::Lane(index, record) => match self.source_mut(*index) {
                    Some(source) => source.deliver(record, deliver, leftovers).map(Some),
                    None => Ok(None),
                },
                Next::Connection(index) => match self.source_mut(*index) {
                    Some(source) => take_packet(source.connection.as_fd(), deliver, leftovers),
                    None => Ok(None),
                },
                Next::Primary => match &self.primary {
                    Some(primary) => take_packet(primary.as_fd(), deliver, leftovers),
                    None => Ok(None),
                },
            };
            // Another holder of the socket may have taken what was seen there.
            let stolen = matches!(outcome, Err(Error::Empty | Error::Disconnected))
                && !matches!(next, Next::Lane(..));
            if let Some(many) = &mut self.many
                && (stolen || matches!(outcome, Ok(_) | Err(Error::Protocol(_))))
            {
                many.taken(&next);
                if stolen {
                    continue;
                }
            }
            if let Some(taken) = outcome? {
                return Ok(taken);
            }
        }
    }

    /// The next record of a lane that is alone. None if there is none, or SHARED in the tail, or a lie: all
    /// that is for [`State::look`].
    #[inline]
    fn take_alone<R>(
        &mut self,
        deliver: &mut dyn FnMut(Taken<'_>) -> Result<R>,
        leftovers: &mut Leftovers,
    ) -> Option<Result<R>> {
        let many = self.many.as_mut().filter(|_| !self.moving)?;
        let row = many.row(1).filter(|row| row.alone && row.most > 0)?;
        let lane = row.source.lane.as_mut()?;
        let record = lane.peek().ok()??;
        if lane.is_shared() || (record.kind == Kind::Framed && row.source.link.is_none()) {
            return None;
        }
        let taken = row.source.deliver(&record, deliver, leftovers);
        many.taken_alone += 1;
        Some(taken)
    }

    fn source_mut(&mut self, index: usize) -> Option<&mut Source> {
        self.many.as_mut()?.sources.get_mut(index)?.as_mut()
    }

    /// The next message, left where it is.
    fn look(&mut self, leftovers: &mut Leftovers) -> Result<Next> {
        if !self.packed.is_empty() {
            self.unpack()?;
        }
        for _ in 0..WORK_A_LOOK {
            let primary = match &self.primary {
                Some(primary) => primary.clone(),
                None => return Err(Error::Gone(self.gone.unwrap_or(Gone::Closed))),
            };
            if let Some(many) = &mut self.many {
                return many.look(primary.as_fd(), leftovers);
            }
            let mut beginning = [0; HEADER_LEN];
            match first_packet(primary.as_fd(), &mut beginning)? {
                First::Nothing => return Err(Error::Empty),
                First::End => return Err(Error::Disconnected),
                First::Bell => socket::discard(primary.as_fd())?,
                First::Message(_) | First::Damaged => return Ok(Next::Primary),
                First::Control => {
                    // From now on there may be more than the socket.
                    self.become_many()?;
                }
            }
        }
        Err(Error::Empty)
    }

    fn become_many(&mut self) -> Result<&mut Many> {
        let Some(primary) = &self.primary else {
            return Err(Error::Gone(self.gone.unwrap_or(Gone::Closed)));
        };
        if self.many.is_none() {
            let many = Many::new(primary.as_fd())?;
            if let Some(end) = self.end.upgrade() {
                end.set_behind(&many.poll)?;
            }
            self.many = Some(Box::new(many));
        }
        self.many.as_deref_mut().ok_or(Error::Empty)
    }

    fn unpack(&mut self) -> Result<()> {
        self.become_many()?;
        let Some(many) = &mut self.many else {
            return Ok(());
        };
        while let Some(incoming) = self.packed.pop() {
            if let Err((incoming, error)) = many.admit(incoming) {
                if matches!(error, Error::Protocol(_)) {
                    return Err(error);
                }
                self.packed.push(incoming);
                return Err(error);
            }
        }
        Ok(())
    }
}
