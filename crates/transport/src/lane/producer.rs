//! The writing side of a lane.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, Result};
use crate::lane::budget;
use crate::lane::layout::{
    ALIGNED_FROM, ALIGNMENT, CLOSED, FAREWELL, FLAGS, HEAD, HEADER_LEN, Kind, MAX_BODY, ONCE, PAGE,
    PINNED, PRODUCER, RECORD_HEADER, SENT, SHARED, SWITCH_LEN, TAIL, TAKEN, UNIT, WAITER, WAITING,
    pack, record_len,
};
use crate::lane::sizes::{
    CHUNK, FIRST_RING, LARGE_FROM, LARGEST_OVERFLOW, MOST_PATIENCE_NS, PATIENCE_NS, SLIDE,
    SMALLEST_CHUNK, SMALLEST_OVERFLOW,
};
use crate::os::shared::Region;
use crate::os::{clock, memory, system};
use crate::sync::atomic::Ordering;

#[derive(Debug)]
struct Ring {
    region: Region,
    offset: u64,
    /// What the lane had published when this ring was entered.
    start: u64,
    /// Bytes from its beginning that have pages.
    ready: usize,
}

impl Ring {
    fn len(&self) -> u64 {
        self.region.len() as u64
    }

    fn position(&self, tail: u64) -> usize {
        ((tail - self.start) % self.len()) as usize
    }
}

/// The ring that is used over and over, while messages go through another one.
#[derive(Debug)]
struct Home {
    ring: Ring,
    /// It is empty once the consumer has come this far.
    left_at: u64,
}

/// Where a record goes in the ring that is used over and over: so many bytes are skipped, up to the ring's end,
#[derive(Clone, Copy, Debug, Default)]
struct Gap {
    rest: usize,
    /// and then so many from its start on.
    slide: usize,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Published {
    /// The consumer sleeps: it must be rung.
    pub ring: bool,
}

/// The writing side. Its owner sees to it that one thread at a time uses it.
#[derive(Debug)]
pub struct Producer {
    file: OwnedFd,
    header: Region,
    ring: Ring,
    home: Option<Home>,
    /// The file's size.
    end: u64,
    /// What has been published: the truth of which the shared word is the announcement.
    tail: u64,
    /// Written after the tail and not yet published: a SKIP or a SWITCH.
    pending: u64,
    /// The consumer's progress as last seen.
    head: u64,
    sent: u64,
    capacity: u64,
    overflow: usize,
    stamped: bool,
}

impl Producer {
    /// A fresh lane. `capacity` is the most messages that may be under way, 0 for no limit; `shared` says
    /// that other processes may send on the same channel.
    pub fn new(capacity: u32, shared: bool) -> Result<Producer> {
        let file = memory::create_growing("ipc-channel-lane")?;
        let end = (HEADER_LEN + FIRST_RING) as u64;
        memory::grow(file.as_fd(), end)?;
        memory::allocate(file.as_fd(), 0, HEADER_LEN as u64)?;
        let header = Region::map(file.as_fd(), 0, HEADER_LEN)?;
        header
            .word(PRODUCER)
            .store(std::process::id().into(), Ordering::Relaxed);
        if shared {
            header.word(TAIL).store(SHARED, Ordering::Relaxed);
        }
        let ring = Ring {
            region: Region::map(file.as_fd(), HEADER_LEN as u64, FIRST_RING)?,
            offset: HEADER_LEN as u64,
            start: 0,
            ready: 0,
        };
        Ok(Producer {
            file,
            header,
            ring,
            home: None,
            end,
            tail: 0,
            pending: 0,
            head: 0,
            sent: 0,
            capacity: capacity.into(),
            overflow: 0,
            stamped: shared,
        })
    }

    /// The memory file, for the consumer.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Where the first ring is, and its length.
    pub fn first_ring(&self) -> (u64, u64) {
        (self.ring.offset, self.ring.len())
    }

