//! All sources of a receiver that has more than its socket, and the order in which they are taken.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::door;
use crate::end::Gone;
use crate::error::{Error, Result};
use crate::fd_link::LinkReader;
use crate::intake::queue::{First, announced, first_packet, throw_away};
use crate::intake::source::Source;
use crate::intake::{MOST_ALONE, Next, Row, WORK_A_LOOK};
use crate::lane::consumer::Consumer;
use crate::os::descriptor::{self, Leftovers};
use crate::os::poll::{Epoll, Interest};
use crate::os::{clock, socket};
use crate::wire::control;
use crate::wire::luggage::Incoming;
use crate::wire::native::{HEADER_LEN, Header, PacketKind, forged};

/// Packets; a socket of the usual size holds 278.
const MOST_IN_A_QUEUE: u32 = 1024;
const MOST_DOORS: usize = 16;

const PRIMARY: u64 = 0;
const DOORS: u64 = 1;
const FIRST_SOURCE: u64 = 2;

/// More than the socket.
#[derive(Debug)]
pub(super) struct Many {
    pub(super) poll: Arc<Epoll>,
    pub(super) primary_ended: bool,
    /// The stream has ended.
    pub(super) over: bool,
    pub(super) primary_queued: bool,
    /// Packets taken from the socket since the last look.
    pub(super) primary_since: u32,
    pub(super) doors: Vec<OwnedFd>,
    /// A door has been announced and not yet been looked at.
    pub(super) new_door: bool,
    /// Accepted, and not yet among the sources for want of the kernel's memory.
    pub(super) stranded: Vec<OwnedFd>,
    pub(super) sources: Vec<Option<Source>>,
    /// Free places among the sources.
    pub(super) free: Vec<usize>,
    /// Queues whose first message has been taken, to be looked at before anything else is.
    pub(super) taken: Vec<u64>,
    pub(super) live: usize,
    /// Of these, how many have hung up.
    pub(super) ended: usize,
    /// Lanes that are awake.
    pub(super) awake: Vec<usize>,
    /// Stamps and tokens of first messages, the earliest at the top. Unless `stale`, every lane whose next record
    /// belongs to the batch is here with it.
    pub(super) heads: BinaryHeap<Reverse<(u64, u64)>>,
    /// A lane may have a record of the batch that is not among the heads.
    pub(super) stale: bool,
    /// The lane that is first among the heads, if messages of it have been taken since.
    pub(super) behind: Option<usize>,
    pub(super) horizon: u64,
    /// A lane on its own, see the module.
    pub(super) alone: Option<usize>,
    /// Messages taken from it since the last look.
    pub(super) taken_alone: u32,
    pub(super) ready: Vec<u64>,
}

/// The stamp of a message. One that was not there when the horizon was looked for is of after that, whatever its
/// sender says: it had not been sent then.
pub(super) fn not_before(new: bool, horizon: u64, stamp: u64) -> u64 {
    if new { stamp.max(horizon + 1) } else { stamp }
}

impl Many {
    /// A receiver's sources, of which there is only the socket yet.
    pub(super) fn new(primary: BorrowedFd<'_>) -> Result<Many> {
        let poll = Arc::new(Epoll::new()?);
        poll.add(primary, PRIMARY, Interest::Readable)?;
        Ok(Many {
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
            stale: false,
            behind: None,
            horizon: 0,
            alone: None,
            taken_alone: 0,
            ready: Vec::new(),
        })
    }

