//! Small messages of values that Python has literals for: dicts, lists, tuples, text, bytes and numbers. Written and read
//! here, in a fraction of a pickle's time, and they come back as they went.
//!
//! The bytes are MessagePack, of each kind of value in one or two of its forms, but for two uses of 0xC1, with which
//! nothing begins there, and no pickle either: the first byte of all, so that ends which were given different types find
//! out; and before a list that is a tuple.

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::delivery::bytes_object;
use crate::scratch::Scratch;
use crate::texts;

/// In a larger message the time is spent elsewhere.
const MOST_VALUES: usize = 128;
/// Of its text and bytes together. A pickle writes once what occurs twice.
const MOST_BYTES: usize = 4096;
const MOST_DEPTH: u32 = 16;
/// Dicts, lists and tuples to which somebody else refers: one of them could occur twice.
const MOST_SHARED: usize = 16;

const MARK: u8 = 0xC1;
const NONE: u8 = 0xC0;
const FALSE: u8 = 0xC2;
const TRUE: u8 = 0xC3;
const BYTES: u8 = 0xC5;
const FLOAT: u8 = 0xCB;
const INT_32: u8 = 0xD2;
const INT_64: u8 = 0xD3;
const TEXT: u8 = 0xDA;
const LIST: u8 = 0xDC;
const DICT: u8 = 0xDE;
/// With their length below it.
const SHORT_DICT: u8 = 0x80;
const SHORT_LIST: u8 = 0x90;
const SHORT_TEXT: u8 = 0xA0;

/// The bytes of a message that is such a tree and will come back as it is. None if it is to be pickled.
pub fn write(message: &Bound<'_, PyAny>) -> Option<Scratch> {
    let mut writer = Writer {
        bytes: Scratch::new(),
        values_left: MOST_VALUES,
        bytes_left: MOST_BYTES,
        shared: [std::ptr::null_mut(); MOST_SHARED],
        seen: 0,
    };
    writer.bytes.push(MARK);
    writer.value(message, 0).then_some(writer.bytes)
}

/// Whether a payload is such a message.
#[inline]
pub fn are_in(payload: &[u8]) -> bool {
    payload.first() == Some(&MARK)
}

/// The message whose bytes [`are_in`] recognizes.
pub fn read<'py>(py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let mut reader = Reader { py, rest: payload };
    reader.byte()?;
    let message = reader.value(0)?;
    if reader.rest.is_empty() {
        return Ok(message);
    }
    malformed()
}

struct Writer {
    bytes: Scratch,
    /// What the message may still have.
    values_left: usize,
    bytes_left: usize,
    /// Of the dicts, lists and tuples that could occur twice, those seen so far.
    shared: [*mut ffi::PyObject; MOST_SHARED],
    seen: usize,
}

