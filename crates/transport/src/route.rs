//! The way of a process's messages to one channel's receiver: the channel's socket, a connection of its own,
//! or a lane.
//!
//! All senders of one channel that a process has made from one another share a route. It begins with the
//! socket: one system call a message, right for a reply that is sent once. A process that sends many messages
//! at a time, large ones, or finds the socket full, opens a lane. While nobody else can send, this process
//! alone fills the socket, counts what it has put there, and opens the lane while there is room to announce it.
//! Before another process gets the end (a clone in a message, a fork), a door is made, by which everybody gets
//! in when the socket is full. So a message always has a place to go.
//!
//! Invariant (order): the messages of one route reach the receiver in the order of their sends. Those in the
//! socket precede the packet that announces the lane or connection, and after that nothing more is sent by
//! the socket but doors. Order between routes is by stamps, see [`crate::intake`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use crate::door;
use crate::end::{End, Gone, Resident};
use crate::error::{Error, Result};
use crate::fd_link::LinkWriter;
use crate::lane::consumer::Place;
use crate::lane::layout::Kind;
use crate::lane::producer::{Producer, Published};
use crate::os::shared::Region;
use crate::os::socket::{self, Sent};
use crate::os::{clock, fork};
use crate::sync::{Lock, Locked};
use crate::wire::control;
use crate::wire::native::{Frame, MAX_INLINE, MAX_PACKET, PacketKind};

/// The kernel's accounting of a small packet, in bytes, and a bit.
const PACKET_COST: usize = 1024;
/// What one process may have unread in the socket, of 208 KiB (net.core.wmem_default) that it holds; the rest is
/// for announcements.
const MOST_OCCUPIED: usize = 120 << 10;
/// What [`Ticket::occupied`] counts in.
const OCCUPIED_UNIT: usize = 1024;
/// This many messages within ten milliseconds, and the process is busy.
const BURST: u32 = 8;
const BURST_NS: u64 = 10_000_000;
/// Of an honest receiver's bells there are few.
const BELLS_AT_ONCE: usize = 256;

/// What became of a message.
#[derive(Debug)]
pub enum Attempt {
    /// It is where the receiver will find it.
    Sent,
    /// There is no room now: wait for the socket.
    SocketFull,
    /// The channel is bounded and full: wait for the receiver's bell on this connection.
    AtCapacity(Arc<OwnedFd>),
}

/// A connection that only this process has.
#[derive(Debug)]
struct Own {
    connection: Arc<OwnedFd>,
    producer: Option<Producer>,
    link: Option<LinkWriter>,
    /// When the other side was last seen to be there.
    looked_at: u64,
    /// A bell could not be rung for want of the kernel's memory: it is rung with the next message.
    owed: bool,
}

#[derive(Debug)]
struct State {
    made_in: u64,
    /// Bytes in the socket at most, by the kernel's accounting, while not shared.
    occupied: usize,
    /// Other processes may have the end.
    shared: bool,
    door: Option<Arc<OwnedFd>>,
    own: Option<Own>,
    burst: u32,
    burst_began: u64,
    had_large: bool,
    /// The receiver has left our connection, which it does for good.
    gone: bool,
    ends: Vec<(u64, Weak<End>)>,
}

/// See the module.
#[derive(Debug)]
pub struct Route {
    state: Lock<State>,
    capacity: u32,
}

/// What another process is told of a route.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Where further connections are made.
    pub door: Option<Arc<OwnedFd>>,
    /// KiB in the socket; 255: others may have put something there.
    pub occupied: u8,
}

/// The `occupied` of an end that is shared.
pub const SHARED: u8 = u8::MAX;

impl Route {
    /// The way of an end that came with that ticket.
    pub fn new(ticket: Ticket, capacity: u32) -> Arc<Route> {
        Arc::new(Route {
            state: Lock::new(State {
                made_in: fork::generation(),
                occupied: usize::from(ticket.occupied) * OCCUPIED_UNIT,
                shared: ticket.occupied == SHARED || ticket.door.is_some(),
                door: ticket.door,
                own: None,
                burst: 0,
                burst_began: 0,
                had_large: false,
                gone: false,
                ends: Vec::new(),
            }),
            capacity,
        })
    }