    /// Adds what came with the receiver; gives it back if that fails.
    pub(super) fn admit(
        &mut self,
        incoming: Incoming,
    ) -> std::result::Result<(), (Incoming, Error)> {
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
                        source.set_lane(lane);
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
    pub(super) fn add(
        &mut self,
        source: Source,
    ) -> std::result::Result<usize, (Box<Source>, Error)> {
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
    pub(super) fn remove(&mut self, index: usize, leftovers: &mut Leftovers) {
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
        leftovers.spent.extend(source.into_unknown());
    }

    /// See the module: whether one lane is all there is besides the socket.
    pub(super) fn find_alone(&mut self) {
        self.alone = None;
        if self.live == 1 && self.doors.is_empty() && self.stranded.is_empty() {
            let alone =
                |source: &Source| source.lane.as_ref().is_some_and(|lane| !lane.is_shared());
            let place = self.sources.iter().position(Option::is_some);
            self.alone = place.filter(|place| self.sources[*place].as_ref().is_some_and(alone));
        }
    }

    pub(super) fn wake(&mut self, index: usize) {
        if let Some(Some(source)) = self.sources.get_mut(index)
            && !source.awake
            && source.lane.is_some()
        {
            source.awake = true;
            self.awake.push(index);
            self.stale = true;
        }
    }

    /// The lane that needs no look at anything else: it is alone, or its next message is the earliest of the batch.
    /// Then it may go as far as the batch does, and up to the stamp of the message that is first elsewhere.
    #[inline]
    pub(super) fn row(&mut self, most: u32) -> Option<Row<'_>> {
        if let Some(index) = self.alone {
            let source = self.sources.get_mut(index)?.as_mut()?;
            if source.queued {
                return None;
            }
            // What it gives is not compared with the heads, and what follows is not among them.
            self.stale = true;
            return Some(Row {
                most: most.min(MOST_ALONE.saturating_sub(self.taken_alone)),
                index,
                alone: true,
                seen: source.seen,
                until: self.horizon,
                source,
            });
        }
        if self.stale || self.new_door || !self.taken.is_empty() {
            return None;
        }
        let Reverse((stamp, token)) = *self.heads.peek()?;
        if stamp > self.horizon {
            return None;
        }
        let index = token.checked_sub(FIRST_SOURCE)? as usize;
        // In a binary heap, the second is one of the two below the first.
        let below = self.heads.as_slice().iter().skip(1).take(2);
        let second = below.map(|Reverse((stamp, _))| *stamp).min();
        let source = self.sources.get_mut(index)?.as_mut()?;
        Some(Row {
            most,
            index,
            alone: false,
            seen: source.seen,
            until: second.unwrap_or(u64::MAX).min(self.horizon),
            source,
        })
    }

    /// Puts the next message of the lane that is first among the heads in the place of those that have been taken, if
    /// it belongs to the same batch. Nothing is put among the heads before that.
    #[inline]
    pub(super) fn catch_up(&mut self) {
        let Some(index) = self.behind.take() else {
            return;
        };
        let token = FIRST_SOURCE + index as u64;
        let (Some(Some(source)), Some(mut top)) =
            (self.sources.get_mut(index), self.heads.peek_mut())
        else {
            return;
        };
        let Some(lane) = source.lane.as_mut().filter(|_| top.0.1 == token) else {
            return;
        };
        match lane.peek() {
            // Read on without the heads.
            _ if self.alone == Some(index) => self.stale = true,
            Ok(Some(record)) if lane.position() < source.seen => {
                top.0.0 = record.stamp;
                return;
            }
            // Whoever takes it is told.
            Err(_) => return,
            Ok(_) => {}
        }
        source.queued = false;
        PeekMut::pop(top);
    }

    pub(super) fn has_news(&mut self) -> bool {
        self.catch_up();
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

    /// Makes sure that the descriptors tell of what comes next; false if something is here already.
    pub(super) fn rest(&mut self) -> bool {
        self.catch_up();
        // With the last message taken, the end of the stream is here, of which no descriptor tells any more.
        let has_ended = self.primary_ended && self.ended == self.live && !self.over;
        if has_ended || !self.heads.is_empty() {
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
    pub(super) fn taken(&mut self, next: &Next) {
        match next {
            Next::Lane(index, _) => {
                self.behind = Some(*index);
                return self.catch_up();
            }
            Next::Primary => {
                self.primary_queued = false;
                self.taken.push(PRIMARY);
            }
            Next::Connection(index) => {
                if let Some(Some(source)) = self.sources.get_mut(*index) {
                    source.queued = false;
                    self.taken.push(FIRST_SOURCE + *index as u64);
                }
            }
        }
        // It was the earliest.
        self.heads.pop();
    }

    pub(super) fn look(
        &mut self,
        primary: BorrowedFd<'_>,
        leftovers: &mut Leftovers,
    ) -> Result<Next> {
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
    pub(super) fn look_in_order(
        &mut self,
        primary: BorrowedFd<'_>,
        leftovers: &mut Leftovers,
    ) -> Result<Option<Next>> {
        self.catch_up();
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
        if self.stale && self.has_rest() {
            self.refresh_lanes(leftovers)?;
        }
        // A lane that was alone for long enough is told from the others by a new look, also within a batch. But not
        // if something else waits for the end of the batch: with a new look for every so many messages there is none.
        if (self.taken_alone < MOST_ALONE || self.heads.len() > 1)
            && let Some(next) = self.earliest(self.horizon, leftovers)?
        {
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

    /// Whether something of the last batch may still be there.
    fn has_rest(&self) -> bool {
        let unread = |index: &usize| {
            let source = self.sources.get(*index).and_then(Option::as_ref);
            source.is_some_and(|source| {
                let lane = source.lane.as_ref();
                lane.is_some_and(|lane| lane.position() < source.seen)
            })
        };
        !self.heads.is_empty() || self.awake.iter().any(unread)
    }

    /// Everything that is there now belongs to one batch, and what comes later to the next: nobody whose stamps
    /// lie in the past can keep the others waiting for longer.
    pub(super) fn begin_batch(&mut self, now: u64) {
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
    pub(super) fn earliest(
        &mut self,
        limit: u64,
        leftovers: &mut Leftovers,
    ) -> Result<Option<Next>> {
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

    pub(super) fn next_of(
        &mut self,
        token: u64,
        leftovers: &mut Leftovers,
    ) -> Result<Option<Next>> {
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
    pub(super) fn refresh_lanes(&mut self, leftovers: &mut Leftovers) -> Result<()> {
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
            // How far it is now belongs to this batch, whatever of it was known before.
            lane.has_news();
            if source.queued {
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
        self.stale = false;
        Ok(())
    }

    /// Sources whose process is gone and whose messages have all been taken.
    pub(super) fn let_ended_go(&mut self, leftovers: &mut Leftovers) {
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

    pub(super) fn look_at_sockets(
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
    pub(super) fn read_socket(
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
    pub(super) fn read_announcements(
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

    pub(super) fn has_lane(&self, index: Option<usize>) -> bool {
        let source = index.and_then(|index| self.sources.get(index)?.as_ref());
        source.is_some_and(|source| source.lane.is_some())
    }

    pub(super) fn queue(&mut self, index: Option<usize>, stamp: u64) {
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
    pub(super) fn announcement(
        &mut self,
        socket: BorrowedFd<'_>,
        index: Option<usize>,
        leftovers: &mut Leftovers,
    ) -> Result<()> {
        let (packet, mut fds) = announced(socket, leftovers)?;
        let outcome = self.act_on(&packet, index, &mut fds);
        leftovers.spent.append(&mut fds);
        if matches!(outcome, Ok(()) | Err(Error::Protocol(_))) {
            socket::discard(socket)?;
        }
        outcome
    }

    pub(super) fn act_on(
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
                source.set_lane(lane);
                self.add(source).map(drop).map_err(|(_, error)| error)
            }
            (PacketKind::Lane, [file], Some(index)) => {
                let lane = Consumer::new(duplicate(file)?, control::read_place(packet)?)?;
                match self.sources.get_mut(index) {
                    Some(Some(source)) if source.lane.is_none() => source.set_lane(lane),
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

    pub(super) fn open_doors(
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
                        leftovers.spent.push(door);
                        return Err(Error::Protocol(text));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        self.new_door = false;
        Ok(())
    }

    pub(super) fn let_in(
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
    pub(super) fn leave(&self, why: Gone) {
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
