//! What may travel beside the bytes of a message, from Python and to Python.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ipc_channel_transport::os::descriptor;
use ipc_channel_transport::{Copies, Handle, HandleRef, Received, SharedMemory};
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;

use crate::errors::{self, Subject};
use crate::file::File;
use crate::foreign::Foreign;
use crate::memory::Memory;
use crate::receiver_end::ReceiverEnd;
use crate::sender_end::SenderEnd;

/// A handle to be sent, as Python holds it.
pub enum OutgoingHandle {
    Sender(Py<SenderEnd>),
    Receiver(Py<ReceiverEnd>),
    Memory(Py<Memory>),
    File(Py<File>),
}

impl<'a, 'py> FromPyObject<'a, 'py> for OutgoingHandle {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<OutgoingHandle> {
        if let Ok(sender) = object.cast::<SenderEnd>() {
            Ok(OutgoingHandle::Sender(sender.to_owned().unbind()))
        } else if let Ok(receiver) = object.cast::<ReceiverEnd>() {
            Ok(OutgoingHandle::Receiver(receiver.to_owned().unbind()))
        } else if let Ok(memory) = object.cast::<Memory>() {
            Ok(OutgoingHandle::Memory(memory.to_owned().unbind()))
        } else if let Ok(file) = object.cast::<File>() {
            Ok(OutgoingHandle::File(file.to_owned().unbind()))
        } else {
            Err(PyTypeError::new_err(format!(
                "a message carries senders, receivers, shared memory and files, not {}",
                object.get_type().repr()?
            )))
        }
    }
}

/// A handle to be sent, kept alive until it is.
pub enum Held<'a> {
    Sender(&'a SenderEnd),
    Receiver(&'a ReceiverEnd),
    Memory(Arc<SharedMemory>),
    File(Arc<OwnedFd>),
    BorrowedFile(std::os::fd::BorrowedFd<'a>),
}

impl OutgoingHandle {
    /// Raises ClosedError if it is closed or moved.
    pub fn hold(&self, py: Python<'_>) -> PyResult<Held<'_>> {
        let raise = |subject| move |error| errors::raise(py, error, subject);
        Ok(match self {
            OutgoingHandle::Sender(sender) => {
                let open = sender.get().sender.end().socket();
                open.map_err(raise(Subject::InnerSender))?;
                Held::Sender(sender.get())
            }
            OutgoingHandle::Receiver(receiver) => {
                let open = receiver.get().receiver.end().socket();
                open.map_err(raise(Subject::InnerReceiver))?;
                receiver.get().check_nothing_kept(py)?;
                Held::Receiver(receiver.get())
            }
            OutgoingHandle::Memory(memory) => {
                Held::Memory(memory.get().region().map_err(raise(Subject::InnerMemory))?)
            }
            OutgoingHandle::File(file) => file.get().hold().map_err(raise(Subject::InnerFile))?,
        })
    }
}

impl Held<'_> {
    pub fn handle(&self) -> HandleRef<'_> {
        match self {
            Held::Sender(sender) => HandleRef::Sender(&sender.sender),
            Held::Receiver(receiver) => HandleRef::Receiver(&receiver.receiver),
            Held::Memory(region) => HandleRef::Memory(region),
            Held::File(file) => HandleRef::File(file.as_fd()),
            Held::BorrowedFile(file) => HandleRef::File(*file),
        }
    }

    pub fn label(&self) -> u8 {
        match self {
            Held::Sender(sender) => sender.label,
            Held::Receiver(receiver) => receiver.label,
            _ => 0,
        }
    }
}

/// A received handle as a bare object of this module. `copies` are those of its message.
pub fn to_python(py: Python<'_>, received: Received, copies: &Arc<Copies>) -> PyResult<Py<PyAny>> {
    let label = received.label;
    Ok(match received.handle {
        Handle::Sender(sender) => Py::new(py, SenderEnd::bare(sender, label))?.into_any(),
        Handle::Receiver(receiver) => Py::new(py, ReceiverEnd::bare(receiver, label))?.into_any(),
        Handle::Memory(region) => Py::new(py, Memory::of(region))?.into_any(),
        Handle::File(file) => Py::new(py, File::owning(file))?.into_any(),
        Handle::Foreign(fd) => Py::new(py, Foreign::of(fd, copies.clone()))?.into_any(),
    })
}

/// Closes received handles, and what was made of some, as their `close` does. Files of unknown kind are closed together:
/// one of them may take as long as its sender likes, and each that is closed alone takes a thread and a moment.
#[pyfunction]
pub fn close_handles(py: Python<'_>, handles: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
    let mut unknown = Vec::new();
    let mut outcome = Ok(());
    for handle in handles {
        if let Ok(file) = handle.cast::<File>() {
            unknown.extend(file.get().take());
        } else if let Ok(foreign) = handle.cast::<Foreign>() {
            unknown.extend(foreign.get().take());
        } else {
            match handle.call_method0(intern!(py, "close")) {
                Ok(_) => {}
                // A half-decoded object may still hold a view of shared memory; its region is freed with the view.
                Err(error) if error.is_instance_of::<PyBufferError>(py) => {}
                Err(error) => outcome = Err(error),
            }
        }
    }
    py.detach(|| descriptor::close_unknown(unknown));
    outcome
}
