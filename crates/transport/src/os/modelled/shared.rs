//! Shared memory for the model checker: a word is one of its atomics, and bytes are copied as the words that
//! they lie in, without any order. So a copy that nothing orders after what it should see shows it too.
//!
//! The memory files themselves, their sizes and their seals are the kernel's as ever; only what is mapped
//! is not.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use loom::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// The words of one file by their place, as far as somebody has mapped them.
type Words = BTreeMap<u64, Arc<AtomicU64>>;

loom::lazy_static! {
    /// By the file's number. Of the standard library, and so no step of any model.
    static ref FILES: Mutex<BTreeMap<u64, Words>> = Mutex::default();
}

const WORD: usize = 8;

/// A part of a memory file.
#[derive(Debug)]
pub struct Region {
    words: Vec<Arc<AtomicU64>>,
}

fn number(file: BorrowedFd<'_>) -> Result<u64> {
    let stat = rustix::fs::fstat(file).map_err(|e| Error::kernel("fstat", e))?;
    Ok(stat.st_ino)
}

/// The part reads as zeroes from now on, one word after the other.
pub fn release(file: BorrowedFd<'_>, offset: u64, len: u64) {
    let released: Vec<_> = {
        let files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        let words = number(file).ok().and_then(|number| files.get(&number));
        words
            .into_iter()
            .flat_map(|words| words.range(offset..offset + len))
            .map(|(_, word)| word.clone())
            .collect()
    };
    for word in released {
        word.store(0, Ordering::Relaxed);
    }
}

impl Region {
    /// Maps `len` bytes from `offset`.
    pub fn map(file: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Region> {
        let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
        let words = files.entry(number(file)?).or_default();
        let places = (offset..offset + len as u64).step_by(WORD);
        Ok(Region {
            words: places
                .map(|place| words.entry(place).or_default().clone())
                .collect(),
        })
    }

    /// The word at a multiple of eight.
    pub fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(WORD));
        &self.words[at / WORD]
    }

    /// Copies `bytes` to `at`.
    pub fn copy_in(&self, at: usize, bytes: &[u8]) {
        self.visit(at, bytes.len(), |word, within, done| {
            let mut value = word.load(Ordering::Relaxed).to_ne_bytes();
            value[within.clone()].copy_from_slice(&bytes[done..done + within.len()]);
            word.store(u64::from_ne_bytes(value), Ordering::Relaxed);
        });
    }

    /// Copies from `at` into `bytes`.
    pub fn copy_out(&self, at: usize, bytes: &mut [u8]) {
        let len = bytes.len();
        self.visit(at, len, |word, within, done| {
            let value = word.load(Ordering::Relaxed).to_ne_bytes();
            bytes[done..done + within.len()].copy_from_slice(&value[within]);
        });
    }

    /// Calls `each` with every word of a range, the part of the word that is meant, and the bytes before it.
    fn visit(
        &self,
        at: usize,
        len: usize,
        mut each: impl FnMut(&AtomicU64, std::ops::Range<usize>, usize),
    ) {
        assert!(at <= self.len() && len <= self.len() - at);
        let mut done = 0;
        while done < len {
            let from = (at + done) % WORD;
            let to = WORD.min(from + len - done);
            each(&self.words[(at + done) / WORD], from..to, done);
            done += to - from;
        }
    }

    /// Panics: models have no addresses, they copy.
    pub fn pointer(&self, _at: usize, _len: usize) -> *mut u8 {
        panic!("modelled memory has no address");
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.words.len() * WORD
    }

    /// Never true: nothing empty is mapped.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Nothing to do: there are no page tables.
    pub fn populate(&self, _at: usize, _len: usize) {}
}
