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
//! A stamp from the future is a lie, or of another time namespace. It waits until everything else is taken,
//! and so puts off its own sender alone.
//!
//! # Alone
//! While there is but one lane, whose producer has not set SHARED, nothing else can hold a message sent
//! before one that is seen in it: whoever gets to send elsewhere does so after SHARED was set, which was before
//! anything that the producer published afterwards. Then its records are taken without a look at the others.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use crate::door;
use crate::end::{End, Gone, Hint, Resident};
use crate::error::{Error, Result};
use crate::fd_link::LinkReader;
use crate::lane::consumer::{Consumer, Record};
use crate::lane::layout::Kind;
use crate::message::{Body, Message, Placed};
use crate::os::descriptor::Leftovers;
use crate::os::poll::{Epoll, Interest};
use crate::os::socket::{self, Peeked};
use crate::os::{clock, descriptor, fork};
use crate::sync::Lock;
use crate::wire::control::{self, BELL};
use crate::wire::luggage::{self, Incoming};
use crate::wire::native::{self, HEADER_LEN, Header, PacketKind, forged};

/// Bodies in a lane from this length on are read where they lie, if the codec can.
const LARGE: usize = 64 << 10;
/// Announcements, bells and connections taken in one look: whoever floods us with them gets no more.
const WORK_A_LOOK: usize = 4608;
/// Messages taken from a lane that is alone, or so its producer says, before everything else is looked at too.
const MOST_ALONE: u32 = 4096;
const MOST_DOORS: usize = 16;
/// Packets; a socket of the usual size holds 278.
const MOST_IN_A_QUEUE: u32 = 1024;

const PRIMARY: u64 = 0;
const DOORS: u64 = 1;
const FIRST_SOURCE: u64 = 2;

thread_local! {
    // A packet is copied out of its queue before it is known how long it is.
    static PACKET: RefCell<Box<[u8]>> = RefCell::new(vec![0; native::MAX_PACKET].into());
}