    /// The most messages of one process that may be undelivered; 0: no limit.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// A further end uses the route.
    pub fn enlist(&self, end: &Arc<End>) {
        let mut state = self.lock();
        state.ends.push((end.id(), Arc::downgrade(end)));
    }

    fn lock(&self) -> Locked<'_, State> {
        let mut state = self.state.lock();
        if state.made_in != fork::generation() {
            state.begin_anew_in_child();
        }
        state
    }

    /// Sends a message that is nothing but bytes, if there is a lane with room for it.
    #[inline]
    pub fn send_plain(&self, payload: &[u8]) -> Result<bool> {
        let mut state = self.lock();
        let Some(own) = &mut state.own else {
            return Ok(false);
        };
        let outcome = own.send_plain(payload);
        state.note(outcome)
    }

    /// Sends `frame`, with the seat if there is one, or says what to wait for. Never waits.
    pub fn send(
        &self,
        primary: BorrowedFd<'_>,
        frame: &Frame<'_>,
        seat: Option<BorrowedFd<'_>>,
    ) -> Result<Attempt> {
        let mut state = self.lock();
        let outcome = self.attempt(&mut state, primary, frame, seat);
        let baton = if self.capacity > 0 {
            settle(&state)
        } else {
            Baton::default()
        };
        let outcome = state.note(outcome);
        drop(state);
        // Without the lock, which is taken again if one of these is the last that is left of an end.
        for end in baton.ends {
            if baton.room {
                end.wake();
            }
        }
        outcome
    }

    fn attempt(
        &self,
        state: &mut State,
        primary: BorrowedFd<'_>,
        frame: &Frame<'_>,
        seat: Option<BorrowedFd<'_>>,
    ) -> Result<Attempt> {
        if state.gone {
            return Err(Error::ReceiverGone);
        }
        let has_lane = |state: &State| state.own.as_ref().is_some_and(|own| own.producer.is_some());
        if seat.is_none()
            && !has_lane(state)
            && (self.capacity > 0 || state.is_busy(primary, frame))
        {
            match state.open_lane(primary, self.capacity) {
                Ok(true) => {}
                Ok(false) if self.capacity > 0 => return Ok(Attempt::SocketFull),
                Ok(false) => {}
                // Without descriptors or memory for a lane, packets do as long as there is room.
                Err(Error::TooManyHandles(_) | Error::BacklogFull(_) | Error::Kernel { .. })
                    if self.capacity == 0 => {}
                Err(error) => return Err(error),
            }
        }
        if has_lane(state) {
            return state.send_by_lane(frame);
        }
        match state.send_by_packet(primary, frame, seat) {
            Ok(Sent::Whole) => return Ok(Attempt::Sent),
            Ok(Sent::WouldBlock) => {}
            // Another holder of the socket has shut it: the door may still be open.
            Err(Error::ReceiverGone)
                if seat.is_none() && state.own.is_none() && state.door.is_some() => {}
            Err(error) => return Err(error),
        }
        if seat.is_some() {
            return Ok(Attempt::SocketFull);
        }
        if state.own.is_none()
            && let Some(door) = state.door.clone()
        {
            state.own = Some(Own::new(door::connect(door.as_fd())?));
            // A process that sends once and ends needs no lane.
            if let Sent::Whole = state.send_by_packet(primary, frame, seat)? {
                return Ok(Attempt::Sent);
            }
        }
        if state.open_lane(primary, self.capacity)? {
            return state.send_by_lane(frame);
        }
        Ok(Attempt::SocketFull)
    }

    /// The receiver is asked to tell of its progress. False if there is room already.
    pub fn arm(&self) -> bool {
        let state = self.lock();
        let producer = state.own.as_ref().and_then(|own| own.producer.as_ref());
        producer.is_none_or(|producer| producer.wait_for_room())
    }

    /// The connection on which a bounded lane's receiver rings when there is room, if there is one.
    pub fn bell(&self) -> Option<Arc<OwnedFd>> {
        let state = self.lock();
        let own = state.own.as_ref()?;
        (self.capacity > 0 && own.producer.is_some()).then(|| own.connection.clone())
    }

    /// Whether a message could be sent now.
    pub fn has_room(&self) -> bool {
        let state = self.lock();
        let producer = state.own.as_ref().and_then(|own| own.producer.as_ref());
        producer.is_none_or(Producer::has_room)
    }

    /// The end leaves for another process inside a message, and perhaps a clone stays. `alone`: it is the only
    /// one here, and goes as the only one.
    pub fn depart(&self, primary: BorrowedFd<'_>, alone: bool) -> Result<Ticket> {
        let mut state = self.lock();
        // Our lane's messages must be told from those of whoever sends next.
        state.share_lane();
        if alone && !state.shared && state.own.is_none() && state.occupied < MOST_OCCUPIED {
            return Ok(Ticket {
                door: None,
                occupied: state.occupied.div_ceil(OCCUPIED_UNIT) as u8,
            });
        }
        if let Err(error) = state.share(primary) {
            match error {
                Error::TooManyHandles(_) => return Err(error),
                // Without a place for a door the others use the socket, and wait when it is full.
                _ => state.shared = true,
            }
        }
        Ok(Ticket {
            door: state.door.clone(),
            occupied: SHARED,
        })
    }

    /// Whether one end uses it here and nobody else has another.
    pub fn is_alone(&self) -> bool {
        let state = self.lock();
        state.ends.len() == 1 && !state.shared
    }

    /// What is under way in this process's lane.
    pub fn statistics(&self) -> Option<LaneStatistics> {
        let state = self.lock();
        let producer = state.own.as_ref()?.producer.as_ref()?;
        Some(LaneStatistics {
            backlog: producer.backlog(),
            memory: producer.memory(),
        })
    }
}

