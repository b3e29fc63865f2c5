//! Memory that another process writes while we read it, and reads while we write.
//!
//! Nothing here is a Rust reference to plain bytes: words are atomic, and everything else is copied in and
//! out through raw pointers, so whatever the other process does to the memory meanwhile changes the bytes
//! that are copied and nothing else. Every access is checked against the mapping's bounds.

use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::error::{Error, Result};

/// A part of a memory file, mapped for reading and writing; unmapped when dropped.
///
/// Invariant: the file is sealed against shrinking and was at least as long as the mapping's end when it was
/// made, so no access inside the bounds can meet the end of the file.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is owned by this value, and its methods only use atomics and raw copies.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `len` bytes (at least one) from `offset`, a multiple of the page size.
    pub fn map(file: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Region> {
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let start = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                offset,
            )
        }
        .map_err(|e| Error::kernel("mmap", e))?;
        let start =
            NonNull::new(start.cast()).ok_or_else(|| Error::kernel("mmap", Errno::NOMEM))?;
        Ok(Region { start, len })
    }

    /// The word at a multiple of eight.
    #[inline]
    pub fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at < self.len && self.len - at >= 8);
        // SAFETY: the word is aligned (the mapping is to a page) and inside the mapping, which lives as long
        // as self; it is only accessed atomically here, and whatever else is written there is a valid u64.
        unsafe { &*self.start.as_ptr().add(at).cast::<AtomicU64>() }
    }

    /// Copies `bytes` to `at`.
    #[inline]
    pub fn copy_in(&self, at: usize, bytes: &[u8]) {
        let target = self.pointer(at, bytes.len());
        // SAFETY: `pointer` has checked the range; the source is a slice of ours and cannot overlap it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) }
    }

    /// Copies from `at` into `bytes`.
    #[inline]
    pub fn copy_out(&self, at: usize, bytes: &mut [u8]) {
        let source = self.pointer(at, bytes.len());
        // SAFETY: as in `copy_in`.
        unsafe { ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Where `len` bytes from `at` lie. Panics if they are not all inside.
    #[inline]
    pub fn pointer(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at <= self.len && len <= self.len - at);
        // SAFETY: at <= self.len, so the result is inside the mapping or one past it.
        unsafe { self.start.as_ptr().add(at) }
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: nothing empty is mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Enters pages that exist in the file into this process's page table, all at once instead of one fault
    /// each. Best effort.
    pub fn populate(&self, at: usize, len: usize) {
        let start = self.pointer(at, len);
        // SAFETY: the range is inside the mapping; populating changes no content.
        let _ = unsafe { rustix::mm::madvise(start.cast(), len, Advice::LinuxPopulateWrite) };
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own mapping, and nothing borrowed from it outlives it.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
