//! The reading side of a lane.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, Result};
use crate::lane::hold::{Hold, Ledger, RingMemory};
use crate::lane::layout::{
    CLOSED, CONSUMER, FAREWELL, FLAGS, HEADER_LEN, Kind, ONCE, PAGE, PINNED, RECORD_HEADER, SHARED,
    TAIL, TAKEN, UNIT, WAITER, WAITING, record_len, unpack,
};
use crate::lane::sizes::{CHUNK, FIRST_RING};
use crate::os::shared::Region;
use crate::os::{descriptor, memory, system};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;

/// The producer learns of the consumer's progress in steps of this size: in a ring that is used once too, since it
/// returns home as soon as it knows that little is left to read.
const STEP: u64 = FIRST_RING as u64 / 16;
/// SKIPs and SWITCHes in a row: an honest producer writes four at most.
const MOST_IN_A_ROW: usize = 64;

/// A record that holds a message, where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// What its body is.
    pub kind: Kind,
    /// When it was sent.
    pub stamp: u64,
    /// The body's length in bytes.
    pub len: usize,
    at: usize,
    total: u64,
}

/// What another process needs to go on where this one stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The ring's offset in the memory file.
    pub offset: u64,
    /// Its length.
    pub len: u64,
    /// What had been published when it was entered.
    pub start: u64,
    /// What has been read.
    pub read: u64,
    /// Messages taken.
    pub taken: u64,
    /// The stamp of records without one.
    pub base: u64,
    /// Whether the producer counts what is taken.
    pub bounded: bool,
    /// An earlier consumer still reads in this ring.
    pub pinned: bool,
    /// The ring is used once, and what was read there is given back.
    pub once: bool,
}

/// The reading side. Its owner sees to it that one thread at a time uses it.
#[derive(Debug)]
pub struct Consumer {
    file: Arc<OwnedFd>,
    header: Arc<Region>,
    ring: Arc<RingMemory>,
    ledger: Arc<Ledger>,
    place: Place,
    /// The shared word as last seen.
    tail: u64,
    /// The last one that was found to be possible although it is more than a ring away.
    possible: u64,
    released: u64,
}

impl Consumer {
    /// Reads on in a lane from `place`, a peer's word. [`Error::Protocol`] unless the file is a lane's.
    pub fn new(file: OwnedFd, place: Place) -> Result<Consumer> {
        const BEYOND_ALL_COUNTS: u64 = 1 << 62;
        if !place.read.is_multiple_of(UNIT)
            || !place.start.is_multiple_of(UNIT)
            || place.start > place.read
            || place.read.max(place.taken) >= BEYOND_ALL_COUNTS
        {
            return damaged("begins nowhere");
        }
        descriptor::check_sealed_memory(file.as_fd())?;
        let file = Arc::new(file);
        check_ring(&file, place.offset, place.len)?;
        let header = Arc::new(map(&file, 0, HEADER_LEN)?);
        header
            .word(CONSUMER)
            .store(std::process::id().into(), Ordering::Relaxed);
        let ledger = Arc::new(Ledger::new(header.clone()));
        if place.pinned {
            ledger.keep();
        }
        Ok(Consumer {
            ring: Arc::new(map_ring(&file, &place, &ledger)?),
            ledger,
            header,
            file,
            tail: place.read,
            possible: place.read,
            released: place.read,
            place,
        })
    }

    /// The memory file.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Where it stands, for the next owner; nothing may be read here unless the move fails.
    pub fn depart(&mut self) -> Place {
        if self.ledger.is_holding() {
            self.pin();
        }
        self.place
    }

    /// Views into the rings so far belong to another process or outlive this consumer: nobody may write over
    /// them, or give their memory back.
    fn pin(&mut self) {
        self.header.word(TAIL).fetch_or(PINNED, Ordering::SeqCst);
        self.place.pinned = true;
        self.ledger.keep();
        self.ledger = Arc::new(Ledger::new(self.header.clone()));
        // What is read in this ring from now on is not announced, by holds neither.
        self.ledger.end();
    }

    /// A forked child will have the views that exist now.
    pub fn before_fork(&mut self) {
        if self.ledger.is_holding() {
            self.pin();
        }
    }

    /// The lane has another consumer now: what is still held here no longer concerns the producer.
    pub fn departed(&self) {
        self.ledger.end();
    }