/// Of one lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneStatistics {
    /// Messages not yet taken, as far as the receiver has told.
    pub backlog: u64,
    /// Bytes of memory for unread messages.
    pub memory: u64,
}

/// The ends of a route, and whether those that wait for room should look.
#[derive(Default)]
struct Baton {
    ends: Vec<Arc<End>>,
    room: bool,
}

/// Passes the baton among those who wait for room: whoever took a bell may have left some. The rest
/// is done when the lock is free.
fn settle(state: &State) -> Baton {
    let Some(producer) = state.own.as_ref().and_then(|own| own.producer.as_ref()) else {
        return Baton::default();
    };
    let ends: Vec<Arc<End>> = state
        .ends
        .iter()
        .filter_map(|(_, end)| end.upgrade())
        .collect();
    let waits = |end: &Arc<End>| end.is_attended();
    let room = !ends.iter().any(waits) || producer.has_room() || !producer.wait_for_room();
    // All are given to the caller, because none may be dropped here, under the lock.
    Baton { ends, room }
}

impl Own {
    fn new(connection: OwnedFd) -> Own {
        Own {
            connection: Arc::new(connection),
            producer: None,
            link: None,
            looked_at: 0,
            owed: false,
        }
    }

    /// Rings if the receiver sleeps. What was published stays published, whatever becomes of the bell.
    #[inline]
    fn ring(&mut self, published: Published) -> Result<()> {
        if published.ring || self.owed {
            self.owed = match control::ring(self.connection.as_fd()) {
                Ok(()) => false,
                Err(Error::ReceiverGone) => return Err(Error::ReceiverGone),
                Err(_) => true,
            };
        }
        Ok(())
    }

    #[inline]
    fn send_plain(&mut self, payload: &[u8]) -> Result<bool> {
        if !self.producer.as_ref().is_some_and(Producer::has_room) {
            return Ok(false);
        }
        self.check_alive()?;
        let Some(producer) = &mut self.producer else {
            return Ok(false);
        };
        let copy = |region: &Region, at| region.copy_in(at, payload);
        let published = producer.send(Kind::Plain, payload.len(), copy)?;
        self.ring(published)?;
        Ok(true)
    }

