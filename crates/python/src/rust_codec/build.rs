//! Putting Python objects together.

use std::cell::Cell;
use std::ptr::null_mut;

use pyo3::exceptions::PyUnicodeDecodeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyDict, PyString, PyTuple};
use serde_plan::decode::Build;
use serde_plan::fault::{Cause, Step};

use super::shapes::{Object, Shape};
use super::source::{show, step};
use crate::call;
use crate::delivery::bytes_object;
use crate::texts;

type Part<T> = Result<T, Cause<PyErr>>;

thread_local! {
    /// The memory of a stack that is not in use: allocating is a good part of the time that a small message takes.
    static SPARE: Cell<Vec<Py<PyAny>>> = const { Cell::new(Vec::new()) };
}

/// Calls `action` with a builder.
#[inline]
pub fn with_builder<'a, 'py, T>(
    py: Python<'py>,
    shapes: &'a [Shape],
    handles: Option<Bound<'py, PyAny>>,
    action: impl FnOnce(&mut Builder<'a, 'py>) -> T,
) -> T {
    /// A longer one is given back to the allocator.
    const KEPT: usize = 1024;
    SPARE.with(|spare| {
        // Whoever decodes inside a decoding, in a constructor say, finds an empty one.
        let stack = Stack {
            fields: spare.take(),
            py,
        };
        let mut builder = Builder {
            py,
            shapes,
            stack,
            handles,
        };
        let outcome = action(&mut builder);
        builder.stack.clear();
        if builder.stack.fields.capacity() <= KEPT {
            spare.set(std::mem::take(&mut builder.stack.fields));
        }
        outcome
    })
}

/// Fields that wait for their record to be complete, one after the other: as a call takes them.
struct Stack<'py> {
    fields: Vec<Py<PyAny>>,
    py: Python<'py>,
}

impl<'py> Stack<'py> {
    #[inline]
    fn push(&mut self, field: Bound<'py, PyAny>) {
        self.fields.push(field.unbind());
    }

    /// The last `len` ones, which stay.
    #[inline]
    fn last(&self, len: usize) -> &[Py<PyAny>] {
        &self.fields[self.fields.len() - len..]
    }

    /// Takes the last `len` ones off, in the order in which they came.
    fn take(&mut self, len: usize) -> Vec<Py<PyAny>> {
        self.fields.split_off(self.fields.len() - len)
    }

    /// Drops all.
    #[inline]
    fn clear(&mut self) {
        self.drop_last(self.fields.len());
    }

    /// Drops the last `len` ones.
    #[inline]
    fn drop_last(&mut self, len: usize) {
        for _ in 0..len {
            // Known to hold the GIL, which a `Py` by itself would have to ask.
            drop(self.fields.pop().map(|field| field.into_bound(self.py)));
        }
    }
}

impl Drop for Stack<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Makes Python objects of a message.
pub struct Builder<'a, 'py> {
    py: Python<'py>,
    shapes: &'a [Shape],
    stack: Stack<'py>,
    /// Makes the ends and regions of the message; None if it came without any.
    handles: Option<Bound<'py, PyAny>>,
}

impl<'py> Builder<'_, 'py> {
    /// What a call in C returned: a new reference, or null and an exception.
    #[inline]
    fn owned(&self, object: *mut ffi::PyObject) -> Part<Bound<'py, PyAny>> {
        #[allow(unsafe_code)]
        // SAFETY: every caller passes on what such a call has returned.
        unsafe { Bound::from_owned_ptr_or_err(self.py, object) }.map_err(Cause::Foreign)
    }

    /// Nothing, or an exception.
    #[inline]
    fn done(&self, status: std::ffi::c_int) -> Part<()> {
        if status == 0 {
            return Ok(());
        }
        Err(Cause::Foreign(PyErr::fetch(self.py)))
    }

    #[inline]
    fn str(&self, bytes: &[u8]) -> Part<Bound<'py, PyAny>> {
        match texts::text(self.py, bytes) {
            Ok(text) => Ok(text.into_any()),
            Err(error) if error.is_instance_of::<PyUnicodeDecodeError>(self.py) => {
                Err("a string is not UTF-8".into())
            }
            Err(error) => Err(Cause::Foreign(error)),
        }
    }

    /// Calls the class with the last fields of the stack.
    fn construct(&mut self, object: &Object, len: usize) -> Part<Bound<'py, PyAny>> {
        let class = object.class.bind(self.py);
        let fields = self.stack.last(len);
        let made = if object.keywords {
            let arguments = PyDict::new(self.py);
            for (name, field) in object.names.iter().zip(fields) {
                arguments.set_item(name, field).map_err(Cause::Foreign)?;
            }
            class.call((), Some(&arguments))
        } else {
            call::by_place(class, fields)
        };
        let made = made.map_err(Cause::Foreign)?;
        self.stack.drop_last(len);
        Ok(made)
    }

    /// A tuple of the last fields of the stack.
    fn tuple(&mut self, len: usize) -> Part<Bound<'py, PyTuple>> {
        PyTuple::new(self.py, self.stack.take(len)).map_err(Cause::Foreign)
    }

    fn handle(
        &self,
        method: &Bound<'py, PyString>,
        shape: u32,
        index: Option<u64>,
    ) -> Part<Bound<'py, PyAny>> {
        let Shape::Handle(handle) = &self.shapes[shape as usize] else {
            return Err("it is no handle".into());
        };
        match &self.handles {
            Some(handles) => handles
                .call_method1(method, (&handle.make, index))
                .map_err(Cause::Foreign),
            None => Err("it needs a handle, and the message carries none".into()),
        }
    }
}