    /// From now on other processes may send, and every record is stamped.
    pub fn share(&mut self) {
        if !self.stamped {
            self.stamped = true;
            self.header.word(TAIL).fetch_or(SHARED, Ordering::SeqCst);
        }
    }

    /// Whether the consumer may not have seen the lane yet: it is new, and nothing of it is known to be read.
    #[inline]
    pub fn may_be_unfound(&self) -> bool {
        const NEW: u64 = 4096;
        self.sent < NEW && self.head == 0 && self.seen_head() == 0
    }

    /// Whether the consumer closed its end, as far as the shared word tells.
    pub fn is_closed(&self) -> bool {
        self.header.word(TAIL).load(Ordering::Acquire) & CLOSED != 0
    }

    /// Whether a bounded lane has room for one more message.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.capacity == 0 || self.backlog() < self.capacity
    }

    /// Messages published and not yet taken. Exact for bounded lanes; for others the consumer's word is as
    /// of its last announcement.
    pub fn backlog(&self) -> u64 {
        let taken = self.header.word(TAKEN).load(Ordering::Acquire) >> 1;
        self.sent.saturating_sub(taken)
    }

    /// Bytes of memory that the lane has now, as the kernel counts them: also what is unread in rings that were left.
    pub fn memory(&self) -> u64 {
        memory::allocated(self.file.as_fd()).unwrap_or(0)
    }

    /// Asks the consumer of a bounded lane to ring at its next step. False if there is room already.
    pub fn wait_for_room(&self) -> bool {
        // One comes first, the consumer's addition or this: either it sees the flag, or we its addition.
        let taken = self.header.word(TAKEN).fetch_or(WAITER, Ordering::SeqCst) >> 1;
        self.sent.saturating_sub(taken) >= self.capacity
    }

    /// Makes room for a record with a body of `len` bytes, so that a [`Producer::send`] of it right afterwards
    /// cannot fail for want of memory.
    pub fn make_room(&mut self, len: usize) -> Result<Published> {
        if len > MAX_BODY {
            return Err(Error::kernel("layout", rustix::io::Errno::TOOBIG));
        }
        self.reserve(record_len(ALIGNMENT, len))?;
        if self.pending == 0 {
            return Ok(Published { ring: false });
        }
        self.publish(0)
    }

    /// Writes one record and publishes it. `fill` writes the body, of `len` bytes, and nothing is published
    /// before it has returned. Waits for a consumer at work for a few tens of microseconds at most, and for a
    /// large message no longer than fresh memory for it would take.
    ///
    /// [`Error::BacklogFull`] if there is no memory for it, [`Error::ReceiverGone`] if nobody will take it;
    /// nothing was sent then.
    #[inline]
    pub fn send(
        &mut self,
        kind: Kind,
        len: usize,
        fill: impl FnOnce(&Region, usize),
    ) -> Result<Published> {
        if len > MAX_BODY {
            return Err(Error::kernel("layout", rustix::io::Errno::TOOBIG));
        }
        let room = record_len(if len < ALIGNED_FROM { 0 } else { ALIGNMENT }, len);
        self.reserve(room)?;
        let at = self.ring.position(self.tail + self.pending);
        let padding = if len < ALIGNED_FROM {
            0
        } else {
            (ALIGNMENT - (at + RECORD_HEADER) % ALIGNMENT) % ALIGNMENT
        };
        let total = record_len(padding, len);
        let region = &self.ring.region;
        region
            .word(at)
            .store(pack(kind, padding, len), Ordering::Relaxed);
        if self.stamped {
            region.word(at + 8).store(clock::now(), Ordering::Relaxed);
        } else {
            region.word(at + 8).store(0, Ordering::Relaxed);
        }
        fill(region, at + RECORD_HEADER + padding);
        self.sent += 1;
        self.header.word(SENT).store(self.sent, Ordering::Relaxed);
        self.publish(total as u64)
    }

