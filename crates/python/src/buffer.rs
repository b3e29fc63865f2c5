//! Buffers of Python objects as bytes.

use pyo3::buffer::PyBuffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

/// A buffer of any item type as bytes.
pub fn untyped(object: &Bound<'_, PyAny>) -> PyResult<PyBuffer<u8>> {
    PyBuffer::<u8>::get(object).or_else(|first| {
        let py = object.py();
        let view = PyMemoryView::from(object).map_err(|_| first)?;
        let bytes = view.call_method1(intern!(py, "cast"), ("B",))?;
        PyBuffer::<u8>::get(&bytes)
    })
}

/// The bytes of a contiguous buffer. Another thread may write to them while they are copied; then that is
/// what is sent, as with any buffer given to the operating system.
pub fn bytes_of(buffer: &PyBuffer<u8>) -> &[u8] {
    if buffer.len_bytes() == 0 {
        return &[];
    }
    #[allow(unsafe_code)]
    // SAFETY: the buffer is contiguous (checked when it was taken) and exported, so its memory stays where
    // it is while `buffer` lives. The bytes are only copied, by system calls or memcpy.
    unsafe {
        std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.len_bytes())
    }
}
