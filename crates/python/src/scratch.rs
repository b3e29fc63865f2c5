//! Memory for the bytes of a message that is being encoded or decoded: to allocate it anew is a good part of the time that
//! a small message takes.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

/// A larger buffer is given back to the allocator.
const KEPT: usize = 64 * 1024;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A buffer of which each thread keeps one. Whoever needs one while that is in use gets one of their own.
pub struct Scratch(Vec<u8>);

impl Scratch {
    /// An empty one.
    #[inline]
    pub fn new() -> Scratch {
        let mut bytes = SPARE.take();
        bytes.clear();
        Scratch(bytes)
    }

    /// A copy of these bytes; None if there is no memory for it.
    #[inline]
    pub fn copy_of(bytes: &[u8]) -> Option<Scratch> {
        let mut copy = Scratch::new();
        copy.try_reserve(bytes.len()).ok()?;
        copy.extend_from_slice(bytes);
        Some(copy)
    }

    /// It will be kept for a while: without the memory that it does not need.
    pub fn trim(&mut self) {
        self.0.shrink_to_fit();
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        if self.0.capacity() <= KEPT {
            // Fails while the thread ends.
            let _ = SPARE.try_with(|spare| spare.set(std::mem::take(&mut self.0)));
        }
    }
}

impl Deref for Scratch {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Scratch {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}
