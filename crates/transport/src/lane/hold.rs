//! Messages that are read where they lie: their part of a ring is kept until they are let go.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use crate::lane::layout::HEAD;
use crate::os::shared::Region;
use crate::os::{fork, memory};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Lock};

/// A ring as the consumer maps it.
#[derive(Debug)]
pub struct RingMemory {
    region: Region,
    file: Arc<OwnedFd>,
    offset: u64,
    /// The producer will not use it again.
    left: AtomicBool,
    ledger: Arc<Ledger>,
    made_in: u64,
}

impl RingMemory {
    /// A ring in `file`.
    pub fn new(region: Region, file: Arc<OwnedFd>, offset: u64, ledger: Arc<Ledger>) -> RingMemory {
        RingMemory {
            ledger,
            region,
            file,
            offset,
            left: AtomicBool::new(false),
            made_in: fork::generation(),
        }
    }

    /// Its bytes.
    #[inline]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Where it is in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its pages go back to the system once nobody reads in it.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        let kept = self.ledger.kept.load(Ordering::Relaxed);
        if self.left.load(Ordering::Relaxed) && !kept && self.made_in == fork::generation() {
            memory::release(self.file.as_fd(), self.offset, self.region.len() as u64);
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
        if !spans.ended {
            let head = spans.open.front().map_or(spans.read, |(start, _)| *start);
            self.header.word(HEAD).store(head, Ordering::Release);
        }
        // Last: whoever sees that nothing is open may store a later head at once.
        self.open.store(spans.open.len(), Ordering::Release);
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
        let mut spans = self.ledger.spans.lock();
        if let Some(span) = spans
            .open
            .iter_mut()
            .find(|(start, done)| *start == self.start && !done)
        {
            span.1 = true;
        }
        self.ledger.advance(&mut spans);
    }
}