    #[inline]
    fn publish(&mut self, written: u64) -> Result<Published> {
        let step = self.pending + written;
        let word = self.header.word(TAIL);
        let before = word.fetch_add(step, Ordering::SeqCst);
        if before & !FLAGS != self.tail {
            return Err(damaged());
        }
        self.tail += step;
        self.pending = 0;
        if before & (CLOSED | WAITING) == 0 {
            return Ok(Published { ring: false });
        }
        if before & CLOSED != 0 {
            return Err(Error::ReceiverGone);
        }
        word.fetch_and(!WAITING, Ordering::SeqCst);
        Ok(Published { ring: true })
    }

    /// Makes sure that `room` bytes can be written at the tail, one after the other, and a SWITCH after them.
    #[inline]
    fn reserve(&mut self, room: usize) -> Result<()> {
        if self.home.is_none() {
            let ring = &self.ring;
            let at = ring.position(self.tail);
            let used = self.tail - self.head.max(ring.start);
            let end = at + room + SWITCH_LEN;
            if end <= ring.ready && used + (room + SWITCH_LEN) as u64 <= ring.len() {
                return Ok(());
            }
        }
        self.reserve_slowly(room)
    }

    #[cold]
    fn reserve_slowly(&mut self, room: usize) -> Result<()> {
        self.look_at_head()?;
        if self.home.is_some() {
            return self.reserve_in_overflow(room);
        }
        if self.ring.region.len() < home_len(room) {
            return self.move_home(room);
        }
        let mut until = 0;
        loop {
            let gap = self.fits(room);
            let costs_pages = gap.is_none_or(|gap| {
                room >= LARGE_FROM && !self.is_ready(gap, room) && self.restart(room).is_some()
            });
            // A consumer at work gets a moment: fresh memory costs page faults.
            if costs_pages && !self.consumer_sleeps() && system::has_several_cores() {
                let now = clock::now();
                if until == 0 {
                    until = now + patience(room);
                }
                if now <= until {
                    std::hint::spin_loop();
                    self.look_at_head()?;
                    continue;
                }
            }
            let Some(gap) = gap else {
                break;
            };
            self.skip(gap.rest);
            self.skip(gap.slide);
            return self.make_ready(room);
        }
        self.overflow_for(room)
    }

    /// Whether `room` fits the ring that is used over and over, and where.
    fn fits(&self, room: usize) -> Option<Gap> {
        let ring = &self.ring;
        let rest = ring.region.len() - ring.position(self.tail);
        let used = self.tail - self.head.max(ring.start);
        if used == 0
            && room >= ALIGNED_FROM
            && let Some(slide) = self.restart(room)
        {
            return Some(Gap { rest, slide });
        }
        let rest = if room + SWITCH_LEN > rest { rest } else { 0 };
        let needed = rest + room + SWITCH_LEN;
        (used + needed as u64 <= ring.len()).then_some(Gap { rest, slide: 0 })
    }

    /// Where `room` fits between the start of the ring and its tail, if that is possible once everything there has been
    /// read and let go: what has been used before has pages, and may be in the cache still. It ends before the tail,
    /// where the SKIP is that leads there.
    fn restart(&self, room: usize) -> Option<usize> {
        let before = self
            .ring
            .position(self.tail)
            .checked_sub(room + SWITCH_LEN)?;
        Some(if room < LARGE_FROM {
            0
        } else {
            before.min(SLIDE) / UNIT as usize * UNIT as usize
        })
    }

    /// Whether all of that place has pages.
    fn is_ready(&self, gap: Gap, room: usize) -> bool {
        let at = if gap.rest > 0 {
            gap.slide
        } else {
            self.ring.position(self.tail)
        };
        at + room + SWITCH_LEN <= self.ring.ready
    }