impl Writer {
    /// False if the value cannot be written so that it comes back as it is. No subclass can: it may have more to it.
    fn value(&mut self, value: &Bound<'_, PyAny>, depth: u32) -> bool {
        let Some(left) = self.values_left.checked_sub(1) else {
            return false;
        };
        self.values_left = left;
        if let Ok(text) = value.cast_exact::<PyString>() {
            return self.text(text);
        }
        if let Ok(number) = value.cast_exact::<PyInt>() {
            return self.number(number);
        }
        if let Ok(dict) = value.cast_exact::<PyDict>() {
            return self.may_hold(dict.len(), depth)
                && self.occurs_once(value, depth)
                && self.dict(dict, depth);
        }
        if let Ok(list) = value.cast_exact::<PyList>() {
            return self.may_hold(list.len(), depth)
                && self.occurs_once(value, depth)
                && self.items(list.iter(), depth);
        }
        if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.bytes.push(MARK);
            // A list in a tuple that occurs twice does, too, and has but one holder. There is only one empty tuple.
            return self.may_hold(tuple.len(), depth)
                && (tuple.is_empty() || self.occurs_once(value, depth))
                && self.items(tuple.iter(), depth);
        }
        if let Ok(number) = value.cast_exact::<PyFloat>() {
            self.bytes.push(FLOAT);
            self.bytes.extend(number.value().to_be_bytes());
            return true;
        }
        if let Ok(truth) = value.cast_exact::<PyBool>() {
            self.bytes.push(if truth.is_true() { TRUE } else { FALSE });
            return true;
        }
        if value.is_none() {
            self.bytes.push(NONE);
            return true;
        }
        let Ok(bytes) = value.cast_exact::<PyBytes>() else {
            return false;
        };
        let bytes = bytes.as_bytes();
        self.sized(BYTES, bytes.len());
        self.all(bytes)
    }

    fn text(&mut self, text: &Bound<'_, PyString>) -> bool {
        // A lone surrogate: pickle knows how to write it.
        let Ok(text) = text.to_str() else {
            return false;
        };
        match u8::try_from(text.len()) {
            Ok(len @ ..32) => self.bytes.push(SHORT_TEXT | len),
            _ => self.sized(TEXT, text.len()),
        }
        self.all(text.as_bytes())
    }

    /// What is of so many bytes, fewer than 65,536, or will not be written.
    fn sized(&mut self, kind: u8, len: usize) {
        self.bytes.push(kind);
        self.bytes.extend((len as u16).to_be_bytes());
    }

    fn all(&mut self, bytes: &[u8]) -> bool {
        let Some(left) = self.bytes_left.checked_sub(bytes.len()) else {
            return false;
        };
        self.bytes_left = left;
        self.bytes.extend_from_slice(bytes);
        true
    }

    fn number(&mut self, number: &Bound<'_, PyInt>) -> bool {
        let mut overflow = 0;
        #[allow(unsafe_code)]
        // SAFETY: the object is an int and lives throughout the call, which for an int raises nothing.
        let number =
            unsafe { ffi::PyLong_AsLongLongAndOverflow(number.as_ptr(), &raw mut overflow) };
        match number {
            -32..=127 => self.bytes.extend((number as i8).to_be_bytes()),
            _ => match i32::try_from(number) {
                Ok(number) => {
                    self.bytes.push(INT_32);
                    self.bytes.extend(number.to_be_bytes());
                }
                Err(_) => {
                    self.bytes.push(INT_64);
                    self.bytes.extend(number.to_be_bytes());
                }
            },
        }
        overflow == 0
    }

    fn dict(&mut self, dict: &Bound<'_, PyDict>, depth: u32) -> bool {
        self.beginning(SHORT_DICT, DICT, dict.len());
        dict.iter()
            .all(|(key, value)| self.key(&key) && self.value(&value, depth + 1))
    }

    fn key(&mut self, key: &Bound<'_, PyAny>) -> bool {
        if let Ok(text) = key.cast_exact::<PyString>() {
            return self.text(text);
        }
        key.cast_exact::<PyInt>()
            .is_ok_and(|number| self.number(number))
    }

    fn items<'py>(
        &mut self,
        mut items: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
        depth: u32,
    ) -> bool {
        self.beginning(SHORT_LIST, LIST, items.len());
        items.all(|item| self.value(&item, depth + 1))
    }

    /// Of so many values, or pairs.
    fn beginning(&mut self, short: u8, long: u8, len: usize) {
        match u8::try_from(len) {
            Ok(len @ ..16) => self.bytes.push(short | len),
            _ => self.sized(long, len),
        }
    }

    /// Whether something at that depth may have so many items.
    fn may_hold(&self, len: usize, depth: u32) -> bool {
        len <= self.values_left && depth < MOST_DEPTH
    }

    /// Whether a dict, list or tuple is not in the message a second time, for which there are no words here.
    fn occurs_once(&mut self, value: &Bound<'_, PyAny>, depth: u32) -> bool {
        /// What holds it, and we.
        const ITS_OWN: isize = 2;
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

/// Of what a [`Writer`] writes; other forms of MessagePack are refused.
struct Reader<'py, 'a> {
    py: Python<'py>,
    rest: &'a [u8],
}

impl<'py, 'a> Reader<'py, 'a> {
    fn value(&mut self, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        match self.byte()? {
            short @ SHORT_TEXT..=0xBF => self.text(usize::from(short & 31)),
            TEXT => self.sized().and_then(|len| self.text(len)),
            small @ (..=0x7F | 0xE0..) => self.int(small.cast_signed().into()),
            INT_32 => {
                let number = i32::from_be_bytes(self.word()?);
                self.int(number.into())
            }
            INT_64 => {
                let number = i64::from_be_bytes(self.word()?);
                self.int(number)
            }
            short @ SHORT_DICT..=0x8F => self.dict(usize::from(short & 15), depth),
            DICT => self.sized().and_then(|len| self.dict(len, depth)),
            short @ SHORT_LIST..=0x9F => self.list(usize::from(short & 15), depth),
            LIST => self.sized().and_then(|len| self.list(len, depth)),
            MARK => {
                let len = match self.byte()? {
                    short @ SHORT_LIST..=0x9F => usize::from(short & 15),
                    LIST => self.sized()?,
                    _ => return malformed(),
                };
                self.tuple(len, depth)
            }
            FLOAT => {
                let number = f64::from_be_bytes(self.word()?);
                #[allow(unsafe_code)]
                // SAFETY: the GIL is held.
                self.made(unsafe { ffi::PyFloat_FromDouble(number) })
            }
            FALSE => Ok(PyBool::new(py, false).to_owned().into_any()),
            TRUE => Ok(PyBool::new(py, true).to_owned().into_any()),
            NONE => Ok(py.None().into_bound(py)),
            BYTES => {
                let len = self.sized()?;
                Ok(bytes_object(py, self.take(len)?)?.into_any())
            }
            _ => malformed(),
        }
    }

    fn text(&mut self, len: usize) -> PyResult<Bound<'py, PyAny>> {
        Ok(texts::text(self.py, self.take(len)?)?.into_any())
    }

    fn int(&self, number: i64) -> PyResult<Bound<'py, PyAny>> {
        #[allow(unsafe_code)]
        // SAFETY: the GIL is held.
        self.made(unsafe { ffi::PyLong_FromLongLong(number) })
    }

    fn dict(&mut self, len: usize, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        self.check_depth(depth)?;
        #[allow(unsafe_code)]
        // SAFETY: the GIL is held.
        let dict = self.made(unsafe { ffi::PyDict_New() })?;
        let dict = dict.cast_into::<PyDict>()?;
        for _ in 0..len {
            // Nothing that has no hash: at that depth there are no lists.
            let key = self.value(MOST_DEPTH)?;
            dict.set_item(key, self.value(depth + 1)?)?;
        }
        Ok(dict.into_any())
    }

    fn list(&mut self, len: usize, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        self.check_depth(depth)?;
        #[allow(unsafe_code)]
        // SAFETY: the GIL is held.
        let list = self.made(unsafe { ffi::PyList_New(0) })?;
        let list = list.cast_into::<PyList>()?;
        for _ in 0..len {
            list.append(self.value(depth + 1)?)?;
        }
        Ok(list.into_any())
    }

    fn tuple(&mut self, len: usize, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        let list = self.list(len, depth)?;
        #[allow(unsafe_code)]
        // SAFETY: it is a list, and lives throughout the call.
        self.made(unsafe { ffi::PyList_AsTuple(list.as_ptr()) })
    }

    fn check_depth(&self, depth: u32) -> PyResult<()> {
        if depth < MOST_DEPTH {
            return Ok(());
        }
        malformed()
    }

    /// What a call in C returned: a new reference, or null and an exception.
    fn made(&self, object: *mut ffi::PyObject) -> PyResult<Bound<'py, PyAny>> {
        #[allow(unsafe_code)]
        // SAFETY: every caller passes on what such a call has returned.
        unsafe {
            Bound::from_owned_ptr_or_err(self.py, object)
        }
    }

    fn take(&mut self, len: usize) -> PyResult<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return malformed();
        };
        self.rest = rest;
        Ok(taken)
    }

    fn word<const BYTES: usize>(&mut self) -> PyResult<[u8; BYTES]> {
        let Some((word, rest)) = self.rest.split_first_chunk() else {
            return malformed();
        };
        self.rest = rest;
        Ok(*word)
    }

    fn byte(&mut self) -> PyResult<u8> {
        self.word().map(|[byte]| byte)
    }

    fn sized(&mut self) -> PyResult<usize> {
        Ok(u16::from_be_bytes(self.word()?).into())
    }
}

fn malformed<T>() -> PyResult<T> {
    Err(PyValueError::new_err(
        "the bytes are not a small message of builtin values",
    ))
}
