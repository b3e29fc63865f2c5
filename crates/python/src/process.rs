//! Ends that come into this process by other ways than messages, and forks.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use ipc_channel_transport as transport;
use ipc_channel_transport::{Error, SharedMemory, os, wire};
use pyo3::exceptions::{PyImportError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::codec;
use crate::errors::{self, Subject};
use crate::file::File;
use crate::handle;
use crate::listener::Listener;
use crate::memory::Memory;
use crate::receiver_end::ReceiverEnd;
use crate::receiver_set::ReceiverSetCore;
use crate::sender_end::SenderEnd;
use crate::timeout;

/// The transport's state is the process's, and what this module keeps of Python is one interpreter's.
pub fn refuse_subinterpreters(_py: Python<'_>) -> PyResult<()> {
    #[allow(unsafe_code)]
    // SAFETY: the GIL is held, so there is a current interpreter; both calls only read.
    let id = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if id == 0 {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "ipc_channel works in a process's main interpreter only, and this is a subinterpreter; \
         use it in the main interpreter or in a process of its own",
    ))
}

/// Takes a descriptor over if `check` likes it; otherwise it stays whose it was.
fn adopt(
    py: Python<'_>,
    fd: RawFd,
    check: impl FnOnce(BorrowedFd<'_>) -> Result<(), Error>,
) -> PyResult<OwnedFd> {
    let raise = |error| errors::raise(py, error, Subject::Other);
    if fd < 0 {
        return Err(raise(Error::Protocol(format!(
            "{fd} is not a file descriptor"
        ))));
    }
    #[allow(unsafe_code)]
    // SAFETY: borrowed for the check only; the kernel says EBADF for a number that is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    check(borrowed).map_err(raise)?;
    os::descriptor::set_close_on_exec(borrowed).map_err(raise)?;
    #[allow(unsafe_code)]
    // SAFETY: the caller gives the descriptor away, and it is open.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes ownership of a sender's descriptor. Raises ProtocolError if it is no channel's socket.
#[pyfunction]
pub fn adopt_sender(py: Python<'_>, fd: RawFd, label: u8) -> PyResult<SenderEnd> {
    let socket = adopt(py, fd, os::descriptor::check_channel_socket)?;
    let sender = transport::Sender::from_socket(socket);
    Ok(SenderEnd::bare(sender, label))
}

/// Takes ownership of a receiver's descriptor. Raises ProtocolError if it is no channel's socket.
#[pyfunction]
pub fn adopt_receiver(py: Python<'_>, fd: RawFd, label: u8) -> PyResult<ReceiverEnd> {
    let socket = adopt(py, fd, os::descriptor::check_channel_socket)?;
    let receiver = transport::Receiver::from_socket(socket);
    let receiver = receiver.map_err(|e| errors::raise(py, e, Subject::Receiver))?;
    Ok(ReceiverEnd::bare(receiver, label))
}

/// Takes ownership of a descriptor that `envelope` or a departure has made, and takes the end out of it: a
/// SenderEnd or a ReceiverEnd. Raises ProtocolError if it holds none; then it stays the caller's.
#[pyfunction]
pub fn open_envelope(py: Python<'_>, fd: RawFd) -> PyResult<Py<PyAny>> {
    let envelope = adopt(py, fd, os::descriptor::check_channel_socket)?;
    let twin = os::descriptor::duplicate(envelope.as_fd());
    match twin.and_then(transport::envelope::open) {
        Ok(received) => handle::to_python(py, received, &Arc::default()),
        Err(error) => {
            let _ = envelope.into_raw_fd();
            Err(errors::raise(py, error, Subject::Other))
        }
    }
}

/// Takes ownership of a shared memory's descriptor. Raises ProtocolError unless it is sealed.
#[pyfunction]
pub fn adopt_memory(py: Python<'_>, fd: RawFd) -> PyResult<Memory> {
    let file = adopt(py, fd, |fd| {
        os::descriptor::check_sealed_memory(fd).map(drop)
    })?;
    let region = SharedMemory::from_file(file);
    let region = region.map_err(|e| errors::raise(py, e, Subject::Other))?;
    Ok(Memory::of(Arc::new(region)))
}

/// Takes ownership of any descriptor.
#[pyfunction]
pub fn adopt_file(py: Python<'_>, fd: RawFd) -> PyResult<File> {
    Ok(File::owning(adopt(py, fd, |_| Ok(()))?))
}

/// Changes in every child made by fork.
#[pyfunction]
pub fn generation() -> u64 {
    os::fork::generation()
}

/// The largest body, in bytes, that travels inside a packet.
#[pyfunction]
pub fn native_max_inline() -> usize {
    wire::native::MAX_INLINE
}

/// The largest payload, in bytes, that a Rust program with that version of the crate gets in one packet.
#[pyfunction]
pub fn rust_max_packet(version: u8) -> PyResult<usize> {
    let size = wire::rust::buffer_size();
    Ok(codec::version(version)?.largest_first(size))
}

/// What waits in this process until Rust programs make room for it: for each channel the type of its messages and how
/// many they are. What this process alone could receive is left out.
#[pyfunction]
pub fn unwritten() -> Vec<(String, usize)> {
    let held = transport::frames::held().into_iter();
    held.map(|held| (held.about, held.messages)).collect()
}

/// Waits until nothing of that does, `timeout` seconds at most; whether nothing does. What is sent meanwhile is not
/// waited for.
#[pyfunction]
#[pyo3(signature = (timeout = None))]
pub fn wait_until_written(py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
    let deadline = timeout::deadline(timeout)?;
    let unwritten = transport::frames::Unwritten::now();
    let waited = timeout::interruptible(py, || unwritten.wait(deadline))?;
    match waited {
        Ok(()) => Ok(true),
        Err(Error::TimedOut) => Ok(false),
        Err(error) => Err(errors::raise(py, error, Subject::Other)),
    }
}

/// Closes every end that this process inherited through fork, except those in `keep`; how many.
#[pyfunction]
pub fn close_inherited(keep: Vec<Bound<'_, PyAny>>) -> PyResult<usize> {
    let mut ids = Vec::new();
    for object in keep {
        if let Ok(sender) = object.cast::<SenderEnd>() {
            ids.push(sender.get().sender.end().id());
        } else if let Ok(receiver) = object.cast::<ReceiverEnd>() {
            ids.push(receiver.get().receiver.end().id());
        } else if let Ok(set) = object.cast::<ReceiverSetCore>() {
            ids.extend(set.get().set.ids());
        } else if let Ok(listener) = object.cast::<Listener>() {
            ids.push(listener.get().listener.end().id());
        } else {
            return Err(PyTypeError::new_err(format!(
                "close_inherited keeps ends, not {}",
                object.get_type().repr()?
            )));
        }
    }
    Ok(transport::close_inherited(&ids))
}