    fn skip(&mut self, len: usize) {
        if len > 0 {
            let at = self.ring.position(self.tail + self.pending);
            let word = pack(Kind::Skip, 0, len - RECORD_HEADER);
            self.ring.region.word(at).store(word, Ordering::Relaxed);
            self.pending += len as u64;
        }
    }

    /// Makes pages for `room` bytes and a SWITCH at the place where the next record goes.
    fn make_ready(&mut self, room: usize) -> Result<()> {
        let needed = self.ring.position(self.tail + self.pending) + room + SWITCH_LEN;
        let outcome = allocate(&self.file, &mut self.ring, needed);
        if outcome.is_err() {
            self.pending = 0;
        }
        outcome
    }

    fn reserve_in_overflow(&mut self, room: usize) -> Result<()> {
        // Back as soon as the consumer has left it and what it has not read yet would have had a place there. The
        // rest of this ring is not used then: it has no pages.
        if let Some(home) = &self.home
            && self.head >= home.left_at
            && self.tail - self.head <= home.ring.len() / 2
        {
            let pinned = self.header.word(TAIL).load(Ordering::SeqCst) & PINNED != 0;
            if home.ring.region.len() >= home_len(room) && !pinned {
                return self.return_home(room);
            }
            let left = self.home.take();
            if let Err(error) = self.move_home(room) {
                self.home = left;
                return Err(error);
            }
            if let Some(home) = left.filter(|_| !pinned) {
                // Nobody looks there any more.
                memory::release(self.file.as_fd(), home.ring.offset, home.ring.len());
            }
            self.header.word(TAIL).fetch_and(!PINNED, Ordering::SeqCst);
            return Ok(());
        }
        let at = (self.tail - self.ring.start) as usize;
        let needed = at + room + SWITCH_LEN;
        if needed <= self.ring.ready {
            return Ok(());
        }
        if needed <= self.ring.region.len() {
            let held = self.tail - self.head;
            budget::admit(held, CHUNK as u64)?;
            return self.make_ready(room);
        }
        self.overflow_for(room)
    }

    /// Goes on in a fresh ring that is to be used over and over.
    fn move_home(&mut self, room: usize) -> Result<()> {
        budget::admit(self.tail - self.head, room as u64)?;
        self.overflow = 0;
        self.enter(home_len(room), FAREWELL, room)
    }

    /// Goes on in a fresh ring, used once.
    fn overflow_for(&mut self, room: usize) -> Result<()> {
        budget::admit(self.tail - self.head, room.max(CHUNK) as u64)?;
        self.overflow = (self.overflow * 2).clamp(SMALLEST_OVERFLOW, LARGEST_OVERFLOW);
        let len = self
            .overflow
            .max((room + SWITCH_LEN).next_multiple_of(CHUNK));
        let flags = if self.home.is_some() { FAREWELL } else { 0 };
        self.enter(len, ONCE | flags, room)
    }

    /// Makes a ring of `len` bytes at the file's end, with pages for `room`, and a SWITCH to it.
    fn enter(&mut self, len: usize, flags: u64, room: usize) -> Result<()> {
        let offset = self.end;
        // Refused only if the other side has made the file longer.
        memory::grow(self.file.as_fd(), offset + len as u64).map_err(|_| damaged())?;
        self.end = offset + len as u64;
        let mut ring = Ring {
            region: Region::map(self.file.as_fd(), offset, len)?,
            offset,
            start: 0,
            ready: 0,
        };
        let slide = if flags & ONCE == 0 {
            slide(room, len)
        } else {
            0
        };
        allocate(&self.file, &mut ring, slide + room + SWITCH_LEN)?;
        self.switch(&ring, flags);
        ring.start = self.tail + self.pending;
        let left = std::mem::replace(&mut self.ring, ring);
        self.skip(slide);
        if flags & FAREWELL == 0 {
            self.home = Some(Home {
                ring: left,
                left_at: self.tail + self.pending,
            });
        }
        Ok(())
    }

