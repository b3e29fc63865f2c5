//! Short texts, which are the same in one message after the other: keys, names, tags. To make a str and to drop it again
//! takes several times as long as to find the one that was made before.

use std::cell::RefCell;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// Bytes of the longest that is kept.
const LONGEST: usize = 32;
const PLACES: usize = 256;

thread_local! {
    // Empty until the thread needs it.
    static KNOWN: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
}

/// What one place has.
#[derive(Default)]
struct Known {
    text: Option<(Bytes, Py<PyString>)>,
    /// Of the one that would be the next here, if it came once more: to keep what comes only once costs more than it saves.
    candidate: u64,
}

/// The str of these bytes, which may be one that others have, too. Raises UnicodeDecodeError.
#[inline]
pub fn text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match Bytes::of(bytes) {
        Some(short) => known(py, bytes, short),
        None => PyString::from_bytes(py, bytes),
    }
}

fn known<'py>(py: Python<'py>, bytes: &[u8], short: Bytes) -> PyResult<Bound<'py, PyString>> {
    KNOWN.with(|known| {
        // Whoever comes here while a str is being made, from a collection say, does without.
        let Ok(mut known) = known.try_borrow_mut() else {
            return PyString::from_bytes(py, bytes);
        };
        let mixed = short.mixed();
        if known.is_empty() {
            known.resize_with(PLACES, Known::default);
        }
        let place = &mut known[mixed as usize % PLACES];
        if let Some((same, text)) = &place.text
            && *same == short
        {
            return Ok(text.bind(py).clone());
        }
        let text = PyString::from_bytes(py, bytes)?;
        if place.candidate == mixed {
            place.text = Some((short, text.clone().unbind()));
        } else {
            place.candidate = mixed;
        }
        Ok(text)
    })
}

/// A few bytes in numbers that overlap: quick to fill, to compare and to mix.
#[derive(Clone, Copy)]
struct Bytes {
    len: usize,
    words: [u64; 4],
}

impl Bytes {
    /// None if they are more than a few. With the length given, the numbers tell all bytes.
    #[inline]
    fn of(bytes: &[u8]) -> Option<Bytes> {
        let len = bytes.len();
        let words = match len {
            0 => [0; 4],
            1..4 => {
                let [first, middle, last] = [bytes[0], bytes[len / 2], bytes[len - 1]];
                [u32::from_le_bytes([first, middle, last, 0]).into(), 0, 0, 0]
            }
            4..8 => {
                let (first, last) = (bytes.first_chunk()?, bytes.last_chunk()?);
                let both = [u32::from_le_bytes(*first), u32::from_le_bytes(*last)];
                [both[0].into(), both[1].into(), 0, 0]
            }
            8..=16 => {
                let (first, last) = (bytes.first_chunk()?, bytes.last_chunk()?);
                [u64::from_le_bytes(*first), u64::from_le_bytes(*last), 0, 0]
            }
            17..=LONGEST => {
                let word = |at: usize| {
                    bytes[at..]
                        .first_chunk()
                        .map(|word| u64::from_le_bytes(*word))
                };
                [word(0)?, word(8)?, word(len - 16)?, word(len - 8)?]
            }
            _ => return None,
        };
        Some(Bytes { len, words })
    }

    #[inline]
    fn mixed(&self) -> u64 {
        const PRIMES: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F];
        let [a, b, c, d] = self.words;
        let first = (a ^ c.rotate_left(32)).wrapping_mul(PRIMES[0]);
        let last = (b ^ d.rotate_left(32)).wrapping_mul(PRIMES[1]);
        // The upper bits are those that all others have got into.
        (first ^ last) >> 32
    }
}

impl PartialEq for Bytes {
    #[inline]
    fn eq(&self, other: &Bytes) -> bool {
        let [a, b, c, d] = std::array::from_fn(|at| self.words[at] ^ other.words[at]);
        self.len == other.len && a | b | c | d == 0
    }
}
