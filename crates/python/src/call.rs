//! Calling Python objects without making a tuple of the arguments, or a dict of their names.

use std::ptr::null_mut;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

#[allow(unsafe_code)]
unsafe extern "C" {
    /// Of the stable ABI from Python 3.12 on, and in the library of 3.11 all the same.
    fn PyObject_Vectorcall(
        callable: *mut ffi::PyObject,
        arguments: *const *mut ffi::PyObject,
        positional: usize,
        names: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
}

/// Calls with arguments by place.
#[inline]
pub fn by_place<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &[Py<PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    call(callable, arguments, arguments.len(), null_mut())
}

/// Calls with arguments by name, of which there are as many.
#[inline]
pub fn by_name<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &[Py<PyAny>],
    names: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    assert_eq!(names.len(), arguments.len(), "a name for each argument");
    call(callable, arguments, 0, names.as_ptr())
}

#[inline]
fn call<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &[Py<PyAny>],
    positional: usize,
    names: *mut ffi::PyObject,
) -> PyResult<Bound<'py, PyAny>> {
    // A `Py` is a pointer to an object, and nothing else.
    let arguments = arguments.as_ptr().cast::<*mut ffi::PyObject>();
    #[allow(unsafe_code)]
    // SAFETY: the GIL is held. The callers give as many objects as they say, by place and by name together; these are
    // borrowed, so they live throughout the call. What returns is a new reference, or null with an exception set.
    unsafe {
        let result = PyObject_Vectorcall(callable.as_ptr(), arguments, positional, names);
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}
