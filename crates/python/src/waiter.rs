//! A descriptor for an event loop to wait for.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use ipc_channel_transport::Readiness;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

enum Watch {
    End(Arc<Readiness>),
    Epoll(OwnedFd),
}

/// A descriptor of its own, readable when trying again may succeed, or when what is waited for was closed
/// or moved. Valid while this object is open, whatever happens to the end.
#[pyclass(frozen, module = "ipc_channel._core")]
pub struct Waiter(Mutex<Option<Watch>>);

impl Waiter {
    pub fn of_end(readiness: Arc<Readiness>) -> Waiter {
        Waiter(Mutex::new(Some(Watch::End(readiness))))
    }

    /// That of an end, while it is open.
    pub fn readiness(&self) -> Option<Arc<Readiness>> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Watch::End(readiness)) => Some(readiness.clone()),
            _ => None,
        }
    }

    pub fn of_epoll(epoll: OwnedFd) -> Waiter {
        Waiter(Mutex::new(Some(Watch::Epoll(epoll))))
    }
}

#[pymethods]
impl Waiter {
    /// The descriptor.
    fn fileno(&self) -> PyResult<RawFd> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Watch::End(readiness)) => Ok(readiness.raw()),
            Some(Watch::Epoll(epoll)) => Ok(epoll.as_raw_fd()),
            None => Err(PyValueError::new_err("this waiter is closed")),
        }
    }

    /// Close the descriptor.
    fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
