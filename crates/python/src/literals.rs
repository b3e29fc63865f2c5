//! Small messages of values that Python has literals for: dicts, lists, text, numbers, and a tuple of these. msgspec
//! writes and reads them as MessagePack in a fraction of a pickle's time, and they come back as they went.
//!
//! They begin with a byte that begins neither a pickle nor MessagePack, so that ends which were given different types
//! still find out; and with two, if the list that follows was a tuple.

use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::codec::call;

/// So many messages pay for the import of msgspec.
const WORTH_IT: u32 = 256;
/// After so many a receiver has it ready: when its first such message comes, the process may be at a limit.
const SOON_WORTH_IT: u32 = 128;
/// In a larger message the time is spent elsewhere.
const MOST_VALUES: u32 = 128;
/// Of its text and bytes together. A pickle writes what occurs twice once.
const MOST_BYTES: usize = 4096;
const MOST_DEPTH: u32 = 16;
/// Dicts and lists to which somebody else refers: one of them could occur twice.
const MOST_SHARED: usize = 8;

const MARK: u8 = 0xC1;

/// The functions of `ipc_channel.codecs.literals`.
struct Codec {
    encode: Py<PyAny>,
    decode: Py<PyAny>,
    decode_tuple: Py<PyAny>,
}

static CODEC: PyOnceLock<Codec> = PyOnceLock::new();
static COUNT: AtomicU32 = AtomicU32::new(0);

fn codec(py: Python<'_>) -> PyResult<&Codec> {
    CODEC.get_or_try_init(py, || {
        let module = py.import(intern!(py, "ipc_channel.codecs.literals"))?;
        Ok(Codec {
            encode: module.getattr(intern!(py, "encode"))?.unbind(),
            decode: module.getattr(intern!(py, "decode"))?.unbind(),
            decode_tuple: module.getattr(intern!(py, "decode_tuple"))?.unbind(),
        })
    })
}

/// The bytes of a message that is such a tree and will come back as it is. None if it is to be pickled.
pub fn encode<'py>(message: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let py = message.py();
    if CODEC.get(py).is_none() && count() <= WORTH_IT {
        return Ok(None);
    }
    let mut walk = Walk::new();
    let tuple = message.cast_exact::<PyTuple>();
    let fits = match tuple {
        Ok(tuple) => tuple.iter().all(|item| walk.fits(&item, 1)),
        Err(_) => walk.fits(message, 0),
    };
    if !fits {
        return Ok(None);
    }
    let mark = [MARK; 2];
    let mark = &mark[..1 + usize::from(tuple.is_ok())];
    let encoded = codec(py).and_then(|codec| {
        let bytes = call(codec.encode.bind(py), message)?;
        let bytes = bytes.cast::<PyBytes>()?.as_bytes();
        PyBytes::new_with(py, mark.len() + bytes.len(), |marked| {
            let (beginning, rest) = marked.split_at_mut(mark.len());
            beginning.copy_from_slice(mark);
            rest.copy_from_slice(bytes);
            Ok(())
        })
    });
    match encoded {
        Ok(bytes) => Ok(Some(bytes)),
        // A lone surrogate, say, which pickle knows how to write.
        Err(error) if error.is_instance_of::<PyException>(py) => Ok(None),
        Err(interrupt) => Err(interrupt),
    }
}

/// Messages of untyped channels that this process has sent or received, with this one.
fn count() -> u32 {
    // With the GIL held nobody else counts meanwhile.
    let count = COUNT.load(Ordering::Relaxed).saturating_add(1);
    COUNT.store(count, Ordering::Relaxed);
    count
}

/// A pickle was received.
#[inline]
pub fn note_pickle(py: Python<'_>) {
    if CODEC.get(py).is_none() {
        count();
    }
}

/// Imports what [`decode`] needs, if messages for it are to be expected. For a receiver that has no message in its hands.
pub fn get_ready(py: Python<'_>) -> PyResult<()> {
    if COUNT.load(Ordering::Relaxed) <= SOON_WORTH_IT || CODEC.get(py).is_some() {
        return Ok(());
    }
    match codec(py) {
        // Perhaps it need not be: there may be nothing but pickles.
        Err(error) if error.is_instance_of::<PyException>(py) => Ok(()),
        outcome => outcome.map(|_| ()),
    }
}