/// A message that is about to be taken.
#[derive(Debug)]
pub enum Taken<'a> {
    /// Nothing but a payload, in a lane.
    Plain(Plain<'a>),
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

#[derive(Debug)]
struct Source {
    connection: Arc<OwnedFd>,
    /// Nothing comes by the connection any more.
    ended: bool,
    lane: Option<Consumer>,
    link: Option<LinkReader>,
    /// Its next message is among the heads.
    queued: bool,
    /// Its lane is looked at each time, because its producer will not ring.
    awake: bool,
    /// The producer waits for room and has not been rung for yet.
    owed: bool,
    /// What lies beyond was not there at the last look: how far the lane was.
    seen: u64,
    /// Packets taken from the connection since the last look.
    since: u32,
}

/// More than the socket.
#[derive(Debug)]
struct Many {
    poll: Arc<Epoll>,
    primary_ended: bool,
    /// The stream has ended.
    over: bool,
    primary_queued: bool,
    /// Packets taken from the socket since the last look.
    primary_since: u32,
    doors: Vec<OwnedFd>,
    /// A door has been announced and not yet been looked at.
    new_door: bool,
    /// Accepted, and not yet among the sources for want of the kernel's memory.
    stranded: Vec<OwnedFd>,
    sources: Vec<Option<Source>>,
    /// Free places among the sources.
    free: Vec<usize>,
    /// Queues whose first message has been taken, to be looked at before anything else is.
    taken: Vec<u64>,
    live: usize,
    /// Of these, how many have hung up.
    ended: usize,
    /// Lanes that are awake.
    awake: Vec<usize>,
    heads: BinaryHeap<Reverse<(u64, u64)>>,
    horizon: u64,
    /// A lane on its own, see the module.
    alone: Option<usize>,
    /// Messages taken from it since the last look.
    taken_alone: u32,
    ready: Vec<u64>,
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

    /// As [`Intake::take`], if the next message can be seen without asking the kernel.
    #[inline]
    pub fn take_from_memory<R>(
        &self,
        deliver: &mut dyn FnMut(Taken<'_>) -> Result<R>,
    ) -> Option<Result<R>> {
        let mut leftovers = Leftovers::default();
        let mut state = self.state.lock();
        state.take_alone(deliver, &mut leftovers)
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

impl Source {
    fn into_unknown(self) -> Vec<OwnedFd> {
        let link = self.link.map(LinkReader::into_socket);
        Arc::into_inner(self.connection)
            .into_iter()
            .chain(link)
            .collect()
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
        if many.taken_alone >= MOST_ALONE {
            return None;
        }
        let source = many.sources.get_mut(many.alone?)?.as_mut()?;
        let lane = source.lane.as_mut().filter(|_| !source.queued)?;
        let record = lane.peek().ok()??;
        if lane.is_shared() || (record.kind == Kind::Framed && source.link.is_none()) {
            return None;
        }
        many.taken_alone += 1;
        Some(source.deliver(&record, deliver, leftovers))
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
            let poll = Arc::new(Epoll::new()?);
            poll.add(primary.as_fd(), PRIMARY, Interest::Readable)?;
            if let Some(end) = self.end.upgrade() {
                end.set_behind(&poll)?;
            }
            self.many = Some(Box::new(Many::new(poll)));
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

/// The stamp of a message. One that was not there when the horizon was looked for is of after that, whatever its
/// sender says: it had not been sent then.
fn not_before(new: bool, horizon: u64, stamp: u64) -> u64 {
    if new { stamp.max(horizon + 1) } else { stamp }
}

/// What is first in a queue.
enum First {
    Nothing,
    End,
    /// With its stamp.
    Message(u64),
    Bell,
    Control,
    /// To be taken and reported.
    Damaged,
}

fn first_packet(socket: BorrowedFd<'_>, beginning: &mut [u8; HEADER_LEN]) -> Result<First> {
    let Some((len, beside)) = socket::peek_bytes(socket, beginning)? else {
        return Ok(match socket::peek(socket, &mut [0; 1])? {
            Peeked::Nothing => First::Nothing,
            Peeked::End => First::End,
            Peeked::Packet { len, fds, .. } => {
                descriptor::close_unknown(fds);
                if len > 0 {
                    // It has come between the two looks.
                    return first_packet_again(socket, beginning);
                }
                First::Damaged
            }
        });
    };
    if len == BELL.len() && beginning[0] == BELL[0] {
        return Ok(if beside { First::Damaged } else { First::Bell });
    }
    Ok(
        match beginning.get(..len.min(HEADER_LEN)).map(Header::read) {
            Some(Ok(header)) if header.kind == PacketKind::Message => First::Message(header.stamp),
            Some(Ok(_)) => First::Control,
            _ => First::Damaged,
        },
    )
}

fn first_packet_again(socket: BorrowedFd<'_>, beginning: &mut [u8; HEADER_LEN]) -> Result<First> {
    Ok(match socket::peek_bytes(socket, beginning)? {
        Some((1, false)) if beginning[0] == BELL[0] => First::Bell,
        Some((len, _)) => match beginning.get(..len.min(HEADER_LEN)).map(Header::read) {
            Some(Ok(header)) if header.kind == PacketKind::Message => First::Message(header.stamp),
            Some(Ok(_)) => First::Control,
            _ => First::Damaged,
        },
        // Somebody else has a duplicate of the socket and plays with it.
        None => First::Nothing,
    })
}

/// Takes a packet that is good for nothing off a queue. What comes with it goes to `leftovers`: closing it may
/// take as long as its sender likes.
fn throw_away(socket: BorrowedFd<'_>, leftovers: &mut Leftovers) -> Result<()> {
    if let Peeked::Packet { mut fds, .. } = socket::peek(socket, &mut [0; 1])? {
        leftovers.fds.append(&mut fds);
    }
    socket::discard(socket)
}

/// Takes the message at the head of a queue; None if it is something else.
///
/// Invariant: a packet leaves the queue only once its message is complete in our hands, or once it is
/// known to be forged. The caller keeps other threads away between the look and the taking.
fn take_packet<R>(
    socket: BorrowedFd<'_>,
    deliver: &mut dyn FnMut(Taken<'_>) -> Result<R>,
    leftovers: &mut Leftovers,
) -> Result<Option<R>> {
    PACKET.with_borrow_mut(|buffer| {
        let (len, fds) = match socket::peek(socket, buffer)? {
            Peeked::Nothing => return Err(Error::Empty),
            Peeked::End => return Err(Error::Disconnected),
            Peeked::Packet {
                fds,
                fds_missing: true,
                ..
            } => {
                let came = fds.len();
                leftovers.fds = fds;
                return Err(no_room(came));
            }
            Peeked::Packet { len, fds, .. } => (len, fds),
        };
        leftovers.fds = fds;
        let message = match buffer.get(..len) {
            Some(packet) if packet == BELL => {
                socket::discard(socket)?;
                return Ok(None);
            }
            Some(packet) => match Header::read(packet) {
                Ok(header) if header.kind != PacketKind::Message => return Ok(None),
                Ok(header) => {
                    native::read_packet(&header, packet, leftovers).and_then(Message::assemble)
                }
                Err(error) => Err(error),
            },
            None => Err(Error::Protocol(format!(
                "a packet from the peer is {len} bytes long, and {} are the most",
                native::MAX_PACKET
            ))),
        };
        let outcome = message.and_then(|message| deliver(Taken::Message(message)));
        if matches!(outcome, Ok(_) | Err(Error::Protocol(_))) {
            socket::discard(socket)?;
        }
        outcome.map(Some)
    })
}

fn no_room(came: usize) -> Error {
    Error::TooManyHandles(format!(
        "the next message carries descriptors, and this process has room for {came} only; \
         close some or raise the limit (ulimit -n), then receive it again"
    ))
}

impl Source {
    fn new(connection: OwnedFd) -> Source {
        Source {
            connection: Arc::new(connection),
            ended: false,
            lane: None,
            link: None,
            queued: false,
            awake: false,
            owed: false,
            seen: u64::MAX,
            since: 0,
        }
    }

    /// Rings for a producer that waits for room; later, if the kernel has no memory for it now.
    #[inline]
    fn ring(&mut self) {
        if self.owed {
            let rung = control::ring(self.connection.as_fd());
            self.owed = !matches!(rung, Ok(()) | Err(Error::ReceiverGone));
        }
    }

    /// Gives a record of the lane to `deliver`, and takes it unless that fails.
    #[inline]
    fn deliver<R>(
        &mut self,
        record: &Record,
        deliver: &mut dyn FnMut(Taken<'_>) -> Result<R>,
        leftovers: &mut Leftovers,
    ) -> Result<R> {
        let Some(lane) = &mut self.lane else {
            return Err(Error::Empty);
        };
        let outcome = match record.kind {
            Kind::Plain => {
                if record.len >= LARGE && !lane.is_whole(record) {
                    forged("has a body that its sender has no memory for")
                } else {
                    deliver(Taken::Plain(Plain {
                        consumer: lane,
                        record: *record,
                    }))
                }
            }
            _ => framed(lane, &mut self.link, record, leftovers)
                .and_then(|message| deliver(Taken::Message(message))),
        };
        if matches!(outcome, Ok(_) | Err(Error::Protocol(_))) {
            self.owed |= lane.take(record);
            self.ring();
        }
        outcome
    }
}

/// Reads a message with more than a payload out of a lane.
fn framed(
    lane: &Consumer,
    link: &mut Option<LinkReader>,
    record: &Record,
    leftovers: &mut Leftovers,
) -> Result<Message> {
    if record.len < HEADER_LEN {
        return forged("is shorter than a header");
    }
    let mut beginning = [0; HEADER_LEN];
    lane.copy_out(record, &mut beginning);
    let header = Header::read(&beginning)?;
    if header.body_len() != record.len - HEADER_LEN || !header.fits_a_lane() {
        return forged("is not what it says");
    }
    if record.len >= LARGE && !lane.is_whole(record) {
        return forged("has a body that its sender has no memory for");
    }
    let mut tables = vec![0; header.tables_len()?];
    lane.copy_out_from(record, HEADER_LEN, &mut tables);
    if header.ticket > 0 {
        let Some(link) = link else {
            return forged("says that descriptors come with it, and none do");
        };
        leftovers.fds = link.peek(header.ticket)?;
    }
    let body = if header.body_len() < LARGE {
        let mut bytes = vec![0; header.body_len()];
        lane.copy_out_from(record, HEADER_LEN, &mut bytes);
        Body::Inline(bytes)
    } else {
        let hold = lane.hold(record, HEADER_LEN);
        Body::Placed(Arc::new(Placed::Lane(hold)))
    };
    let message = native::read_body(&header, &tables, body, leftovers).and_then(Message::assemble);
    match (&message, link) {
        (Ok(_) | Err(Error::Protocol(_)), Some(link)) if header.ticket > 0 => link.discard()?,
        _ => {}
    }
    message
}

/// The announcement at the head of a queue, and its descriptors.
fn announced(socket: BorrowedFd<'_>, leftovers: &mut Leftovers) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut packet = [0; HEADER_LEN + control::PLACE_LEN];
    match socket::peek(socket, &mut packet)? {
        Peeked::Packet {
            mut fds,
            fds_missing: true,
            ..
        } => {
            let came = fds.len();
            leftovers.fds.append(&mut fds);
            Err(no_room(came))
        }
        Peeked::Packet { len, fds, .. } => {
            Ok((packet.get(..len).unwrap_or_default().to_vec(), fds))
        }
        _ => Ok((Vec::new(), Vec::new())),
    }
}

impl Many {
    fn new(poll: Arc<Epoll>) -> Many {
        Many {
            poll,
            primary_ended: false,
            over: false,
            primary_queued: false,
            primary_since: 0,
            doors: Vec::new(),
            new_door: false,
            stranded: Vec::new(),
            sources: Vec::new(),
            free: Vec::new(),
            taken: Vec::new(),
            live: 0,
            ended: 0,
            awake: Vec::new(),
            heads: BinaryHeap::new(),
            horizon: 0,
            alone: None,
            taken_alone: 0,
            ready: Vec::new(),
        }
    }

    /// Adds what came with the receiver; gives it back if that fails.
    fn admit(&mut self, incoming: Incoming) -> std::result::Result<(), (Incoming, Error)> {
        match incoming {
            Incoming::Door(door) => match self.poll.add(door.as_fd(), DOORS, Interest::Readable) {
                Ok(()) => self.doors.push(door),
                Err(error) => return Err((Incoming::Door(door), error)),
            },
            Incoming::Connection(connection) => {
                let copy = match descriptor::duplicate(connection.as_fd()) {
                    Ok(copy) => copy,
                    Err(error) => return Err((Incoming::Connection(connection), error)),
                };
                if let Err((_, error)) = self.add(Source::new(copy)) {
                    return Err((Incoming::Connection(connection), error));
                }
            }
            Incoming::Lane {
                place,
                file,
                connection,
                link,
            } => {
                let made = descriptor::duplicate(file.as_fd())
                    .and_then(|copy| Consumer::new(copy, place))
                    .and_then(|lane| Ok((lane, descriptor::duplicate(connection.as_fd())?)))
                    .and_then(|(lane, copy)| {
                        let mut source = Source::new(copy);
                        source.lane = Some(lane);
                        let link = link
                            .as_ref()
                            .map(|link| descriptor::duplicate(link.as_fd()));
                        source.link = link.transpose()?.map(LinkReader::new);
                        self.add(source).map(drop).map_err(|(_, error)| error)
                    });
                if let Err(error) = made {
                    let incoming = Incoming::Lane {
                        place,
                        file,
                        connection,
                        link,
                    };
                    return Err((incoming, error));
                }
            }
        }
        Ok(())
    }

    /// Its index; or the source again if the kernel will not watch it.
    fn add(&mut self, source: Source) -> std::result::Result<usize, (Box<Source>, Error)> {
        let index = self.free.last().copied().unwrap_or(self.sources.len());
        let token = FIRST_SOURCE + index as u64;
        let watched = source.connection.as_fd();
        if let Err(error) = self.poll.add(watched, token, Interest::Readable) {
            return Err((Box::new(source), error));
        }
        let has_lane = source.lane.is_some();
        match self.free.pop() {
            Some(free) => self.sources[free] = Some(source),
            None => self.sources.push(Some(source)),
        }
        self.live += 1;
        if has_lane {
            self.wake(index);
        }
        self.find_alone();
        Ok(index)
    }

    /// Drops a source; what is to be closed goes to `leftovers`.
    fn remove(&mut self, index: usize, leftovers: &mut Leftovers) {
        let Some(source) = self.sources.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.free.push(index);
        if source.ended {
            self.ended -= 1;
        } else {
            self.poll.remove(source.connection.as_fd());
        }
        self.live -= 1;
        if source.awake {
            self.awake.retain(|other| *other != index);
        }
        let token = FIRST_SOURCE + index as u64;
        if source.queued {
            self.heads.retain(|Reverse((_, other))| *other != token);
        }
        self.find_alone();
        if source.ended && source.link.is_none() {
            // Its queue is known to be empty: closed at once, it makes room for the next one.
            return;
        }
        leftovers.fds.extend(source.into_unknown());
    }

    /// See the module: whether one lane is all there is besides the socket.
    fn find_alone(&mut self) {
        self.alone = None;
        if self.live == 1 && self.doors.is_empty() && self.stranded.is_empty() {
            let alone =
                |source: &Source| source.lane.as_ref().is_some_and(|lane| !lane.is_shared());
            let place = self.sources.iter().position(Option::is_some);
            self.alone = place.filter(|place| self.sources[*place].as_ref().is_some_and(alone));
        }
    }

    fn wake(&mut self, index: usize) {
        if let Some(Some(source)) = self.sources.get_mut(index)
            && !source.awake
            && source.lane.is_some()
        {
            source.awake = true;
            self.awake.push(index);
        }
    }

    fn has_news(&mut self) -> bool {
        if !self.heads.is_empty() {
            return true;
        }
        let sources = &mut self.sources;
        self.awake.iter().any(|index| {
            let source = sources.get_mut(*index).and_then(Option::as_mut);
            source
                .and_then(|source| source.lane.as_mut())
                .is_some_and(Consumer::has_news)
        })
    }

    fn rest(&mut self) -> bool {
        if !self.heads.is_empty() {
            return false;
        }
        let mut quiet = true;
        let sources = &mut self.sources;
        self.awake.retain(|index| {
            let Some(Some(source)) = sources.get_mut(*index) else {
                return false;
            };
            let Some(lane) = &mut source.lane else {
                return false;
            };
            source.awake = !lane.arm();
            source.ring();
            quiet &= !source.awake;
            source.awake
        });
        quiet
    }

    /// One message of that source has been taken: its next one may be a head.
    fn taken(&mut self, next: &Next) {
        match next {
            Next::Primary => {
                self.primary_queued = false;
                self.taken.push(PRIMARY);
            }
            Next::Connection(index) | Next::Lane(index, _) => {
                if let Some(Some(source)) = self.sources.get_mut(*index) {
                    source.queued = false;
                    if source.lane.is_none() {
                        self.taken.push(FIRST_SOURCE + *index as u64);
                    }
                }
            }
        }
        // It was the earliest.
        self.heads.pop();
    }

    fn look(&mut self, primary: BorrowedFd<'_>, leftovers: &mut Leftovers) -> Result<Next> {
        loop {
            match self.look_in_order(primary, leftovers) {
                Ok(Some(next)) => return Ok(next),
                Ok(None) => break,
                // Taking what is there gives room for what could not be had, and so does whoever has ended.
                Err(Error::TooManyHandles(text)) => {
                    self.refresh_lanes(leftovers)?;
                    if let Some(next) = self.earliest(u64::MAX, leftovers)? {
                        return Ok(next);
                    }
                    let before = self.live;
                    self.let_ended_go(leftovers);
                    if self.live == before {
                        return Err(Error::TooManyHandles(text));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(next) = self.earliest(u64::MAX, leftovers)? {
            return Ok(next);
        }
        if self.ended > 0 {
            self.let_ended_go(leftovers);
        }
        if self.primary_ended && self.live == 0 && self.doors.is_empty() {
            if !self.over {
                // Watched again: from now on whoever waits is told of the end, and for ever.
                self.poll.add(primary, PRIMARY, Interest::Readable)?;
                self.over = true;
            }
            return Err(Error::Disconnected);
        }
        Err(Error::Empty)
    }

    /// The earliest message, if it is certain that nothing else was sent before it.
    fn look_in_order(
        &mut self,
        primary: BorrowedFd<'_>,
        leftovers: &mut Leftovers,
    ) -> Result<Option<Next>> {
        // What follows in the sources that were taken from belongs to the last look, too: see the proof.
        let mut work = WORK_A_LOOK;
        let mut outcome = Ok(());
        for token in std::mem::take(&mut self.taken) {
            if let Err(error) = self.read_socket(primary, token, &mut work, leftovers) {
                // The others are looked at all the same: they may give room for this one.
                self.taken.push(token);
                outcome = Err(error);
            }
        }
        outcome?;
        if self.new_door {
            self.open_doors(primary, &mut work, leftovers)?;
        }
        self.refresh_lanes(leftovers)?;
        if let Some(next) = self.earliest(self.horizon, leftovers)? {
            return Ok(Some(next));
        }
        // What is found in the first look and was sent during it is covered by the second.
        for _ in 0..2 {
            let now = clock::now();
            self.look_at_sockets(primary, leftovers)?;
            self.refresh_lanes(leftovers)?;
            self.begin_batch(now);
            if let Some(next) = self.earliest(now, leftovers)? {
                return Ok(Some(next));
            }
            if self.heads.is_empty() {
                break;
            }
        }
        Ok(None)
    }

    /// Everything that is there now belongs to one batch, and what comes later to the next: nobody whose stamps
    /// lie in the past can keep the others waiting for longer.
    fn begin_batch(&mut self, now: u64) {
        self.horizon = now;
        self.taken_alone = 0;
        self.primary_since = 0;
        for source in self.sources.iter_mut().flatten() {
            source.since = 0;
            if let Some(lane) = &source.lane {
                source.seen = lane.seen();
            }
        }
    }

    /// The message with the earliest stamp, if that is not after `limit`.
    fn earliest(&mut self, limit: u64, leftovers: &mut Leftovers) -> Result<Option<Next>> {
        while let Some(Reverse((stamp, token))) = self.heads.peek().copied() {
            if stamp > limit {
                return Ok(None);
            }
            if let Some(next) = self.next_of(token, leftovers)? {
                return Ok(Some(next));
            }
            self.heads.pop();
        }
        Ok(None)
    }

    fn next_of(&mut self, token: u64, leftovers: &mut Leftovers) -> Result<Option<Next>> {
        if token == PRIMARY {
            return Ok(Some(Next::Primary));
        }
        let index = (token - FIRST_SOURCE) as usize;
        let Some(Some(source)) = self.sources.get_mut(index) else {
            return Ok(None);
        };
        let Some(lane) = &mut source.lane else {
            return Ok(Some(Next::Connection(index)));
        };
        match lane.peek() {
            Ok(Some(record)) => Ok(Some(Next::Lane(index, record))),
            Ok(None) => {
                source.queued = false;
                Ok(None)
            }
            Err(error) => {
                self.remove(index, leftovers);
                Err(error)
            }
        }
    }

    /// Puts the first records of lanes that are awake among the heads.
    fn refresh_lanes(&mut self, leftovers: &mut Leftovers) -> Result<()> {
        let mut shared = false;
        for place in 0..self.awake.len() {
            let Some(&index) = self.awake.get(place) else {
                break;
            };
            let Some(Some(source)) = self.sources.get_mut(index) else {
                continue;
            };
            let Some(lane) = &mut source.lane else {
                continue;
            };
            if source.queued {
                // Only how far it is now: that belongs to this batch.
                lane.has_news();
                continue;
            }
            match lane.peek() {
                Ok(Some(record)) => {
                    source.queued = true;
                    let token = FIRST_SOURCE + index as u64;
                    let new = lane.position() >= source.seen;
                    let stamp = not_before(new, self.horizon, record.stamp);
                    self.heads.push(Reverse((stamp, token)));
                }
                Ok(None) => {}
                Err(error) => {
                    self.remove(index, leftovers);
                    return Err(error);
                }
            }
            shared |= lane.is_shared();
        }
        if shared && self.alone.is_some() {
            self.find_alone();
        }
        Ok(())
    }

    /// Sources whose process is gone and whose messages have all been taken.
    fn let_ended_go(&mut self, leftovers: &mut Leftovers) {
        for index in 0..self.sources.len() {
            let done = match &mut self.sources[index] {
                Some(source) if source.ended && !source.queued => match &mut source.lane {
                    // Its last words were published before it went.
                    Some(lane) => !lane.has_news(),
                    None => true,
                },
                _ => false,
            };
            if done {
                self.remove(index, leftovers);
            }
        }
    }

    fn look_at_sockets(
        &mut self,
        primary: BorrowedFd<'_>,
        leftovers: &mut Leftovers,
    ) -> Result<()> {
        let mut work = WORK_A_LOOK;
        let mut ready = std::mem::take(&mut self.ready);
        let most = self.sources.len() + self.doors.len() + 2;
        let outcome = self.poll.ready_into(most, &mut ready);
        let mut outcome = outcome;
        if self.ended > 0 {
            self.let_ended_go(leftovers);
        }
        if outcome.is_ok() {
            // Doors last: a process announces itself there after what it has put elsewhere.
            for token in ready.iter().copied().filter(|token| *token != DOORS) {
                outcome = self.read_socket(primary, token, &mut work, leftovers);
                if outcome.is_err() {
                    break;
                }
            }
            if outcome.is_ok() && (ready.contains(&DOORS) || self.new_door) {
                outcome = self.open_doors(primary, &mut work, leftovers);
            }
            if outcome.is_ok() && self.primary_ended {
                outcome = self.open_doors(primary, &mut work, leftovers);
                if outcome.is_ok() && work > 0 {
                    for door in self.doors.drain(..) {
                        self.poll.remove(door.as_fd());
                    }
                }
            }
        }
        self.ready = ready;
        outcome
    }

    /// Deals with everything in a queue up to its first message.
    fn read_socket(
        &mut self,
        primary: BorrowedFd<'_>,
        token: u64,
        work: &mut usize,
        leftovers: &mut Leftovers,
    ) -> Result<()> {
        let index = token.checked_sub(FIRST_SOURCE).map(|index| index as usize);
        let connection = match index {
            None => None,
            Some(index) => match self.sources.get(index) {
                Some(Some(source)) if !source.queued || source.lane.is_some() => {
                    Some(source.connection.clone())
                }
                _ => return Ok(()),
            },
        };
        if index.is_none() && (self.primary_queued || self.primary_ended) {
            return Ok(());
        }
        let socket = connection.as_ref().map_or(primary, |fd| fd.as_fd());
        while *work > 0 {
            *work -= 1;
            let mut beginning = [0; HEADER_LEN];
            match first_packet(socket, &mut beginning)? {
                First::Nothing => break,
                First::End => {
                    self.poll.remove(socket);
                    match index {
                        None => self.primary_ended = true,
                        Some(index) => {
                            if let Some(Some(source)) = self.sources.get_mut(index) {
                                source.ended = true;
                                self.ended += 1;
                            }
                        }
                    }
                    break;
                }
                First::Bell => socket::discard(socket)?,
                First::Control => self.announcement(socket, index, leftovers)?,
                First::Message(_) | First::Damaged if self.has_lane(index) => {
                    // After its lane nothing else comes by a connection.
                    throw_away(socket, leftovers)?;
                    if let Some(index) = index {
                        self.remove(index, leftovers);
                    }
                    return forged("came beside the lane that it belongs in");
                }
                First::Message(stamp) => {
                    self.queue(index, stamp);
                    break;
                }
                First::Damaged => {
                    self.queue(index, 0);
                    break;
                }
            }
        }
        if let Some(index) = index {
            self.wake(index);
        }
        Ok(())
    }

    /// Deals with what has come by the connection of a lane whose link is not known yet.
    fn read_announcements(
        &mut self,
        index: usize,
        primary: BorrowedFd<'_>,
        leftovers: &mut Leftovers,
    ) -> Result<()> {
        match self.sources.get(index) {
            Some(Some(source)) if source.link.is_none() && !source.ended => {
                let token = FIRST_SOURCE + index as u64;
                self.read_socket(primary, token, &mut { WORK_A_LOOK }, leftovers)
            }
            _ => Ok(()),
        }
    }

    fn has_lane(&self, index: Option<usize>) -> bool {
        let source = index.and_then(|index| self.sources.get(index)?.as_ref());
        source.is_some_and(|source| source.lane.is_some())
    }

    fn queue(&mut self, index: Option<usize>, stamp: u64) {
        let (token, since) = match index {
            None => {
                self.primary_queued = true;
                (PRIMARY, &mut self.primary_since)
            }
            Some(index) => {
                let Some(Some(source)) = self.sources.get_mut(index) else {
                    return;
                };
                source.queued = true;
                (FIRST_SOURCE + index as u64, &mut source.since)
            }
        };
        *since += 1;
        // More than a queue holds: it has come since the last look.
        let stamp = not_before(*since > MOST_IN_A_QUEUE, self.horizon, stamp);
        self.heads.push(Reverse((stamp, token)));
    }

    /// Takes the announcement at the head of a queue. It stays there if there is no room for what it brings.
    fn announcement(
        &mut self,
        socket: BorrowedFd<'_>,
        index: Option<usize>,
        leftovers: &mut Leftovers,
    ) -> Result<()> {
        let (packet, mut fds) = announced(socket, leftovers)?;
        let outcome = self.act_on(&packet, index, &mut fds);
        leftovers.fds.append(&mut fds);
        if matches!(outcome, Ok(()) | Err(Error::Protocol(_))) {
            socket::discard(socket)?;
        }
        outcome
    }

    fn act_on(
        &mut self,
        packet: &[u8],
        index: Option<usize>,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<()> {
        let kind = Header::read(packet)?.kind;
        let duplicate = |fd: &OwnedFd| descriptor::duplicate(fd.as_fd());
        match (kind, &fds[..], index) {
            (PacketKind::Door, [door], _) if self.doors.len() < MOST_DOORS => {
                descriptor::check_listening_socket(door.as_fd())?;
                self.poll.add(door.as_fd(), DOORS, Interest::Readable)?;
                self.doors.extend(fds.pop());
                self.new_door = true;
                self.alone = None;
                Ok(())
            }
            (PacketKind::Lane, [connection, file], None) => {
                descriptor::check_channel_socket(connection.as_fd())?;
                let lane = Consumer::new(duplicate(file)?, control::read_place(packet)?)?;
                let mut source = Source::new(duplicate(connection)?);
                source.lane = Some(lane);
                self.add(source).map(drop).map_err(|(_, error)| error)
            }
            (PacketKind::Lane, [file], Some(index)) => {
                let lane = Consumer::new(duplicate(file)?, control::read_place(packet)?)?;
                match self.sources.get_mut(index) {
                    Some(Some(source)) if source.lane.is_none() => source.lane = Some(lane),
                    _ => return forged("announces a second lane"),
                }
                self.wake(index);
                self.find_alone();
                Ok(())
            }
            (PacketKind::Link, [link], Some(index)) => {
                descriptor::check_channel_socket(link.as_fd())?;
                let link = fds.pop().map(LinkReader::new);
                match self.sources.get_mut(index) {
                    Some(Some(source)) if source.link.is_none() => source.link = link,
                    _ => {
                        fds.extend(link.map(LinkReader::into_socket));
                        return forged("announces a second link");
                    }
                }
                Ok(())
            }
            _ => forged("announces nothing that can be understood"),
        }
    }

    fn open_doors(
        &mut self,
        primary: BorrowedFd<'_>,
        work: &mut usize,
        leftovers: &mut Leftovers,
    ) -> Result<()> {
        while let Some(connection) = self.stranded.pop() {
            self.let_in(connection, primary, work, leftovers)?;
        }
        for place in 0..self.doors.len() {
            while *work > 0 {
                *work -= 1;
                let Some(door) = self.doors.get(place) else {
                    break;
                };
                match door::accept(door) {
                    Ok(Some(connection)) => self.let_in(connection, primary, work, leftovers)?,
                    Ok(None) => break,
                    Err(Error::Protocol(text)) => {
                        let door = self.doors.swap_remove(place);
                        self.poll.remove(door.as_fd());
                        leftovers.fds.push(door);
                        return Err(Error::Protocol(text));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        self.new_door = false;
        Ok(())
    }

    fn let_in(
        &mut self,
        connection: OwnedFd,
        primary: BorrowedFd<'_>,
        work: &mut usize,
        leftovers: &mut Leftovers,
    ) -> Result<()> {
        match self.add(Source::new(connection)) {
            Ok(index) => self.read_socket(primary, FIRST_SOURCE + index as u64, work, leftovers),
            Err((source, error)) => {
                self.stranded.extend(Arc::into_inner(source.connection));
                Err(error)
            }
        }
    }

    /// Tells the producers that nobody will read here any more.
    fn leave(&self, why: Gone) {
        for source in self.sources.iter().flatten() {
            if let Some(lane) = &source.lane {
                match why {
                    Gone::Closed => lane.close(),
                    _ => lane.departed(),
                }
            }
        }
    }
}