    /// Whether other processes may send on the same channel, as of the last look at the tail.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.tail & SHARED != 0
    }

    /// Whether the producer will ring at its next record, as of the last look at the tail.
    pub fn is_armed(&self) -> bool {
        self.tail & WAITING != 0
    }

    /// Looks at the tail: whether there is something to read.
    #[inline]
    pub fn has_news(&mut self) -> bool {
        self.tail = self.header.word(TAIL).load(Ordering::Acquire);
        self.tail & !FLAGS != self.place.read
    }

    /// Asks the producer to ring at its next record; false if there is one already.
    pub fn arm(&mut self) -> bool {
        self.announce();
        self.tail = self.header.word(TAIL).fetch_or(WAITING, Ordering::SeqCst) | WAITING;
        self.tail & !FLAGS == self.place.read
    }

    /// Tells the producer that nobody will read any more.
    pub fn close(&self) {
        self.header.word(TAIL).fetch_or(CLOSED, Ordering::SeqCst);
        self.ledger.end();
    }

    /// How far the tail was when it was last looked at.
    pub fn seen(&self) -> u64 {
        self.tail & !FLAGS
    }

    /// Where the next record is.
    pub fn position(&self) -> u64 {
        self.place.read
    }

    /// Bytes published and not read.
    pub fn backlog(&self) -> u64 {
        let tail = self.header.word(TAIL).load(Ordering::Acquire) & !FLAGS;
        tail.saturating_sub(self.place.read)
    }

    /// The next message, still in its place. [`Error::Protocol`] means that nothing more can be read.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<Record>> {
        for _ in 0..MOST_IN_A_ROW {
            if self.tail & !FLAGS == self.place.read && !self.has_news() {
                return Ok(None);
            }
            let available = (self.tail & !FLAGS).wrapping_sub(self.place.read);
            if available > self.place.len {
                self.check_tail(available)?;
            }
            let region = self.ring.region();
            let at = ((self.place.read - self.place.start) % self.place.len) as usize;
            let Some((kind, padding, len)) = unpack(region.word(at).load(Ordering::Relaxed)) else {
                return damaged("holds a record of no known kind");
            };
            let total = record_len(padding, len);
            if !padding.is_multiple_of(UNIT as usize) {
                return damaged("holds a record that is laid out as no other is");
            }
            if total as u64 > available || total > region.len() - at {
                return damaged("holds a record that is longer than its place");
            }
            let record = Record {
                kind,
                stamp: region
                    .word(at + 8)
                    .load(Ordering::Relaxed)
                    .max(self.place.base),
                len,
                at: at + RECORD_HEADER + padding,
                total: total as u64,
            };
            match kind {
                Kind::Plain | Kind::Framed => return Ok(Some(record)),
                Kind::Skip => self.place.read += record.total,
                Kind::Switch => self.follow(&record)?,
            }
        }
        damaged("leads from ring to ring and never to a message")
    }

    /// Whether so much can be unread. Otherwise a producer that is long gone could fill a batch for ever, with
    /// records that lie in a ring once and are read again and again.
    fn check_tail(&mut self, available: u64) -> Result<()> {
        // A tail that was possible is so no more once something beyond it has been read.
        let behind = available > i64::MAX as u64;
        if self.tail == self.possible && !behind {
            return Ok(());
        }
        // What is unread has pages. A SKIP may stand for some that were never made; but not for more than the record
        // behind it takes, or the ones before it do. Only the one that leads to a ring's start when everything there
        // has been read may stand for nearly the whole ring; so there is one of them, and we are still before it.
        let pages = memory::allocated(self.file.as_fd())?;
        let most = pages.saturating_mul(2).saturating_add(self.place.len);
        if available > most {
            return damaged("says that it holds more than it can");
        }
        self.possible = self.tail;
        Ok(())
    }

    /// Copies the whole body of a record that [`Consumer::peek`] gave, or its beginning.
    #[inline]
    pub fn copy_out(&self, record: &Record, bytes: &mut [u8]) {
        self.copy_out_from(record, 0, bytes);
    }

    /// Where the body lies until the record is taken.
    #[inline]
    pub fn pointer(&self, record: &Record) -> *const u8 {
        self.ring.region().pointer(record.at, record.len)
    }

    /// Copies a part of the body.
    pub fn copy_out_from(&self, record: &Record, from: usize, bytes: &mut [u8]) {
        assert!(from <= record.len && bytes.len() <= record.len - from);
        let region = self.ring.region();
        region.copy_out(record.at + from, bytes);
    }

    /// Whether all of a large body has pages, so that its sender has paid for what it says it sent.
    pub fn is_whole(&self, record: &Record) -> bool {
        memory::allocated(self.file.as_fd()).is_ok_and(|bytes| bytes >= record.len as u64)
    }

    /// Keeps the body of the record that [`Consumer::peek`] gave, from `from` on, until the [`Hold`] is dropped.
    pub fn hold(&self, record: &Record, from: usize) -> Hold {
        assert!(from <= record.len);
        let (at, len) = (record.at + from, record.len - from);
        Ledger::hold(&self.ledger, self.ring.clone(), self.place.read, at, len)
    }

    /// Takes the record that [`Consumer::peek`] gave off the lane. Whether the producer must be rung.
    #[inline]
    pub fn take(&mut self, record: &Record) -> bool {
        self.place.read += record.total;
        self.place.taken += 1;
        if self.place.bounded || self.place.read - self.released >= STEP || self.ledger.is_holding()
        {
            self.announce();
        }
        if self.place.once {
            self.give_back();
        }
        self.place.bounded && self.count()
    }

    /// In a ring that is used once: gives back what has been read, in large pieces, and the last piece as soon as
    /// nothing more is there. Then the producer returns with its next message, and may never send one.
    #[cold]
    fn give_back(&mut self) {
        if self.place.pinned {
            return;
        }
        let spent = self.ring.spent(self.place.read);
        // While something is held, who lets it go gives back the rest.
        let last = spent >= PAGE as u64 && !self.ledger.is_holding();
        if spent >= CHUNK as u64 || last && !self.has_more() {
            self.announce();
            self.ledger.give_back(&self.ring, self.place.read);
        }
    }

    /// Whether there is more to read; a look at the tail only if nothing more is known of.
    fn has_more(&mut self) -> bool {
        self.tail & !FLAGS != self.place.read || self.has_news()
    }

    /// Tells the producer of a bounded lane that there is room for one message more.
    fn count(&self) -> bool {
        let taken = self.header.word(TAKEN);
        let waits = taken.fetch_add(2, Ordering::SeqCst) & WAITER != 0;
        if waits {
            taken.fetch_and(!WAITER, Ordering::SeqCst);
        }
        waits
    }

    /// Tells the producer what it may write over.
    fn announce(&mut self) {
        if self.place.pinned || self.released == self.place.read {
            return;
        }
        self.released = self.place.read;
        self.ledger.publish(self.place.read);
        if !self.place.bounded {
            let taken = self.header.word(TAKEN);
            taken.store(self.place.taken << 1, Ordering::Release);
        }
    }

    fn follow(&mut self, record: &Record) -> Result<()> {
        if record.len != 32 {
            return damaged("has a switch of another length");
        }
        let word = |index: usize| {
            let place = self.ring.region().word(record.at + 8 * index);
            place.load(Ordering::Relaxed)
        };
        let (offset, len, flags) = (word(0), word(1), word(2));
        // Back in the ring that was left before, which is still mapped if nothing else was since.
        let ledger = if self.place.pinned {
            Arc::new(Ledger::new(self.header.clone()))
        } else {
            self.ledger.clone()
        };
        let read = self.place.read + record.total;
        let place = Place {
            offset,
            len,
            start: read,
            read,
            // The new ring is ours alone.
            pinned: false,
            once: flags & ONCE != 0,
            ..self.place
        };
        let ring = map_ring(&self.file, &place, &ledger)?;
        if flags & FAREWELL != 0 && !self.place.pinned {
            self.ring.leave();
        }
        self.place = place;
        self.ledger = ledger;
        self.ring = Arc::new(ring);
        self.announce();
        Ok(())
    }
}

