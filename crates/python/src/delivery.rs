//! Received messages before they are decoded.

use std::ffi::c_int;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ipc_channel_transport::{Body, Message, Placed, Plain};
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
        self.with(|message| Ok(payload_of(py, message)?.unbind()))
    }

    /// Takes the handles out, as bare objects; once only.
    #[getter]
    fn handles(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let handles = self.with(|message| Ok(std::mem::take(&mut message.handles)))?;
        let copies = Arc::default();
        handles
            .into_iter()
            .map(|received| handle::to_python(py, received, &copies))
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
    let fill = |copy: &mut [u8]| {
        body.copy_out(place.start, copy);
        Ok(())
    };
    Ok(match body {
        Body::Placed(placed) if !place.is_empty() => {
            let view = View {
                placed: placed.clone(),
                place: place.clone(),
                readonly,
            };
            PyMemoryView::from(Bound::new(py, view)?.as_any())?
                .into_any()
                .unbind()
        }
        _ if readonly => PyBytes::new_with(py, place.len(), fill)?
            .into_any()
            .unbind(),
        _ => PyByteArray::new_with(py, place.len(), fill)?
            .into_any()
            .unbind(),
    })
}

/// A message's payload as a bytes object. Its size is the peer's choice: MemoryError and not a panic if there
/// is no room.
pub fn payload_of<'py>(py: Python<'py>, message: &Message) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, message.payload.len(), |copy| {
        message.copy_payload(copy);
        Ok(())
    })
}

/// A bytes object; MemoryError if there is no room for it.
#[inline]
pub fn bytes_object<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let (start, len) = (bytes.as_ptr().cast(), bytes.len() as ffi::Py_ssize_t);
    #[allow(unsafe_code)]
    // SAFETY: so many bytes are there, and are copied; a new bytes object comes back, or an exception is set.
    unsafe {
        let object = ffi::PyBytes_FromStringAndSize(start, len);
        Ok(Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked())
    }
}

/// The same, of a message that is still in its lane.
#[inline]
pub fn copy_of<'py>(py: Python<'py>, plain: &Plain<'_>) -> PyResult<Bound<'py, PyBytes>> {
    #[allow(unsafe_code)]
    // SAFETY: the pointer is to as many bytes of shared memory, which stay mapped while `plain` lives; whatever
    // another process does to them meanwhile changes only what is copied.
    unsafe {
        let bytes =
            ffi::PyBytes_FromStringAndSize(plain.pointer().cast(), plain.len() as ffi::Py_ssize_t);
        Ok(Bound::from_owned_ptr_or_err(py, bytes)?.cast_into_unchecked())
    }
}

/// Part of a received message where it lies. Writable parts of a sealed file are this process's own copies of
/// the pages; those of a lane are the receiver's until this is gone.
#[pyclass(frozen, module = "ipc_channel._core")]
pub struct View {
    placed: Arc<Placed>,
    place: Range<usize>,
    readonly: bool,
}

impl View {
    /// A message's payload, for a decoder: where it lies only if its sender cannot change it any more.
    pub fn to_decode<'py>(py: Python<'py>, message: Message) -> PyResult<Bound<'py, PyAny>> {
        match &message.body {
            Body::Placed(placed) if placed.is_constant() => View::where_it_lies(py, message),
            _ => payload_of(py, &message).map(Bound::into_any),
        }
    }

    /// A message's payload: a copy if it is small, else where it lies.
    pub fn where_it_lies<'py>(py: Python<'py>, message: Message) -> PyResult<Bound<'py, PyAny>> {
        match &message.body {
            Body::Placed(placed) if !message.payload.is_empty() => {
                let view = View {
                    placed: placed.clone(),
                    place: message.payload.clone(),
                    readonly: true,
                };
                Ok(Bound::new(py, view)?.into_any())
            }
            _ => payload_of(py, &message).map(Bound::into_any),
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
        let start = this.placed.pointer(&this.place);
        // SAFETY: `place` is a non-empty range of the message's bytes (`pointer` has checked it), which stay
        // mapped as long as this object lives, and the buffer holds a reference to this object. Another
        // process may write there while Python reads, as with any shared memory: that changes bytes only.
        unsafe { fill(view, &slf, start, this.place.len(), this.readonly, flags) }
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
    let mut copy = Message::plain(message.body.clone());
    copy.payload = message.payload.clone();
    copy
}
