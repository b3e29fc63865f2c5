//! Received messages before they are decoded.

use std::ffi::c_int;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ipc_channel_transport::os::memory::Mapping;
use ipc_channel_transport::{Body, Message};
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

use crate::handle;

/// A received message before decoding. Dropping it closes whatever was not taken.
#[pyclass(frozen, module = "ipc_channel._core")]
pub struct Delivery {
    message: Mutex<Option<Message>>,
    plain: bool,
    len: usize,
}

impl Delivery {
    pub fn new(message: Message) -> Delivery {
        Delivery {
            plain: message.handles.is_empty() && message.buffers.is_empty(),
            len: message.payload.len(),
            message: Mutex::new(Some(message)),
        }
    }

    fn with<T>(&self, action: impl FnOnce(&mut Message) -> PyResult<T>) -> PyResult<T> {
        match &mut *self.message.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(message) => action(message),
            None => Err(PyValueError::new_err("this delivery was decoded or closed")),
        }
    }

    /// Drops what is left of it.
    pub fn discard(&self) {
        drop(self.take());
    }

    /// The message, to be decoded; a plain one stays here too, so that it can be decoded again.
    pub fn for_decoding(&self) -> PyResult<Message> {
        if self.plain {
            return self.with(|message| Ok(copy_of_plain(message)));
        }
        self.take()
            .ok_or_else(|| PyValueError::new_err("this delivery was decoded or closed"))
    }

    fn take(&self) -> Option<Message> {
        self.message
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

#[pymethods]
impl Delivery {
    /// The encoded message.
    #[getter]
    fn payload(&self, py: Python<'_>) -> PyResult<Py<PyBytes>> {
        self.with(|message| Ok(copied(py, message.payload())?.unbind()))
    }

    /// Takes the handles out, as bare objects; once only.
    #[getter]
    fn handles(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let handles = self.with(|message| Ok(std::mem::take(&mut message.handles)))?;
        handles
            .into_iter()
            .map(|received| handle::to_python(py, received))
            .collect()
    }

    /// The out-of-band buffers, read-only or writable as they were sent.
    #[getter]
    fn buffers(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        self.with(|message| {
            let buffers = message.buffers.iter();
            buffers
                .map(|(place, readonly)| buffer(py, &message.body, place, *readonly))
                .collect()
        })
    }

    /// Whether it carries neither handles nor buffers.
    #[getter]
    fn plain(&self) -> bool {
        self.plain
    }

    fn __len__(&self) -> usize {
        self.len
    }

    /// Closes the handles that were not taken.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.discard());
    }
}

fn buffer(
    py: Python<'_>,
    body: &Body,
    place: &Range<usize>,
    readonly: bool,
) -> PyResult<Py<PyAny>> {
    Ok(match body {
        Body::Sealed(mapping) if !place.is_empty() => {
            let view = View {
                mapping: mapping.clone(),
                place: place.clone(),
                readonly,
            };
            PyMemoryView::from(Bound::new(py, view)?.as_any())?
                .into_any()
                .unbind()
        }
        body if readonly => copied(py, &body.bytes()[place.clone()])?
            .into_any()
            .unbind(),
        body => {
            let bytes = &body.bytes()[place.clone()];
            let fill = |copy: &mut [u8]| {
                copy.copy_from_slice(bytes);
                Ok(())
            };
            PyByteArray::new_with(py, bytes.len(), fill)?
                .into_any()
                .unbind()
        }
    })
}

/// A copy as a bytes object. Its size is the peer's choice: MemoryError and not a panic if there is no room.
pub fn copied<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, bytes.len(), |copy| {
        copy.copy_from_slice(bytes);
        Ok(())
    })
}

/// Part of a received message where it lies. Writable parts are this process's own copies of the pages.
#[pyclass(frozen, module = "ipc_channel._core")]
pub struct View {
    mapping: Arc<Mapping>,
    place: Range<usize>,
    readonly: bool,
}

impl View {
    /// A message's payload: a copy if it is small, else where it lies.
    pub fn of_payload<'py>(py: Python<'py>, message: Message) -> PyResult<Bound<'py, PyAny>> {
        match &message.body {
            Body::Sealed(mapping) if !message.payload.is_empty() => {
                let place = message.payload.clone();
                let view = View {
                    mapping: mapping.clone(),
                    place,
                    readonly: true,
                };
                Ok(Bound::new(py, view)?.into_any())
            }
            _ => copied(py, message.payload()).map(Bound::into_any),
        }
    }
}

#[pymethods]
impl View {
    #[allow(unsafe_code)]
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        // SAFETY: `place` is a non-empty range inside the mapping, which lives as long as this object, and
        // the buffer holds a reference to this object. The file is sealed: only this process writes here.
        unsafe {
            let start = this.mapping.pointer().add(this.place.start);
            fill(view, &slf, start, this.place.len(), this.readonly, flags)
        }
    }
}

/// Fills a buffer request.
///
/// # Safety
/// `view` is CPython's; `start` points to `len` bytes that live as long as `owner`.
#[allow(unsafe_code)]
pub unsafe fn fill<T>(
    view: *mut ffi::Py_buffer,
    owner: &Bound<'_, T>,
    start: *mut u8,
    len: usize,
    readonly: bool,
    flags: c_int,
) -> PyResult<()> {
    if view.is_null() {
        return Err(PyBufferError::new_err("no view was given"));
    }
    // SAFETY: the caller's promise; FillInfo takes a reference to the owner or sets an exception.
    let filled = unsafe {
        ffi::PyBuffer_FillInfo(
            view,
            owner.as_ptr(),
            start.cast(),
            len as ffi::Py_ssize_t,
            readonly.into(),
            flags,
        )
    };
    if filled == 0 {
        Ok(())
    } else {
        Err(PyErr::fetch(owner.py()))
    }
}

fn copy_of_plain(message: &Message) -> Message {
    Message {
        body: match &message.body {
            Body::Inline(bytes) => Body::Inline(bytes.clone()),
            Body::Sealed(mapping) => Body::Sealed(mapping.clone()),
        },
        payload: message.payload.clone(),
        buffers: Vec::new(),
        handles: Vec::new(),
        seat: None,
    }
}