/// Whether a payload is such a message.
#[inline]
pub fn are_in(payload: &[u8]) -> bool {
    payload.first() == Some(&MARK)
}

/// The message whose bytes [`are_in`] recognizes.
pub fn decode<'py>(payload: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
    let py = payload.py();
    let codec = codec(py)?;
    let (decode, value) = match payload.as_bytes() {
        [MARK, MARK, list @ ..] => (&codec.decode_tuple, list),
        [_, value @ ..] => (&codec.decode, value),
        [] => (&codec.decode, &[][..]),
    };
    let value = PyBytes::new_with(py, value.len(), |copy| {
        copy.copy_from_slice(value);
        Ok(())
    })?;
    call(decode.bind(py), &value)
}

/// What a message may still have.
struct Walk {
    values: u32,
    bytes: usize,
    /// Of the dicts and lists that could occur twice, those seen so far.
    shared: [*mut ffi::PyObject; MOST_SHARED],
    seen: usize,
}

impl Walk {
    fn new() -> Walk {
        Walk {
            values: MOST_VALUES,
            bytes: MOST_BYTES,
            shared: [std::ptr::null_mut(); MOST_SHARED],
            seen: 0,
        }
    }

    /// Whether MessagePack gives the value back as it is. No subclass is: it may have more to it.
    fn fits(&mut self, value: &Bound<'_, PyAny>, depth: u32) -> bool {
        let Some(values) = self.values.checked_sub(1) else {
            return false;
        };
        self.values = values;
        if let Ok(text) = value.cast_exact::<PyString>() {
            return self.has_room(text.len().unwrap_or(usize::MAX));
        }
        if let Ok(number) = value.cast_exact::<PyInt>() {
            return is_short(number);
        }
        if value.is_none()
            || value.is_exact_instance_of::<PyFloat>()
            || value.is_exact_instance_of::<PyBool>()
        {
            return true;
        }
        if let Ok(dict) = value.cast_exact::<PyDict>() {
            return self.occurs_once(value, depth)
                && dict
                    .iter()
                    .all(|(key, value)| self.fits_as_key(&key) && self.fits(&value, depth + 1));
        }
        if let Ok(list) = value.cast_exact::<PyList>() {
            return self.occurs_once(value, depth)
                && list.iter().all(|item| self.fits(&item, depth + 1));
        }
        match value.cast_exact::<PyBytes>() {
            Ok(bytes) => self.has_room(bytes.as_bytes().len()),
            Err(_) => false,
        }
    }

    fn fits_as_key(&mut self, key: &Bound<'_, PyAny>) -> bool {
        if let Ok(text) = key.cast_exact::<PyString>() {
            return self.has_room(text.len().unwrap_or(usize::MAX));
        }
        key.cast_exact::<PyInt>().is_ok_and(is_short)
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        match self.bytes.checked_sub(bytes) {
            Some(rest) => {
                self.bytes = rest;
                true
            }
            None => false,
        }
    }

    /// Whether a dict or list is not too deep and not in the message a second time, for which MessagePack has no word.
    fn occurs_once(&mut self, value: &Bound<'_, PyAny>, depth: u32) -> bool {
        /// What holds it, and we.
        const ITS_OWN: isize = 2;
        if depth > MOST_DEPTH {
            return false;
        }
        let place = value.as_ptr();
        #[allow(unsafe_code)]
        // SAFETY: the object lives throughout the call.
        let holders = unsafe { ffi::Py_REFCNT(place) };
        if depth > 0 && holders <= ITS_OWN {
            return true;
        }
        if self.seen == MOST_SHARED || self.shared[..self.seen].contains(&place) {
            return false;
        }
        self.shared[self.seen] = place;
        self.seen += 1;
        true
    }
}

/// Whether a number fits into 64 bits.
fn is_short(number: &Bound<'_, PyInt>) -> bool {
    let mut overflow = 0;
    #[allow(unsafe_code)]
    // SAFETY: the object is an int and lives throughout the call, which for an int raises nothing.
    unsafe {
        ffi::PyLong_AsLongLongAndOverflow(number.as_ptr(), &raw mut overflow)
    };
    overflow == 0
}
