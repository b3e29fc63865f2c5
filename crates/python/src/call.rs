//! Calling Python objects without making a tuple of the arguments.

use std::ptr::null_mut;
use std::slice::from_ref;
use std::sync::OnceLock;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

type Vectorcall = unsafe extern "C" fn(
    callable: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// `PyObject_Vectorcall`, which is part of the stable ABI from Python 3.12 on. Python 3.11 has it all the same, but an
/// extension for all versions from that on must not take it for granted.
fn vectorcall() -> Option<Vectorcall> {
    static FOUND: OnceLock<Option<Vectorcall>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        #[allow(unsafe_code)]
        // SAFETY: the name ends with a null, and what has that name has had this type since there is one.
        unsafe {
            let found = libc::dlsym(libc::RTLD_DEFAULT, c"PyObject_Vectorcall".as_ptr());
            (!found.is_null()).then(|| std::mem::transmute::<*mut libc::c_void, Vectorcall>(found))
        }
    })
}

/// Calls with one argument.
#[inline]
pub fn with_one<'py>(
    callable: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    by_place(callable, from_ref(argument.as_unbound()))
}

/// Calls with arguments by place.
#[inline]
pub fn by_place<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &[Py<PyAny>],
) -> PyResult<Bound<'py, PyAny>> {
    let py = callable.py();
    let Some(vectorcall) = vectorcall() else {
        return callable.call1(PyTuple::new(py, arguments)?);
    };
    // A `Py` is a pointer to an object, and nothing else.
    let start = arguments.as_ptr().cast::<*mut ffi::PyObject>();
    #[allow(unsafe_code)]
    // SAFETY: the GIL is held. So many objects are there, and borrowed, so they live throughout the call. What returns
    // is a new reference, or null with an exception set.
    unsafe {
        let result = vectorcall(callable.as_ptr(), start, arguments.len(), null_mut());
        Bound::from_owned_ptr_or_err(py, result)
    }
}