    /// Looks for the receiver's death once a tick; a close it has written into the lane itself.
    #[inline]
    fn check_alive(&mut self) -> Result<()> {
        let tick = clock::tick();
        // A receiver that has not found the lane yet cannot write its close there.
        let unfound = self.producer.as_ref().is_some_and(Producer::may_be_unfound);
        if tick != self.looked_at || unfound {
            if socket::has_hung_up(self.connection.as_fd()) {
                return Err(Error::ReceiverGone);
            }
            self.looked_at = tick;
        }
        Ok(())
    }
}

fn announce_link(connection: BorrowedFd<'_>) -> Result<LinkWriter> {
    let (link, other) = LinkWriter::new()?;
    match control::send(connection, PacketKind::Link, &[other.as_fd()])? {
        Sent::Whole => Ok(link),
        Sent::WouldBlock => Err(Error::TooManyHandles(
            "the message's descriptors do not fit the kernel's socket buffers".into(),
        )),
    }
}

impl State {
    /// After an error that means the receiver has left the lane, there is none.
    #[inline]
    fn note<T>(&mut self, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Err(Error::ReceiverGone) => {
                // A connection of ours ends with the receiver. One that is being killed may still have its socket
                // open: nothing more must go there.
                self.gone |= self.own.is_some();
                self.own = None;
            }
            Err(Error::Protocol(_)) => self.own = None,
            _ => {}
        }
        outcome
    }

    /// In a child everything that is the parent's alone is forgotten.
    fn begin_anew_in_child(&mut self) {
        self.made_in = fork::generation();
        self.own = None;
        self.shared = true;
        self.burst = 0;
    }

    fn is_busy(&mut self, primary: BorrowedFd<'_>, frame: &Frame<'_>) -> bool {
        if frame.len() > MAX_INLINE {
            return std::mem::replace(&mut self.had_large, true);
        }
        if !self.shared || self.own.is_some() {
            let cost = PACKET_COST + 2 * frame.len();
            if self.occupied + cost > MOST_OCCUPIED {
                // As far as we know; perhaps it has been read.
                let socket = self
                    .own
                    .as_ref()
                    .map_or(primary, |own| own.connection.as_fd());
                self.occupied = socket::unread(socket).unwrap_or(usize::MAX / 2);
            }
            if self.occupied + cost > MOST_OCCUPIED {
                return true;
            }
        }
        self.burst >= BURST
    }

    fn count_packet(&mut self, stamp: u64, len: usize) {
        self.occupied = self
            .occupied
            .saturating_add(PACKET_COST + 2 * len.min(MAX_PACKET));
        if stamp.saturating_sub(self.burst_began) > BURST_NS {
            self.burst_began = stamp;
            self.burst = 0;
        }
        self.burst += 1;
    }

    fn send_by_packet(
        &mut self,
        primary: BorrowedFd<'_>,
        frame: &Frame<'_>,
        seat: Option<BorrowedFd<'_>>,
    ) -> Result<Sent> {
        let stamp = clock::now();
        let socket = self
            .own
            .as_ref()
            .map_or(primary, |own| own.connection.as_fd());
        let sent = frame.send(socket, stamp, seat)?;
        if sent == Sent::Whole {
            self.count_packet(stamp, frame.len());
        }
        Ok(sent)
    }

    fn send_by_lane(&mut self, frame: &Frame<'_>) -> Result<Attempt> {
        let Some(own) = &mut self.own else {
            return Err(Error::ReceiverGone);
        };
        own.check_alive()?;
        let Some(producer) = &mut own.producer else {
            return Err(Error::ReceiverGone);
        };
        let connection = &own.connection;
        if !producer.has_room() {
            // Bells that were rung meanwhile are heard.
            socket::discard_all(connection.as_fd(), BELLS_AT_ONCE)?;
            if !producer.has_room() {
                return Ok(Attempt::AtCapacity(connection.clone()));
            }
        }
        let fds = frame.link_fds();
        let published = if let Some(payload) = frame.plain() {
            producer.send(Kind::Plain, payload.len(), |region, at| {
                region.copy_in(at, payload);
            })?
        } else if fds.is_empty() {
            producer.send(Kind::Framed, frame.len(), |region, at| {
                frame.write(region, at, 0);
            })?
        } else {
            // Room first: descriptors that are on their way cannot be called back.
            let moved = producer.make_room(frame.len())?;
            if own.link.is_none() {
                own.link = Some(announce_link(connection.as_fd())?);
            }
            let Some(link) = &mut own.link else {
                return Err(Error::ReceiverGone);
            };
            let ticket = link.send(&fds)?;
            let sent = producer.send(Kind::Framed, frame.len(), |region, at| {
                frame.write(region, at, ticket);
            })?;
            Published {
                ring: moved.ring || sent.ring,
            }
        };
        own.ring(published)?;
        Ok(Attempt::Sent)
    }

    /// False if there is no room to announce it.
    fn open_lane(&mut self, primary: BorrowedFd<'_>, capacity: u32) -> Result<bool> {
        let producer = Producer::new(capacity, self.shared)?;
        let (offset, len) = producer.first_ring();
        let place = Place {
            offset,
            len,
            start: 0,
            read: 0,
            taken: 0,
            // Everything that was sent before has an earlier stamp.
            base: clock::now(),
            bounded: capacity > 0,
            pinned: false,
            once: false,
        };
        if self.own.is_none() {
            let (mine, other) = socket::duplex_pair()?;
            let fds = [other.as_fd(), producer.file()];
            match control::send_place(primary, PacketKind::Lane, &place, &fds) {
                Ok(Sent::Whole) => {
                    let mut own = Own::new(mine);
                    own.producer = Some(producer);
                    self.own = Some(own);
                    return Ok(true);
                }
                Ok(Sent::WouldBlock) | Err(Error::ReceiverGone) if self.door.is_some() => {}
                Ok(Sent::WouldBlock) => return Ok(false),
                Err(error) => return Err(error),
            }
            if let Some(door) = &self.door {
                self.own = Some(Own::new(door::connect(door.as_fd())?));
            }
        }
        let Some(own) = &mut self.own else {
            return Ok(false);
        };
        let fds = [producer.file()];
        let sent = control::send_place(own.connection.as_fd(), PacketKind::Lane, &place, &fds)?;
        if sent == Sent::Whole {
            own.producer = Some(producer);
            return Ok(true);
        }
        Ok(false)
    }

    fn share_lane(&mut self) {
        if let Some(producer) = self.own.as_mut().and_then(|own| own.producer.as_mut()) {
            producer.share();
        }
    }

    /// Other processes will have the end: from now on there is a door.
    fn share(&mut self, primary: BorrowedFd<'_>) -> Result<()> {
        self.share_lane();
        if self.shared {
            return Ok(());
        }
        let (listening, place) = door::make()?;
        let fds = [listening.as_fd()];
        let sent = match control::send(primary, PacketKind::Door, &fds) {
            // Our own connection leads to the same receiver.
            Ok(Sent::WouldBlock) => match &self.own {
                Some(own) => control::send(own.connection.as_fd(), PacketKind::Door, &fds),
                None => Ok(Sent::WouldBlock),
            },
            outcome => outcome,
        };
        match sent {
            Ok(Sent::Whole) => self.door = Some(Arc::new(place)),
            // Nobody is there to send to: the others will find out.
            Ok(Sent::WouldBlock) | Err(Error::ReceiverGone) => {}
            Err(error) => return Err(error),
        }
        self.shared = true;
        Ok(())
    }
}

impl Resident for Route {
    fn left(&self, end: u64, _why: Gone) {
        let mut state = self.state.lock();
        state.ends.retain(|(id, _)| *id != end);
        if state.ends.is_empty() {
            // The receiver sees the lane's connection end, and reads what is there first.
            let (own, door) = (state.own.take(), state.door.take());
            drop(state);
            drop((own, door));
        }
    }

    fn before_fork(&self, socket: BorrowedFd<'_>) {
        let mut state = self.state.lock();
        if state.made_in == fork::generation() {
            // Best effort: without descriptors or memory the child shares the socket alone.
            let _ = state.share(socket);
            state.shared = true;
        }
    }

    fn after_fork_in_child(&self) {
        drop(self.lock());
    }
}
