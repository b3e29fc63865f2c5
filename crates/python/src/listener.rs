//! One-shot servers.

use ipc_channel_transport as transport;
use ipc_channel_transport::Error;
use ipc_channel_transport::os::poll::Interest;
use pyo3::prelude::*;

use crate::codec::{self, LABEL_BYTES};
use crate::delivery::Delivery;
use crate::errors::{self, Subject};
use crate::receiver_end::ReceiverEnd;
use crate::sender_end::SenderEnd;
use crate::timeout;
use crate::waiter::Waiter;

fn raise(py: Python<'_>, error: Error) -> PyErr {
    errors::raise(py, error, Subject::Server)
}

/// A one-shot server's socket.
#[pyclass(subclass, frozen, module = "ipc_channel._core")]
pub struct Listener {
    pub listener: transport::Listener,
}

#[pymethods]
impl Listener {
    #[new]
    #[pyo3(signature = (allow_uid = None, version = None))]
    fn new(py: Python<'_>, allow_uid: Option<u32>, version: Option<u8>) -> PyResult<Listener> {
        let listener = match version {
            None => transport::Listener::new(allow_uid),
            Some(version) => transport::Listener::for_rust(codec::version(version)?, allow_uid),
        };
        let listener = listener.map_err(|e| raise(py, e))?;
        Ok(Listener { listener })
    }

    /// What a client gives to `connect`.
    #[getter]
    fn name(&self) -> &str {
        self.listener.name()
    }

    /// Whether it has stopped listening.
    #[getter]
    fn closed(&self) -> bool {
        self.listener.end().gone().is_some()
    }

    /// Readable when `accept` may have something to do.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        self.listener
            .end()
            .fileno(Interest::Readable)
            .map_err(|e| raise(py, e))
    }

    /// A descriptor like `fileno`'s that outlives the close, which it shows.
    fn waiter(&self, py: Python<'_>) -> PyResult<Waiter> {
        let readiness = self.listener.end().watch(None, Interest::Readable);
        readiness.map(Waiter::of_end).map_err(|e| raise(py, e))
    }

    /// Waits for a client's first message. Goes on listening until `served` or `close`.
    /// Raises AcceptTimeout, ClosedError.
    #[pyo3(signature = (timeout = None))]
    fn accept(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<(ReceiverEnd, Delivery)> {
        let deadline = timeout::deadline(timeout)?;
        let accepted = timeout::interruptible(py, || self.listener.accept(deadline))?;
        let (receiver, message) = accepted.map_err(|e| raise(py, e))?;
        Ok((
            ReceiverEnd::bare(receiver, LABEL_BYTES),
            Delivery::new(message),
        ))
    }

    /// The client whose message was accepted last is not the one: another may have its seat.
    fn turn_away(&self, py: Python<'_>) {
        py.detach(|| self.listener.turn_away());
    }

    /// Stop listening: the one client is served. Others are told so until `close`.
    fn served(&self, py: Python<'_>) {
        py.detach(|| self.listener.served());
    }

    /// Stop listening and give the name up.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.listener.close());
    }
}

/// Connects to a one-shot server; with `version`, to one for Rust programs. Raises ConnectError.
#[pyfunction]
#[pyo3(signature = (name, timeout = Some(1.0), version = None))]
pub fn connect(
    py: Python<'_>,
    name: &str,
    timeout: Option<f64>,
    version: Option<u8>,
) -> PyResult<SenderEnd> {
    let deadline = timeout::deadline(timeout)?;
    let version = version.map(codec::version).transpose()?;
    let failed = |error| errors::raise(py, error, Subject::Other);
    let connected = match version {
        None => {
            let connecting = transport::Connecting::to(name).map_err(failed)?;
            timeout::interruptible(py, || connecting.finish(deadline))?
        }
        Some(version) => timeout::interruptible(py, || {
            transport::Sender::connect_to_path(name, version, deadline)
        })?,
    };
    let sender = connected.map_err(failed)?;
    Ok(SenderEnd::bare(sender, LABEL_BYTES))
}
