//! Regions of shared memory.

use std::ffi::c_int;
use std::os::fd::{AsFd, IntoRawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ipc_channel_transport::os::descriptor;
use ipc_channel_transport::{Error, Gone, SharedMemory};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::buffer::bytes_of;
use crate::delivery;
use crate::errors::{self, Subject};
use crate::parcel::LARGE;

/// A region of shared memory: a sealed memory file, mapped here. The constructor takes `source`'s region
/// over, which is then closed.
#[pyclass(subclass, frozen, module = "ipc_channel._core")]
pub struct Memory {
    region: Mutex<Option<Arc<SharedMemory>>>,
    len: usize,
    /// Views of this object.
    views: AtomicUsize,
}

impl Memory {
    pub fn of(region: Arc<SharedMemory>) -> Memory {
        Memory {
            len: region.len(),
            region: Mutex::new(Some(region)),
            views: AtomicUsize::new(0),
        }
    }

    /// The region, while the object is open.
    pub fn region(&self) -> Result<Arc<SharedMemory>, Error> {
        let region = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        region.clone().ok_or(Error::Gone(Gone::Closed))
    }

    fn open(&self, py: Python<'_>) -> PyResult<Arc<SharedMemory>> {
        self.region().map_err(|e| raise(py, e))
    }

    fn take(&self) -> PyResult<Option<Arc<SharedMemory>>> {
        let mut region = self.region.lock().unwrap_or_else(PoisonError::into_inner);
        if self.views.load(Ordering::Acquire) > 0 {
            return Err(PyBufferError::new_err(
                "this shared memory cannot be closed: a view of it exists (a memoryview, or an array on it)",
            ));
        }
        Ok(region.take())
    }
}

fn raise(py: Python<'_>, error: Error) -> PyErr {
    match error {
        Error::Gone(_) => match errors::class(py, pyo3::intern!(py, "ClosedError")) {
            Ok(class) => PyErr::from_type(class, "this shared memory is closed"),
            Err(error) => error,
        },
        error => errors::raise(py, error, Subject::Other),
    }
}

#[pymethods]
impl Memory {
    #[new]
    #[pyo3(signature = (source, /))]
    fn new(source: &Bound<'_, Memory>) -> PyResult<Memory> {
        match source.get().take()? {
            Some(region) => Ok(Memory::of(region)),
            None => Err(raise(source.py(), Error::Gone(Gone::Closed))),
        }
    }

    /// `size` zero bytes. Writable until frozen; never frozen if `mutable`.
    #[staticmethod]
    #[pyo3(signature = (size, mutable = false))]
    fn create_region(py: Python<'_>, size: usize, mutable: bool) -> PyResult<Memory> {
        let region = SharedMemory::create(size, mutable).map_err(|e| raise(py, e))?;
        Ok(Memory::of(Arc::new(region)))
    }

    /// A frozen copy of a C-contiguous buffer of bytes. Raises BufferError if it is none.
    #[staticmethod]
    #[pyo3(signature = (content, /))]
    fn copy_of(py: Python<'_>, content: PyBuffer<u8>) -> PyResult<Memory> {
        if !content.is_c_contiguous() {
            return Err(PyBufferError::new_err("a buffer is not contiguous"));
        }
        let bytes = bytes_of(&content);
        let copied = if bytes.len() < LARGE {
            SharedMemory::of_bytes(bytes)
        } else {
            py.detach(|| SharedMemory::of_bytes(bytes))
        };
        let region = copied.map_err(|e| raise(py, e))?;
        Ok(Memory::of(Arc::new(region)))
    }

    /// Nobody can write to it from now on, in any process. Sending does this.
    /// Raises BufferError while a writable view exists.
    fn freeze(&self, py: Python<'_>) -> PyResult<()> {
        let region = self.open(py)?;
        py.detach(|| region.freeze()).map_err(|e| raise(py, e))
    }

    /// Whether nobody can write to it.
    #[getter]
    fn frozen(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.open(py)?.is_frozen())
    }

    /// Whether it stays writable, here and for whoever receives it.
    #[getter]
    fn mutable(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.open(py)?.is_mutable())
    }

    /// Whether this object was closed.
    #[getter]
    fn closed(&self) -> bool {
        self.region().is_err()
    }

    /// Another object for the same region.
    fn clone_region(&self, py: Python<'_>) -> PyResult<Memory> {
        self.open(py).map(Memory::of)
    }

    /// Close this object; the memory goes when its last object in any process has.
    /// Raises BufferError while a view exists.
    fn close(&self) -> PyResult<()> {
        self.take().map(drop)
    }

    /// A new close-on-exec descriptor of the memory file, owned by the caller; frozen first unless mutable.
    fn duplicate_fd(&self, py: Python<'_>) -> PyResult<i32> {
        let region = self.open(py)?;
        region.freeze().map_err(|e| raise(py, e))?;
        let fd = descriptor::duplicate(region.file().as_fd()).map_err(|e| raise(py, e))?;
        Ok(fd.into_raw_fd())
    }

    fn __len__(&self) -> usize {
        self.len
    }

    #[allow(unsafe_code)]
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        // Counted before the lock is released, so that nobody closes the region under the view; and
        // released before Python runs again, which may ask for this object.
        let region = {
            let region = this.region.lock().unwrap_or_else(PoisonError::into_inner);
            this.views.fetch_add(1, Ordering::AcqRel);
            region.clone()
        };
        let filled = match &region {
            None => Err(raise(slf.py(), Error::Gone(Gone::Closed))),
            Some(region) => region
                .view()
                .map_err(|e| raise(slf.py(), e))
                .and_then(|start| {
                    let readonly = region.is_frozen();
                    // SAFETY: `view` keeps the mapping until `release`, which comes when the buffer is
                    // released; the buffer holds a reference to this object, which cannot be closed while
                    // it has views.
                    unsafe { delivery::fill(view, &slf, start.as_ptr(), this.len, readonly, flags) }
                        .inspect_err(|_| region.release())
                }),
        };
        if filled.is_err() {
            this.views.fetch_sub(1, Ordering::AcqRel);
        }
        filled
    }

    #[allow(unsafe_code)]
    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        if let Ok(region) = self.region() {
            region.release();
        }
        self.views.fetch_sub(1, Ordering::AcqRel);
    }
}
