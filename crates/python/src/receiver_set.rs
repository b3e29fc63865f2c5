//! Many receivers, one wait.

use ipc_channel_transport as transport;
use ipc_channel_transport::{Error, Event};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;

use crate::delivery::Delivery;
use crate::errors::{self, Subject};
use crate::receiver_end::ReceiverEnd;
use crate::timeout;
use crate::waiter::Waiter;

/// Receivers by token, and one wait for all of them.
#[pyclass(subclass, frozen, module = "ipc_channel._core")]
pub struct ReceiverSetCore {
    pub set: transport::ReceiverSet,
    labels: std::sync::Mutex<std::collections::HashMap<u64, u8>>,
}

fn raise(py: Python<'_>, error: Error) -> PyErr {
    errors::raise(py, error, Subject::Set)
}

impl ReceiverSetCore {
    fn labels(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<u64, u8>> {
        self.labels
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[pymethods]
impl ReceiverSetCore {
    #[new]
    fn new(py: Python<'_>) -> PyResult<ReceiverSetCore> {
        Ok(ReceiverSetCore {
            set: transport::ReceiverSet::new().map_err(|e| raise(py, e))?,
            labels: Default::default(),
        })
    }

    /// Moves the receiver in, which is then closed as added. Returns its token, never used again.
    fn add(&self, py: Python<'_>, receiver: &Bound<'_, ReceiverEnd>) -> PyResult<u64> {
        let receiver = receiver.get();
        receiver.check_nothing_kept(py)?;
        let token = self.set.add(&receiver.receiver).map_err(|e| match e {
            Error::Gone(_) if receiver.receiver.end().gone().is_some() => {
                errors::raise(py, e, Subject::Receiver)
            }
            e => raise(py, e),
        })?;
        self.labels().insert(token, receiver.label);
        Ok(token)
    }

    /// Takes a receiver out. Raises KeyError.
    fn remove(&self, py: Python<'_>, token: u64) -> PyResult<ReceiverEnd> {
        let receiver = self.set.remove(token).map_err(|e| raise(py, e))?;
        let receiver = receiver.ok_or_else(|| PyKeyError::new_err(token))?;
        let label = self
            .labels()
            .remove(&token)
            .unwrap_or(crate::codec::LABEL_BYTES);
        Ok(ReceiverEnd::bare(receiver, label))
    }

    /// At least one event, or an empty list at the timeout or after `wake`.
    #[pyo3(signature = (timeout = None))]
    fn select(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Vec<(u64, Py<PyAny>)>> {
        let deadline = timeout::deadline(timeout)?;
        let events = timeout::interruptible(py, || self.set.select(deadline))?;
        let events = events.map_err(|e| raise(py, e))?;
        let mut result = Vec::with_capacity(events.len());
        for (token, event) in events {
            let event = match event {
                Event::Message(message) => Py::new(py, Delivery::new(message))?.into_any(),
                Event::Closed => {
                    self.labels().remove(&token);
                    py.None()
                }
                Event::Failed(error) => errors::raise(py, error, Subject::Receiver)
                    .into_value(py)
                    .into_any(),
            };
            result.push((token, event));
        }
        Ok(result)
    }

    /// Makes a running `select`, or else the next one, return.
    fn wake(&self) {
        self.set.wake();
    }

    fn __len__(&self) -> usize {
        self.set.len()
    }

    /// Readable while `select` would return at once.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        self.set.fileno().map_err(|e| raise(py, e))
    }

    /// A descriptor like `fileno`'s that outlives the set's close, which it shows.
    fn waiter(&self, py: Python<'_>) -> PyResult<Waiter> {
        self.set
            .watch()
            .map(Waiter::of_epoll)
            .map_err(|e| raise(py, e))
    }

    /// Whether the set is closed.
    #[getter]
    fn closed(&self) -> bool {
        self.set.is_closed()
    }

    /// Close every receiver in it.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.set.close());
    }
}