fn map_ring(file: &Arc<OwnedFd>, place: &Place, ledger: &Arc<Ledger>) -> Result<RingMemory> {
    let len = check_ring(file, place.offset, place.len)?;
    let region = map(file, place.offset, len)?;
    Ok(RingMemory::new(
        region,
        file.clone(),
        place.offset,
        place.start,
        place.once,
        ledger.clone(),
    ))
}

/// Whatever the kernel says against a file of the peer's making is the peer's doing.
fn map(file: &Arc<OwnedFd>, offset: u64, len: usize) -> Result<Region> {
    Region::map(file.as_fd(), offset, len).or_else(|_| damaged("cannot be mapped"))
}

/// The length of a ring that a peer has named, if it lies inside the memory file.
fn check_ring(file: &Arc<OwnedFd>, offset: u64, len: u64) -> Result<usize> {
    let size = descriptor::check_sealed_memory(file.as_fd())?.size;
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let fits = offset
        .checked_add(len as u64)
        .is_some_and(|end| end <= size);
    if !fits
        || isize::try_from(len).is_err()
        || len < PAGE
        || len as u64 > system::largest_useful_mapping()
        || !offset.is_multiple_of(PAGE as u64)
        || !len.is_multiple_of(PAGE)
        || offset < HEADER_LEN as u64
    {
        return damaged("names a ring outside its memory");
    }
    Ok(len)
}

fn damaged<T>(how: &str) -> Result<T> {
    Err(Error::Protocol(format!(
        "the memory that a sender of this channel shares with the receiver {how}; \
         that sender's messages are lost from here on"
    )))
}
