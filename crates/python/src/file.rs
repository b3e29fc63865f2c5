//! Open files in messages.

use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use ipc_channel_transport::Error;
use ipc_channel_transport::{Gone, os::descriptor};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors;
use crate::handle::Held;

enum State {
    Borrowed(RawFd),
    Owned(Arc<OwnedFd>),
    Closed,
}

/// An open file to be duplicated into messages (borrowed), or received from one (owned).
#[pyclass(subclass, frozen, module = "ipc_channel._core")]
pub struct File(Mutex<State>);

#[derive(FromPyObject)]
enum Source<'py> {
    File(Bound<'py, File>),
    Number(RawFd),
}

impl File {
    pub fn owning(file: OwnedFd) -> File {
        File(Mutex::new(State::Owned(Arc::new(file))))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The descriptor, open until it is sent.
    pub fn hold(&self) -> Result<Held<'_>, Error> {
        match &*self.state() {
            State::Owned(file) => Ok(Held::File(file.clone())),
            #[allow(unsafe_code)]
            // SAFETY: the user lends the descriptor for the duration of the send. If it is closed meanwhile
            // the kernel says EBADF or duplicates what has its number by then; nothing here closes it.
            State::Borrowed(fd) => Ok(Held::BorrowedFile(unsafe { BorrowedFd::borrow_raw(*fd) })),
            State::Closed => Err(Error::Gone(Gone::Closed)),
        }
    }

    /// The descriptor of a file that is closed by that, to be closed by the caller; None if it is not ours.
    pub fn take(&self) -> Option<OwnedFd> {
        last(std::mem::replace(&mut *self.state(), State::Closed))
    }
}

/// Closing some files blocks for as long as a peer likes.
fn close(state: State) {
    if let Some(file) = last(state) {
        descriptor::close_unknown(vec![file]);
    }
}

/// The descriptor that is to be closed, unless somebody is sending it.
fn last(state: State) -> Option<OwnedFd> {
    match state {
        State::Owned(file) => Arc::into_inner(file),
        State::Borrowed(_) | State::Closed => None,
    }
}

impl Drop for File {
    fn drop(&mut self) {
        close(std::mem::replace(&mut *self.state(), State::Closed));
    }
}

fn closed(py: Python<'_>) -> PyErr {
    match errors::class(py, pyo3::intern!(py, "ClosedError")) {
        Ok(class) => PyErr::from_type(class, "this file is closed or detached"),
        Err(error) => error,
    }
}

#[pymethods]
impl File {
    #[new]
    #[pyo3(signature = (source, /))]
    fn new(py: Python<'_>, source: Source<'_>) -> PyResult<File> {
        match source {
            Source::Number(fd) if fd < 0 => Err(PyValueError::new_err(format!(
                "{fd} is not a file descriptor"
            ))),
            Source::Number(fd) => Ok(File(Mutex::new(State::Borrowed(fd)))),
            Source::File(file) => {
                match std::mem::replace(&mut *file.get().state(), State::Closed) {
                    State::Closed => Err(closed(py)),
                    state => Ok(File(Mutex::new(state))),
                }
            }
        }
    }

    /// Whether it was closed or detached.
    #[getter]
    fn closed(&self) -> bool {
        matches!(*self.state(), State::Closed)
    }

    /// Whether closing this object closes the descriptor.
    #[getter]
    fn owned(&self) -> bool {
        matches!(*self.state(), State::Owned(_))
    }

    /// The descriptor. Raises ClosedError.
    fn fileno(&self, py: Python<'_>) -> PyResult<RawFd> {
        match &*self.state() {
            State::Borrowed(fd) => Ok(*fd),
            State::Owned(file) => Ok(file.as_raw_fd()),
            State::Closed => Err(closed(py)),
        }
    }

    /// The descriptor, from now on the caller's to close. Raises ClosedError.
    fn detach(&self, py: Python<'_>) -> PyResult<RawFd> {
        match std::mem::replace(&mut *self.state(), State::Closed) {
            State::Borrowed(fd) => Ok(fd),
            // Another thread may be sending it: then the caller gets a duplicate.
            State::Owned(file) => match Arc::try_unwrap(file) {
                Ok(file) => Ok(file.into_raw_fd()),
                Err(shared) => descriptor::duplicate(std::os::fd::AsFd::as_fd(&*shared))
                    .map(IntoRawFd::into_raw_fd)
                    .map_err(|e| errors::raise(py, e, errors::Subject::Other)),
            },
            State::Closed => Err(closed(py)),
        }
    }

    /// Close the descriptor if this object owns it. Closing twice does nothing.
    fn close(&self, py: Python<'_>) {
        let state = std::mem::replace(&mut *self.state(), State::Closed);
        py.detach(|| close(state));
    }
}
