//! Messages that are read where they lie: their part of a ring is kept until they are let go.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use crate::lane::layout::{HEAD, PAGE};
use crate::os::shared::Region;
use crate::os::{fork, memory};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Lock};

/// A ring as the consumer maps it, and which of its pages are given back to the system.
///
/// Invariant: the pages that are given back hold nothing but what was taken and is not held, in a ring whose
/// producer writes nowhere before its tail: one that is used once, or that it has left for good. So nobody reads
/// them again and nobody writes there. (They end before the page that holds the tail, which is not beyond what was
/// taken; the pages from there on are the producer's, who has made them for what comes next.) A producer that says
/// that a ring is used once and goes round it damages its own messages.
#[derive(Debug)]
pub struct RingMemory {
    region: Region,
    file: Arc<OwnedFd>,
    offset: u64,
    /// What had been published when it was entered.
    start: u64,
    /// It is used once.
    once: bool,
    /// Bytes from its beginning whose pages were given back.
    given_back: AtomicU64,
    /// The producer will not use it again.
    left: AtomicBool,
    ledger: Arc<Ledger>,
    made_in: u64,
}

impl RingMemory {
    /// A ring in `file`, entered when `start` bytes had been published; whether it is used once.
    pub fn new(
        region: Region,
        file: Arc<OwnedFd>,
        offset: u64,
        start: u64,
        once: bool,
        ledger: Arc<Ledger>,
    ) -> RingMemory {
        RingMemory {
            ledger,
            region,
            file,
            offset,
            start,
            once,
            given_back: AtomicU64::new(0),
            left: AtomicBool::new(false),
            made_in: fork::generation(),
        }
    }

    /// Its bytes.
    #[inline]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Gives back the pages before `until`, a place of the lane: everything there was taken and is not held.
    fn give_back(&self, until: u64) {
        if !self.once || !self.is_ours() {
            return;
        }
        let len = self.region.len() as u64;
        let until = until.saturating_sub(self.start).min(len) / PAGE as u64 * PAGE as u64;
        // Whoever moves the boundary gives back what it goes over.
        let from = self.given_back.fetch_max(until, Ordering::Relaxed);
        if from < until {
            memory::release(self.file.as_fd(), self.offset + from, until - from);
        }
    }

    /// No process but this one has views into it.
    fn is_ours(&self) -> bool {
        !self.ledger.kept.load(Ordering::Relaxed) && self.made_in == fork::generation()
    }

    /// Bytes that were taken before `read` and have pages still.
    #[inline]
    pub fn spent(&self, read: u64) -> u64 {
        let given_back = self.given_back.load(Ordering::Relaxed);
        (read - self.start).saturating_sub(given_back)
    }

    /// Its pages go back to the system once nobody reads in it.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        if self.left.load(Ordering::Relaxed) && self.is_ours() {
            let from = self.given_back.load(Ordering::Relaxed);
            let rest = self.region.len() as u64 - from;
            memory::release(self.file.as_fd(), self.offset + from, rest);
        }
    }
}

#[derive(Debug, Default)]
struct Spans {
    /// Where each begins, and whether it was let go; in the order of the lane.
    open: VecDeque<(u64, bool)>,
    /// Everything before it has been taken.
    read: u64,
    /// The lane has another consumer now, or none.
    ended: bool,
}

impl Spans {
    /// The first place in a ring entered at `start` that is held, or `read`.
    fn first_from(&self, start: u64, read: u64) -> u64 {
        let held = self.open.iter().filter(|(_, done)| !done);
        let first = held.map(|(place, _)| *place).find(|place| *place >= start);
        first.unwrap_or(read)
    }
}

/// Which parts of a lane's rings are still read in. Shared by the consumer and the [`Hold`]s.
///
/// Invariant: `HEAD` in the lane is never beyond the first part that is still held.
#[derive(Debug)]
pub struct Ledger {
    spans: Lock<Spans>,
    open: AtomicUsize,
    /// Somebody else has views into the rings: they are never given back.
    kept: AtomicBool,
    header: Arc<Region>,
}

impl Ledger {
    /// An empty one.
    pub fn new(header: Arc<Region>) -> Ledger {
        Ledger {
            spans: Lock::default(),
            open: AtomicUsize::new(0),
            kept: AtomicBool::new(false),
            header,
        }
    }

    /// Everything before `read` was taken: tells the producer what it may write over.
    pub fn publish(&self, read: u64) {
        // Only the consumer, whose caller we are, adds holds.
        if self.open.load(Ordering::Acquire) == 0 {
            self.header.word(HEAD).store(read, Ordering::Release);
            return;
        }
        let mut spans = self.spans.lock();
        spans.read = read;
        self.advance(&mut spans);
    }