/// A sequence or map in the making. Lists and tuples have their final length, and holes until they are complete.
pub enum Items<'py> {
    List(Bound<'py, PyAny>, ffi::Py_ssize_t),
    Row(Bound<'py, PyAny>, ffi::Py_ssize_t),
    Set(Bound<'py, PyAny>),
    Dict(Bound<'py, PyAny>),
}

impl<'py> Build for Builder<'_, 'py> {
    type Value = Bound<'py, PyAny>;
    type Error = PyErr;
    type Items = Items<'py>;

    #[inline]
    fn unit(&mut self) -> Self::Value {
        self.py.None().into_bound(self.py)
    }

    #[inline]
    fn bool(&mut self, value: bool) -> Self::Value {
        PyBool::new(self.py, value).to_owned().into_any()
    }

    #[inline]
    fn i64(&mut self, value: i64) -> Part<Self::Value> {
        #[allow(unsafe_code)]
        // SAFETY: the GIL is held.
        self.owned(unsafe { ffi::PyLong_FromLongLong(value) })
    }

    #[inline]
    fn u64(&mut self, value: u64) -> Part<Self::Value> {
        #[allow(unsafe_code)]
        // SAFETY: the GIL is held.
        self.owned(unsafe { ffi::PyLong_FromUnsignedLongLong(value) })
    }

    fn i128(&mut self, value: i128) -> Part<Self::Value> {
        match value.into_pyobject(self.py) {
            Ok(number) => Ok(number.into_any()),
            Err(never) => match never {},
        }
    }

    fn u128(&mut self, value: u128) -> Part<Self::Value> {
        match value.into_pyobject(self.py) {
            Ok(number) => Ok(number.into_any()),
            Err(never) => match never {},
        }
    }

    #[inline]
    fn f64(&mut self, value: f64) -> Part<Self::Value> {
        #[allow(unsafe_code)]
        // SAFETY: the GIL is held.
        self.owned(unsafe { ffi::PyFloat_FromDouble(value) })
    }

    fn char(&mut self, value: char) -> Part<Self::Value> {
        self.str(value.encode_utf8(&mut [0; 4]).as_bytes())
    }

    #[inline]
    fn text(&mut self, shape: u32, bytes: &[u8]) -> Part<Self::Value> {
        let text = self.str(bytes)?;
        match &self.shapes[shape as usize] {
            Shape::Path(class) => class.bind(self.py).call1((text,)).map_err(Cause::Foreign),
            _ => Ok(text),
        }
    }

    #[inline]
    fn bytes(&mut self, shape: u32, bytes: &[u8]) -> Part<Self::Value> {
        match &self.shapes[shape as usize] {
            Shape::OsString => {
                let (start, len) = (bytes.as_ptr().cast(), bytes.len() as ffi::Py_ssize_t);
                #[allow(unsafe_code)]
                // SAFETY: so many bytes are there.
                self.owned(unsafe { ffi::PyUnicode_DecodeFSDefaultAndSize(start, len) })
            }
            Shape::ByteArray => PyByteArray::new_with(self.py, bytes.len(), |copy| {
                copy.copy_from_slice(bytes);
                Ok(())
            })
            .map(Bound::into_any)
            .map_err(Cause::Foreign),
            shape => {
                let object = bytes_object(self.py, bytes).map_err(Cause::Foreign)?;
                match shape {
                    Shape::Packed(class) => {
                        class.bind(self.py).call1((object,)).map_err(Cause::Foreign)
                    }
                    _ => Ok(object.into_any()),
                }
            }
        }
    }

    #[inline]
    fn none(&mut self) -> Self::Value {
        self.unit()
    }

    fn items(&mut self, shape: u32, len: usize) -> Part<Items<'py>> {
        let size = len as ffi::Py_ssize_t;
        #[allow(unsafe_code)]
        // SAFETY: the GIL is held; the plan has seen that the message is long enough for so many items.
        unsafe {
            Ok(match &self.shapes[shape as usize] {
                Shape::List => Items::List(self.owned(ffi::PyList_New(size))?, 0),
                Shape::Set => Items::Set(self.owned(ffi::PySet_New(null_mut()))?),
                Shape::FrozenSet => Items::Set(self.owned(ffi::PyFrozenSet_New(null_mut()))?),
                _ => Items::Row(self.owned(ffi::PyTuple_New(size))?, 0),
            })
        }
    }

    #[inline]
    fn item(&mut self, items: &mut Items<'py>, item: Self::Value) -> Part<()> {
        #[allow(unsafe_code)]
        // SAFETY: the list or tuple has room for as many items as the plan adds, and takes the reference over;
        // the set takes one of its own. Nobody else has any of them yet.
        let status = unsafe {
            match items {
                Items::List(list, next) => {
                    *next += 1;
                    ffi::PyList_SetItem(list.as_ptr(), *next - 1, item.into_ptr())
                }
                Items::Row(tuple, next) => {
                    *next += 1;
                    ffi::PyTuple_SetItem(tuple.as_ptr(), *next - 1, item.into_ptr())
                }
                Items::Set(set) => ffi::PySet_Add(set.as_ptr(), item.as_ptr()),
                Items::Dict(_) => 0,
            }
        };
        self.done(status)
    }

    #[inline]
    fn sequence(&mut self, _: u32, items: Items<'py>) -> Part<Self::Value> {
        match items {
            Items::List(object, _)
            | Items::Row(object, _)
            | Items::Set(object)
            | Items::Dict(object) => Ok(object),
        }
    }

    fn entries(&mut self, _: u32) -> Part<Items<'py>> {
        Ok(Items::Dict(PyDict::new(self.py).into_any()))
    }

    #[inline]
    fn entry(
        &mut self,
        entries: &mut Items<'py>,
        key: Self::Value,
        value: Self::Value,
    ) -> Part<()> {
        let Items::Dict(dict) = entries else {
            return Ok(());
        };
        #[allow(unsafe_code)]
        // SAFETY: a dict and two objects, to which it takes references of its own.
        let status = unsafe { ffi::PyDict_SetItem(dict.as_ptr(), key.as_ptr(), value.as_ptr()) };
        self.done(status)
    }

    fn map(&mut self, shape: u32, entries: Items<'py>) -> Part<Self::Value> {
        self.sequence(shape, entries)
    }

    #[inline]
    fn field(&mut self, field: Self::Value) {
        self.stack.push(field);
    }

    #[inline]
    fn record(&mut self, shape: u32, len: usize) -> Part<Self::Value> {
        let shapes = self.shapes;
        match &shapes[shape as usize] {
            Shape::Object(object) => self.construct(object, len),
            _ => self.tuple(len).map(Bound::into_any),
        }
    }

    #[inline]
    fn variant(&mut self, _: u32, _: usize, content: Self::Value) -> Part<Self::Value> {
        Ok(content)
    }

    fn choice(&mut self, shape: u32, index: u32) -> Part<Self::Value> {
        match &self.shapes[shape as usize] {
            Shape::Choice(choice) => Ok(choice.members[index as usize].bind(self.py).clone()),
            _ => Err("it is no enum".into()),
        }
    }

    fn end(&mut self, shape: u32, index: u64) -> Part<Self::Value> {
        self.handle(intern!(self.py, "end"), shape, Some(index))
    }

    fn memory(&mut self, shape: u32, index: Option<u64>) -> Part<Self::Value> {
        self.handle(intern!(self.py, "region"), shape, index)
    }

    fn step(&self, shape: u32, field: usize) -> Step {
        step(&self.shapes[shape as usize], field, self.py)
    }

    fn show(&self, value: &Self::Value) -> String {
        show(value)
    }

    fn name(&self, shape: u32) -> String {
        match &self.shapes[shape as usize] {
            Shape::Union(union) => union.name.clone(),
            Shape::Choice(choice) => {
                let name = choice.class.bind(self.py).qualname();
                name.map_or_else(|_| "the enum".to_owned(), |name| name.to_string())
            }
            _ => "the enum".to_owned(),
        }
    }
}
