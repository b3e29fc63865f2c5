//! Taking Python objects apart.

use std::ffi::c_int;

use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyIterator, PyList,
    PyMemoryView, PySet, PyString, PyTuple,
};
use serde_plan::encode::Source;
use serde_plan::fault::{Cause, Step};

use super::shapes::{Choice, Object, Shape};

type Part<T> = Result<T, Cause<PyErr>>;

/// Python objects as the source of a message, and the handles that were found in it.
pub struct Objects<'a, 'py> {
    py: Python<'py>,
    shapes: &'a [Shape],
    ends: Vec<Bound<'py, PyAny>>,
    regions: Vec<Bound<'py, PyAny>>,
}

impl<'a, 'py> Objects<'a, 'py> {
    pub fn new(py: Python<'py>, shapes: &'a [Shape]) -> Objects<'a, 'py> {
        Objects {
            py,
            shapes,
            ends: Vec::new(),
            regions: Vec::new(),
        }
    }

    /// All handles of the message, ends before regions; None if there are none.
    pub fn handles(mut self) -> Option<Vec<Bound<'py, PyAny>>> {
        if self.ends.is_empty() && self.regions.is_empty() {
            return None;
        }
        self.ends.append(&mut self.regions);
        Some(self.ends)
    }
}

/// How the fields of a record are read.
#[derive(Clone, Copy)]
pub enum Access<'a> {
    /// By place.
    Tuple,
    /// By the descriptors of exactly that class.
    Slots(&'a Object),
    /// By name.
    Names(&'a Object),
}

/// What is gone through one by one.
pub enum Items<'py> {
    /// The next one, and how many there were.
    List(Bound<'py, PyList>, usize, usize),
    Tuple(Bound<'py, PyTuple>, usize),
    Set(Bound<'py, PyIterator>),
    Dict(Bound<'py, PyDict>, ffi::Py_ssize_t),
}

#[cold]
fn expected<T>(what: &str, value: &Bound<'_, PyAny>) -> Part<T> {
    Err(format!("expected {what}, got {}", kind(value)).into())
}

/// The name of an object's type.
fn kind(value: &Bound<'_, PyAny>) -> String {
    if value.is_none() {
        return "None".to_owned();
    }
    let name = value.get_type().qualname();
    name.map_or_else(|_| "something else".to_owned(), |name| name.to_string())
}

/// An object as users know it, for errors.
pub fn show(value: &Bound<'_, PyAny>) -> String {
    const MOST: usize = 60;
    let Ok(text) = value.repr() else {
        return kind(value);
    };
    let text = text.to_string_lossy().into_owned();
    match text.char_indices().nth(MOST) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// The fields of a record, for errors.
pub fn step(shape: &Shape, field: usize, py: Python<'_>) -> Step {
    match shape {
        Shape::Object(object) => {
            let name = object
                .names
                .get(field)
                .map(|name| name.bind(py).to_string());
            Step::Field(name.unwrap_or_default())
        }
        _ => Step::Index(field),
    }
}

#[cold]
fn other_length<T>(len: usize, given: usize) -> Part<T> {
    Err(format!("expected a tuple of {len} items, got one of {given}").into())
}

/// Foreign exceptions as causes.
fn raised<T>(outcome: PyResult<T>) -> Part<T> {
    outcome.map_err(Cause::Foreign)
}

/// Integers, bool included, as type checkers have it; nothing that only could be made into one.
#[inline]
fn is_int(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyInt>() || value.is_instance_of::<PyInt>()
}

#[inline]
fn i64_of(value: &Bound<'_, PyAny>) -> Part<Option<i64>> {
    if !is_int(value) {
        return expected("int", value);
    }
    let mut overflow: c_int = 0;
    #[allow(unsafe_code)]
    // SAFETY: it is an int, for which this call raises nothing.
    let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &raw mut overflow) };
    Ok((overflow == 0).then_some(number))
}

/// A str's UTF-8, which Python keeps with the object.
#[inline(always)]
fn utf8<'v>(value: &'v Bound<'_, PyAny>) -> Part<&'v str> {
    if !value.is_exact_instance_of::<PyString>() && !value.is_instance_of::<PyString>() {
        return expected("str", value);
    }
    let mut len: ffi::Py_ssize_t = 0;
    #[allow(unsafe_code)]
    // SAFETY: it is a str. What is returned is valid UTF-8 and lives as long as the object.
    unsafe {
        let start = ffi::PyUnicode_AsUTF8AndSize(value.as_ptr(), &raw mut len);
        if start.is_null() {
            return without_utf8(value.py());
        }
        let bytes = std::slice::from_raw_parts(start.cast::<u8>(), len as usize);
        Ok(std::str::from_utf8_unchecked(bytes))
    }
}

/// Why a str has no UTF-8.
#[cold]
fn without_utf8<T>(py: Python<'_>) -> Part<T> {
    let error = PyErr::fetch(py);
    if error.is_instance_of::<PyUnicodeEncodeError>(py) {
        return Err("a surrogate in it is no character that a Rust string can have".into());
    }
    Err(Cause::Foreign(error))
}

fn with_bytes(value: &Bound<'_, PyAny>, take: impl FnOnce(&[u8])) -> Part<()> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        take(bytes.as_bytes());
        return Ok(());
    }
    if !value.is_instance_of::<PyByteArray>() && !value.is_instance_of::<PyMemoryView>() {
        return expected("bytes", value);
    }
    // A copy: others may write to it meanwhile.
    let copy = value.py().get_type::<PyBytes>().call1((value,));
    take(raised(copy.and_then(|copy| Ok(copy.cast_into::<PyBytes>()?)))?.as_bytes());
    Ok(())
}

impl<'a, 'py> Source for Objects<'a, 'py> {
    type Value = Bound<'py, PyAny>;
    type Error = PyErr;
    type Items = Items<'py>;
    type Record = Access<'a>;

    #[inline]
    fn unit(&mut self, value: &Self::Value) -> Part<()> {
        if value.is_none() {
            return Ok(());
        }
        expected("None", value)
    }

    #[inline]
    fn bool(&mut self, value: &Self::Value) -> Part<bool> {
        match value.cast::<PyBool>() {
            Ok(value) => Ok(value.is_true()),
            Err(_) => expected("bool", value),
        }
    }

    #[inline]
    fn i64(&mut self, value: &Self::Value) -> Part<Option<i64>> {
        i64_of(value)
    }

    #[inline]
    fn u64(&mut self, value: &Self::Value) -> Part<Option<u64>> {
        match i64_of(value)? {
            Some(number) => Ok(u64::try_from(number).ok()),
            // Of those that no i64 holds, some are u64s.
            None => Ok(value.extract().ok()),
        }
    }

    fn i128(&mut self, value: &Self::Value) -> Part<Option<i128>> {
        match i64_of(value)? {
            Some(number) => Ok(Some(number.into())),
            None => Ok(value.extract().ok()),
        }
    }

    fn u128(&mut self, value: &Self::Value) -> Part<Option<u128>> {
        match i64_of(value)? {
            Some(number) => Ok(u128::try_from(number).ok()),
            None => Ok(value.extract().ok()),
        }
    }

    #[inline]
    fn f64(&mut self, value: &Self::Value) -> Part<Option<f64>> {
        if let Ok(value) = value.cast::<PyFloat>() {
            return Ok(Some(value.value()));
        }
        if !is_int(value) {
            return expected("float", value);
        }
        // An int where a float is wanted is fine for type checkers; one beyond every float is not.
        Ok(value.extract().ok())
    }

    fn char(&mut self, value: &Self::Value) -> Part<char> {
        let text = utf8(value)?;
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(character),
            _ => {
                let count = text.chars().count();
                Err(format!("expected a str of one character, got one of {count}").into())
            }
        }
    }

    #[inline(always)]
    fn text(&mut self, shape: u32, value: &Self::Value, take: impl FnOnce(&str)) -> Part<()> {
        match &self.shapes[shape as usize] {
            Shape::Path(class) => {
                if !raised(value.is_instance(class.bind(self.py)))? {
                    return expected("Path", value);
                }
                take(utf8(raised(value.str())?.as_any())?);
            }
            _ => take(utf8(value)?),
        }
        Ok(())
    }

    fn bytes(&mut self, shape: u32, value: &Self::Value, take: impl FnOnce(&[u8])) -> Part<()> {
        match &self.shapes[shape as usize] {
            Shape::OsString => {
                if !value.is_instance_of::<PyString>() {
                    return expected("str", value);
                }
                #[allow(unsafe_code)]
                // SAFETY: it is a str; a new reference comes back, or an exception is set.
                let bytes = raised(unsafe {
                    Bound::from_owned_ptr_or_err(
                        self.py,
                        ffi::PyUnicode_EncodeFSDefault(value.as_ptr()),
                    )
                })?;
                with_bytes(&bytes, take)
            }
            Shape::Packed(class) => {
                let class = class.bind(self.py);
                if !raised(value.is_instance(class))? {
                    return expected(&raised(class.name())?.to_string_lossy(), value);
                }
                let scope = raised(value.getattr_opt(intern!(self.py, "scope_id")))?;
                if scope.is_some_and(|scope| !scope.is_none()) {
                    return Err("Rust's address has no scope".into());
                }
                with_bytes(&raised(value.getattr(intern!(self.py, "packed")))?, take)
            }
            _ => with_bytes(value, take),
        }
    }

    #[inline]
    fn is_some(&mut self, value: &Self::Value) -> bool {
        !value.is_none()
    }

    #[inline]
    fn items(&mut self, shape: u32, value: &Self::Value) -> Part<(Items<'py>, usize)> {
        match &self.shapes[shape as usize] {
            Shape::List => match value.cast::<PyList>() {
                Ok(list) => {
                    let len = list.len();
                    Ok((Items::List(list.clone(), 0, len), len))
                }
                Err(_) => expected("list", value),
            },
            Shape::Row => match value.cast::<PyTuple>() {
                Ok(tuple) => Ok((Items::Tuple(tuple.clone(), 0), tuple.len())),
                Err(_) => expected("tuple", value),
            },
            shape => {
                let frozen = matches!(shape, Shape::FrozenSet);
                let fits = if frozen {
                    value.is_instance_of::<PyFrozenSet>()
                } else {
                    value.is_instance_of::<PySet>()
                };
                if !fits {
                    return expected(if frozen { "frozenset" } else { "set" }, value);
                }
                let len = raised(value.len())?;
                Ok((Items::Set(raised(value.try_iter())?), len))
            }
        }
    }

    #[inline(always)]
    fn item(&mut self, items: &mut Items<'py>) -> Part<Option<Self::Value>> {
        match items {
            Items::List(list, next, len) => {
                if *next >= *len && *next >= list.len() {
                    return Ok(None);
                }
                *next += 1;
                // It may have become shorter.
                Ok(list.get_item(*next - 1).ok())
            }
            Items::Tuple(tuple, next) => {
                if *next >= tuple.len() {
                    return Ok(None);
                }
                *next += 1;
                raised(tuple.get_item(*next - 1)).map(Some)
            }
            Items::Set(iterator) => raised(iterator.next().transpose()),
            Items::Dict(..) => Ok(None),
        }
    }

    fn entries(&mut self, _: u32, value: &Self::Value) -> Part<(Items<'py>, usize)> {
        match value.cast::<PyDict>() {
            Ok(dict) => Ok((Items::Dict(dict.clone(), 0), dict.len())),
            Err(_) => expected("dict", value),
        }
    }

    fn entry(&mut self, entries: &mut Items<'py>) -> Part<Option<(Self::Value, Self::Value)>> {
        let Items::Dict(dict, place) = entries else {
            return Ok(None);
        };
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        #[allow(unsafe_code)]
        // SAFETY: PyDict_Next bears any place, also in a dict that was changed meanwhile, and lends references
        // that are taken before anything else runs.
        unsafe {
            if ffi::PyDict_Next(dict.as_ptr(), place, &raw mut key, &raw mut value) == 0 {
                return Ok(None);
            }
            Ok(Some((
                Bound::from_borrowed_ptr(self.py, key),
                Bound::from_borrowed_ptr(self.py, value),
            )))
        }
    }

    #[inline(always)]
    fn record(&mut self, shape: u32, value: &Self::Value) -> Part<Access<'a>> {
        match &self.shapes[shape as usize] {
            Shape::Object(object) => {
                if value.get_type_ptr() == object.class.as_ptr().cast() {
                    return Ok(if object.slots.is_empty() {
                        Access::Names(object)
                    } else {
                        Access::Slots(object)
                    });
                }
                let class = object.class.bind(self.py);
                if raised(value.is_instance(class))? {
                    return Ok(Access::Names(object));
                }
                expected(&raised(class.qualname())?.to_string_lossy(), value)
            }
            Shape::Tuple(len) => match value.cast::<PyTuple>() {
                Ok(tuple) if tuple.len() == *len => Ok(Access::Tuple),
                Ok(tuple) => other_length(*len, tuple.len()),
                Err(_) => expected("tuple", value),
            },
            _ => Err("it is no record".into()),
        }
    }

    #[inline(always)]
    fn field(
        &mut self,
        record: Access<'a>,
        value: &Self::Value,
        number: usize,
    ) -> Part<Self::Value> {
        raised(match record {
            Access::Slots(object) => {
                let slot = &object.slots[number];
                #[allow(unsafe_code)]
                // SAFETY: the object is of exactly the class that has this descriptor, whose own function is
                // called; a new reference comes back, or an exception is set.
                unsafe {
                    Bound::from_owned_ptr_or_err(
                        self.py,
                        (slot.get)(
                            slot.descriptor.as_ptr(),
                            value.as_ptr(),
                            object.class.as_ptr(),
                        ),
                    )
                }
            }
            Access::Names(object) => value.getattr(object.names[number].bind(self.py)),
            Access::Tuple => value
                .cast::<PyTuple>()
                .map_err(PyErr::from)
                .and_then(|tuple| tuple.get_item(number)),
        })
    }

    fn variant(&mut self, shape: u32, value: &Self::Value) -> Part<usize> {
        let Shape::Union(union) = &self.shapes[shape as usize] else {
            return Err("it is no enum".into());
        };
        let exactly = value.get_type_ptr().cast();
        if let Some(place) = union
            .classes
            .iter()
            .position(|class| class.as_ptr() == exactly)
        {
            return Ok(place);
        }
        for (place, class) in union.classes.iter().enumerate() {
            if raised(value.is_instance(class.bind(self.py)))? {
                return Ok(place);
            }
        }
        expected(&union.name, value)
    }

    fn choice(&mut self, shape: u32, value: &Self::Value) -> Part<u32> {
        let Shape::Choice(Choice { class, places, .. }) = &self.shapes[shape as usize] else {
            return Err("it is no enum".into());
        };
        match places.get(&(value.as_ptr() as usize)) {
            Some(place) => Ok(*place),
            None => expected(
                &raised(class.bind(self.py).qualname())?.to_string_lossy(),
                value,
            ),
        }
    }

    fn end(&mut self, shape: u32, value: &Self::Value) -> Part<usize> {
        self.admit(shape, value)?;
        self.ends.push(value.clone());
        Ok(self.ends.len() - 1)
    }

    fn memory(&mut self, shape: u32, value: &Self::Value) -> Part<Option<usize>> {
        self.admit(shape, value)?;
        if raised(value.len())? == 0 {
            return Ok(None);
        }
        self.regions.push(value.clone());
        Ok(Some(self.regions.len() - 1))
    }

    fn step(&self, shape: u32, field: usize) -> Step {
        step(&self.shapes[shape as usize], field, self.py)
    }

    fn show(&self, value: &Self::Value) -> String {
        show(value)
    }
}

impl<'py> Objects<'_, 'py> {
    fn admit(&self, shape: u32, value: &Bound<'py, PyAny>) -> Part<()> {
        let Shape::Handle(handle) = &self.shapes[shape as usize] else {
            return Err(Cause::Foreign(PyTypeError::new_err("it is no handle")));
        };
        raised(handle.admit.bind(self.py).call1((value,)).map(drop))
    }
}