    fn advance(&self, spans: &mut Spans) {
        while spans.open.front().is_some_and(|(_, done)| *done) {
            spans.open.pop_front();
        }
        // Nobody asks for these either: whoever keeps one message and lets go of all later ones makes no long list.
        while spans.open.back().is_some_and(|(_, done)| *done) {
            spans.open.pop_back();
        }
        if !spans.ended {
            let head = spans.open.front().map_or(spans.read, |(start, _)| *start);
            self.header.word(HEAD).store(head, Ordering::Release);
        }
        // Last: whoever sees that nothing is open may store a later head at once.
        self.open.store(spans.open.len(), Ordering::Release);
    }

    /// Everything before `read`, a place in this ring, was taken: gives back the pages that hold nothing else.
    pub fn give_back(&self, ring: &RingMemory, read: u64) {
        let until = match self.open.load(Ordering::Acquire) {
            0 => read,
            _ => self.spans.lock().first_from(ring.start, read),
        };
        ring.give_back(until);
    }

    /// Keeps what begins at `start`, the consumer's place, which the consumer goes beyond only afterwards.
    pub fn hold(
        ledger: &Arc<Ledger>,
        ring: Arc<RingMemory>,
        start: u64,
        at: usize,
        len: usize,
    ) -> Hold {
        let mut spans = ledger.spans.lock();
        spans.open.push_back((start, false));
        spans.read = start;
        ledger.open.store(spans.open.len(), Ordering::Release);
        Hold {
            ledger: ledger.clone(),
            ring,
            start,
            at,
            len,
            made_in: fork::generation(),
            forks: fork::forks_begun(),
        }
    }

    /// Whether something is held.
    pub fn is_holding(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// What is held no longer concerns the producer, which is told nothing more.
    pub fn end(&self) {
        self.spans.lock().ended = true;
    }

    /// The same, and the rings stay as they are for as long as the lane's memory exists.
    pub fn keep(&self) {
        self.end();
        self.kept.store(true, Ordering::Relaxed);
    }
}

/// A message's bytes in the lane, kept there until this is dropped. The sending process could still change
/// them: whoever must not be fooled copies first.
#[derive(Debug)]
pub struct Hold {
    ledger: Arc<Ledger>,
    ring: Arc<RingMemory>,
    start: u64,
    at: usize,
    len: usize,
    made_in: u64,
    /// Forks begun before it was made: each one since has given it to a child as well.
    forks: u64,
}

impl Hold {
    /// Where the `len` bytes from `at` of the message lie.
    pub fn pointer(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at <= self.len && len <= self.len - at);
        self.ring.region().pointer(self.at + at, len)
    }

    /// A copy of a part of it.
    pub fn copy_out(&self, at: usize, bytes: &mut [u8]) {
        assert!(at <= self.len && bytes.len() <= self.len - at);
        self.ring.region().copy_out(self.at + at, bytes);
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A forked child has the memory too, and no say in what becomes of it.
        if self.made_in != fork::generation() {
            return;
        }
        // A consumer that was there at the fork has seen to it; this one may outlive the consumer.
        if self.forks != fork::forks_begun() {
            self.ledger.keep();
        }
        let mut spans = self.ledger.spans.lock();
        if let Some(span) = spans
            .open
            .iter_mut()
            .find(|(start, done)| *start == self.start && !done)
        {
            span.1 = true;
        }
        self.ledger.advance(&mut spans);
        let until = spans.first_from(self.ring.start, spans.read);
        drop(spans);
        self.ring.give_back(until);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::lane::layout::HEADER_LEN;

    /// Breaks when what was let go is remembered for as long as something before it is held.
    #[test]
    fn whoever_keeps_one_message_makes_no_long_list_of_later_ones() {
        let file = Arc::new(memory::create_growing("held").unwrap());
        memory::grow(file.as_fd(), 2 * PAGE as u64).unwrap();
        let map = |offset| Region::map(file.as_fd(), offset, PAGE).unwrap();
        let header = Arc::new(map(0));
        let ledger = Arc::new(Ledger::new(header.clone()));
        let offset = HEADER_LEN as u64;
        let region = map(offset);
        let ring = RingMemory::new(region, file.clone(), offset, 0, false, ledger.clone());
        let ring = Arc::new(ring);
        let hold = |place: u64| Ledger::hold(&ledger, ring.clone(), place, 0, 16);
        let kept = hold(0);
        for place in 1..100 {
            drop(hold(place * 16));
        }
        assert_eq!(ledger.spans.lock().open.len(), 1);
        assert_eq!(header.word(HEAD).load(Ordering::Acquire), 0);
        drop(kept);
        assert!(!ledger.is_holding());
        assert_eq!(header.word(HEAD).load(Ordering::Acquire), 99 * 16);
    }
}
