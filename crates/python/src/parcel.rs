//! Messages that are encoded and not yet sent.

use ipc_channel_transport as transport;
use ipc_channel_transport::{Deadline, Error, HandleRef, Outgoing, RegionView};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use crate::buffer::{bytes_of, untyped};
use crate::delivery::bytes_object;
use crate::handle::OutgoingHandle;
use crate::scratch::Scratch;
use crate::timeout;

/// Bodies from this size on are copied and written without the GIL.
pub const LARGE: usize = 64 * 1024;

/// An encoded message that carries more than bytes: a payload, handles in the order of their indices,
/// and out-of-band buffers.
#[pyclass(frozen, module = "ipc_channel._core")]
pub struct Parcel {
    payload: PyBuffer<u8>,
    handles: Vec<OutgoingHandle>,
    buffers: Vec<PyBuffer<u8>>,
}

#[pymethods]
impl Parcel {
    #[new]
    #[pyo3(signature = (payload, handles = Vec::new(), buffers = Vec::new()))]
    fn new(
        payload: PyBuffer<u8>,
        handles: Vec<OutgoingHandle>,
        buffers: Vec<PyBuffer<u8>>,
    ) -> PyResult<Parcel> {
        if !payload.is_c_contiguous() || buffers.iter().any(|buffer| !contiguous(buffer)) {
            return Err(PyValueError::new_err("a buffer is not contiguous"));
        }
        Ok(Parcel {
            payload,
            handles,
            buffers,
        })
    }
}

fn contiguous(buffer: &PyBuffer<u8>) -> bool {
    buffer.is_c_contiguous() || buffer.is_fortran_contiguous()
}

/// What an encoder made of a message.
pub enum Encoded {
    /// Plain bytes.
    Bytes(Py<PyBytes>),
    /// The same, not made by Python.
    Written(Scratch),
    /// A buffer that is the message itself.
    Buffer(PyBuffer<u8>),
    /// More than bytes.
    Parcel(Py<Parcel>),
}

impl Encoded {
    /// From what a codec's `encode` returned.
    pub fn new(encoded: Bound<'_, PyAny>) -> PyResult<Encoded> {
        match encoded.cast_into::<PyBytes>() {
            Ok(bytes) => Ok(Encoded::Bytes(bytes.unbind())),
            Err(other) => Ok(Encoded::Parcel(
                other.into_inner().cast_into::<Parcel>()?.unbind(),
            )),
        }
    }

    /// What a codec's `encode` would have returned.
    pub fn into_object(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        match self {
            Encoded::Bytes(bytes) => Ok(bytes.into_bound(py).into_any()),
            Encoded::Written(bytes) => bytes_object(py, &bytes).map(Bound::into_any),
            Encoded::Buffer(buffer) => bytes_object(py, bytes_of(&buffer)).map(Bound::into_any),
            Encoded::Parcel(parcel) => Ok(parcel.into_bound(py).into_any()),
        }
    }

    /// From a message of a bytes channel.
    pub fn from_buffer(message: &Bound<'_, PyAny>) -> PyResult<Encoded> {
        if let Ok(bytes) = message.cast_exact::<PyBytes>() {
            return Ok(Encoded::Bytes(bytes.clone().unbind()));
        }
        match untyped(message) {
            Ok(buffer) if buffer.is_c_contiguous() => Ok(Encoded::Buffer(buffer)),
            // With gaps or in another order: a copy in the order of its indices. No buffer: says so again.
            _ => {
                let bytes =
                    PyMemoryView::from(message)?.call_method0(intern!(message.py(), "tobytes"))?;
                Ok(Encoded::Bytes(bytes.cast_into::<PyBytes>()?.unbind()))
            }
        }
    }

    /// The message, if it is bytes and nothing else.
    fn plain<'a>(&'a self, py: Python<'a>) -> Option<&'a [u8]> {
        match self {
            Encoded::Bytes(bytes) => Some(bytes.as_bytes(py)),
            Encoded::Written(bytes) => Some(bytes),
            Encoded::Buffer(buffer) => Some(bytes_of(buffer)),
            Encoded::Parcel(_) => None,
        }
    }

    /// Sends it through `sender`, waiting until `deadline`. Returns the payload bytes and handles sent.
    pub fn publish(
        &self,
        py: Python<'_>,
        sender: &transport::Sender,
        deadline: Deadline,
    ) -> PyResult<Result<(u64, u64), Error>> {
        let plain = self.plain(py);
        if let Some(payload) = plain {
            let sent = if payload.len() < LARGE {
                sender.send_plain(payload)
            } else {
                py.detach(|| sender.send_plain(payload))
            };
            match sent {
                Ok(true) => return Ok(Ok((payload.len() as u64, 0))),
                Ok(false) => {}
                Err(error) => return Ok(Err(error)),
            }
        }
        let none = Vec::new();
        let (payload, handles, buffers) = match self {
            Encoded::Parcel(parcel) => {
                let parcel = parcel.get();
                (
                    bytes_of(&parcel.payload),
                    &parcel.handles[..],
                    &parcel.buffers,
                )
            }
            _ => (plain.unwrap_or_default(), &[][..], &none),
        };
        let handles = handles
            .iter()
            .map(|handle| handle.hold(py))
            .collect::<PyResult<Vec<_>>>()?;
        let parcel = transport::Parcel {
            payload,
            buffers: buffers
                .iter()
                .map(|buffer| RegionView {
                    bytes: bytes_of(buffer),
                    readonly: buffer.readonly(),
                })
                .collect(),
            handles: handles
                .iter()
                .map(|held| (held.handle(), held.label()))
                .collect::<Vec<(HandleRef<'_>, u8)>>(),
        };
        let len = payload.len() + parcel.buffers.iter().map(|b| b.bytes.len()).sum::<usize>();
        // A region for a Rust program may have to be copied.
        let copies = sender.version().is_some() && !parcel.handles.is_empty();
        let outgoing = if len < LARGE && !copies {
            Outgoing::new(&parcel, Some(sender))
        } else {
            py.detach(|| Outgoing::new(&parcel, Some(sender)))
        };
        let outgoing = match outgoing {
            Ok(outgoing) => outgoing,
            Err(error) => return Ok(Err(error)),
        };
        let attempt = || sender.publish(&outgoing, Deadline::PASSED);
        let attempted = if len < LARGE {
            attempt()
        } else {
            py.detach(attempt)
        };
        let outcome = match attempted {
            Err(Error::Full) if !deadline.passed() => {
                timeout::interruptible(py, || sender.publish(&outgoing, deadline))?
            }
            outcome => outcome,
        };
        Ok(outcome.map(|()| {
            outgoing.delivered();
            (len as u64, handles.len() as u64)
        }))
    }
}

/// An encoded message that has not been sent. Its handles have not moved.
#[pyclass(frozen, module = "ipc_channel._core")]
pub struct Prepared(pub Encoded);