    fn return_home(&mut self, room: usize) -> Result<()> {
        let Some(mut home) = self.home.take() else {
            return Ok(());
        };
        let slide = slide(room, home.ring.region.len());
        if let Err(error) = allocate(&self.file, &mut home.ring, slide + room + SWITCH_LEN) {
            self.home = Some(home);
            return Err(error);
        }
        self.overflow = 0;
        self.switch(&home.ring, FAREWELL);
        home.ring.start = self.tail + self.pending;
        self.ring = home.ring;
        self.skip(slide);
        Ok(())
    }

    /// Writes a SWITCH at the tail; every ring keeps room for one.
    fn switch(&mut self, to: &Ring, flags: u64) {
        let at = self.ring.position(self.tail);
        let region = &self.ring.region;
        region
            .word(at)
            .store(pack(Kind::Switch, 0, 32), Ordering::Relaxed);
        let words = [to.offset, to.len(), flags, 0];
        for (index, word) in words.into_iter().enumerate() {
            let place = region.word(at + RECORD_HEADER + 8 * index);
            place.store(word, Ordering::Relaxed);
        }
        self.pending = SWITCH_LEN as u64;
    }

    fn seen_head(&self) -> u64 {
        self.header.word(HEAD).load(Ordering::Acquire)
    }

    /// Reads the consumer's progress. It may come late, but not from beyond the tail.
    fn look_at_head(&mut self) -> Result<()> {
        let head = self.seen_head();
        if head > self.tail || !head.is_multiple_of(UNIT) {
            return Err(damaged());
        }
        self.head = self.head.max(head);
        Ok(())
    }

    fn consumer_sleeps(&self) -> bool {
        self.header.word(TAIL).load(Ordering::Relaxed) & WAITING != 0
    }
}

/// How long a full ring is given to a consumer at work, in nanoseconds: not longer than it takes to make the pages
/// of a fresh one, which for large messages is the larger part of sending them.
fn patience(room: usize) -> u64 {
    const NS_A_KIB: u64 = 256;
    PATIENCE_NS + ((room as u64 >> 10) * NS_A_KIB).min(MOST_PATIENCE_NS)
}

/// What is left free at the start of a ring of `len` bytes before a first message that needs `room`.
fn slide(room: usize, len: usize) -> usize {
    let fits = SLIDE + room + SWITCH_LEN <= len;
    if room >= LARGE_FROM && fits { SLIDE } else { 0 }
}

/// The ring to be used over and over for messages of this size: it holds a few. Three, if they are large: one that
/// is read where it lies, the next one, and the gap at the end that it did not fit.
fn home_len(room: usize) -> usize {
    let len = if room <= 8 << 20 {
        (4 * room).next_power_of_two()
    } else {
        (3 * room + SWITCH_LEN + SLIDE).next_multiple_of(CHUNK)
    };
    // No consumer maps more than is of any use; a message that large goes alone.
    let most = system::largest_useful_mapping() as usize;
    let len = if len > most {
        (room + SWITCH_LEN).next_multiple_of(CHUNK)
    } else {
        len
    };
    len.max(FIRST_RING)
}

fn damaged() -> Error {
    Error::Protocol("the receiver has damaged the memory that it shares with this sender".into())
}

fn allocate(file: &OwnedFd, ring: &mut Ring, needed: usize) -> Result<()> {
    while ring.ready < needed {
        let rest = ring.region.len() - ring.ready;
        let chunk = ring.ready.clamp(SMALLEST_CHUNK, CHUNK);
        let chunk = chunk
            .max(needed - ring.ready)
            .next_multiple_of(PAGE)
            .min(rest);
        memory::allocate(file.as_fd(), ring.offset + ring.ready as u64, chunk as u64)?;
        ring.region.populate(ring.ready, chunk);
        ring.ready += chunk;
    }
    Ok(())
}
