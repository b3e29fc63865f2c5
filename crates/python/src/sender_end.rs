//! Sending ends.

use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use ipc_channel_transport as transport;
use ipc_channel_transport::os::descriptor;
use ipc_channel_transport::{Deadline, Error, Gone};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator};
use std::os::fd::{AsFd, AsRawFd};

use crate::codec::{self, Plug};
use crate::errors::{self, Subject};
use crate::parcel::{Encoded, LARGE, Prepared};
use crate::receiver_end::ReceiverEnd;
use crate::timeout;
use crate::waiter::Waiter;

/// What went through an end.
#[derive(Default)]
pub struct Counters {
    messages: AtomicU64,
    bytes: AtomicU64,
    handles: AtomicU64,
}

impl Counters {
    #[inline]
    pub fn count(&self, bytes: u64, handles: u64) {
        self.count_many(1, bytes);
        if handles > 0 {
            Counters::add(&self.handles, handles);
        }
    }

    #[inline]
    pub fn count_many(&self, messages: u64, bytes: u64) {
        Counters::add(&self.messages, messages);
        Counters::add(&self.bytes, bytes);
    }

    #[inline]
    fn add(counter: &AtomicU64, more: u64) {
        // Called with the GIL held: nobody else adds meanwhile.
        counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }

    pub fn read(&self) -> (u64, u64, u64) {
        (
            self.messages.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
            self.handles.load(Ordering::Relaxed),
        )
    }
}

/// The name of a state, for Python.
pub fn state_name(gone: Option<Gone>) -> &'static str {
    match gone {
        None => "open",
        Some(Gone::Closed) => "closed",
        Some(Gone::Sent) => "sent",
        Some(Gone::Converted) => "converted",
        Some(Gone::Added) => "added",
        Some(Gone::Started) => "started",
    }
}

/// A sending end. The constructor takes the end out of `source`, which is then closed as converted.
#[pyclass(subclass, frozen, module = "ipc_channel._core")]
pub struct SenderEnd {
    pub sender: transport::Sender,
    pub label: u8,
    codec: Option<Py<PyAny>>,
    counters: Counters,
}

impl SenderEnd {
    /// An end without a codec.
    pub fn bare(sender: transport::Sender, label: u8) -> SenderEnd {
        SenderEnd {
            sender,
            label,
            codec: None,
            counters: Counters::default(),
        }
    }

    fn raise(py: Python<'_>, error: Error) -> PyErr {
        errors::raise(py, error, Subject::Sender)
    }
}

#[pymethods]
impl SenderEnd {
    #[new]
    #[pyo3(signature = (source, codec = None, /))]
    fn new(source: &Bound<'_, SenderEnd>, codec: Option<Bound<'_, PyAny>>) -> PyResult<SenderEnd> {
        let py = source.py();
        let label = match &codec {
            Some(codec) => codec.getattr(pyo3::intern!(py, "label"))?.extract()?,
            None => source.get().label,
        };
        let taken = source.get().sender.take(Gone::Converted);
        let sender = taken.map_err(|e| SenderEnd::raise(py, e))?;
        if let Some(codec) = codec.as_ref().filter(|_| sender.version().is_some()) {
            let about = codec.getattr(pyo3::intern!(py, "about"))?.extract()?;
            sender.describe(|| about);
            // What such a sender leaves unwritten is waited for when the process ends.
            py.import(pyo3::intern!(py, "ipc_channel.unwritten"))?;
        }
        Ok(SenderEnd {
            sender,
            label,
            codec: codec.map(Bound::unbind),
            counters: Counters::default(),
        })
    }

    /// Which kind of codec its messages have.
    #[getter]
    fn label(&self) -> u8 {
        self.label
    }

    /// The label of the crate's version that is meant to read at the other side; None: a receiver of our own.
    #[getter]
    fn version(&self) -> Option<u8> {
        self.sender.version().map(codec::label_of)
    }

    /// The codec given to the constructor.
    #[getter]
    fn codec(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.codec.as_ref().map(|codec| codec.clone_ref(py))
    }

    /// Whether this end is closed or was moved.
    #[getter]
    fn closed(&self) -> bool {
        self.sender.end().gone().is_some()
    }

    /// "open", or why not: "closed", "sent", "converted", "added", "started".
    #[getter]
    fn state(&self) -> &'static str {
        state_name(self.sender.end().gone())
    }

    /// The process at the other side, known only for an end made by `connect`.
    #[getter]
    fn peer_pid(&self) -> Option<u32> {
        self.sender.peer_pid()
    }

    /// Close the end. The receiver's stream ends when every sender of it is closed and everything sent
    /// has been received. Closing twice does nothing.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.sender.close());
    }

    /// The socket's file descriptor, writable while there is room. Raises `ClosedError`.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        let socket = self.sender.end().socket();
        socket
            .map(|socket| socket.as_raw_fd())
            .map_err(|e| SenderEnd::raise(py, e))
    }

    /// A descriptor that is readable while there is room, or once the end is closed or moved.
    fn waiter(&self, py: Python<'_>) -> PyResult<Waiter> {
        self.sender
            .watch()
            .map(Waiter::of_end)
            .map_err(|e| SenderEnd::raise(py, e))
    }

    /// Another bare end of the same channel.
    fn clone_end(&self, py: Python<'_>) -> PyResult<SenderEnd> {
        let twin = self
            .sender
            .duplicate()
            .map_err(|e| SenderEnd::raise(py, e))?;
        Ok(SenderEnd::bare(twin, self.label))
    }

    /// Messages, payload bytes and handles sent through this object.
    fn counters(&self) -> (u64, u64, u64) {
        self.counters.read()
    }

    /// Messages that this process has sent and nobody has received yet, as far as that is known, and the
    /// memory that they take; None while nothing but the socket is used.
    fn lane(&self) -> Option<(u64, u64)> {
        self.sender.lane().map(|lane| (lane.backlog, lane.memory))
    }

    /// The most undelivered messages of one sending process; None: no limit.
    #[getter]
    fn capacity(&self) -> Option<u32> {
        self.sender.capacity()
    }

    /// A new descriptor that holds a duplicate of this end, for `open_envelope` in another process.
    fn envelope(&self, py: Python<'_>) -> PyResult<i32> {
        let envelope = transport::envelope::with_sender(&self.sender, self.label);
        envelope
            .map(IntoRawFd::into_raw_fd)
            .map_err(|e| SenderEnd::raise(py, e))
    }

    /// A new close-on-exec descriptor of the socket, owned by the caller.
    fn duplicate_fd(&self, py: Python<'_>) -> PyResult<i32> {
        let socket = self.sender.end().socket();
        let fd = socket.and_then(|socket| descriptor::duplicate(socket.as_fd()));
        fd.map(IntoRawFd::into_raw_fd)
            .map_err(|e| SenderEnd::raise(py, e))
    }
}

/// A sending end with a codec.
#[pyclass(subclass, frozen, extends = SenderEnd, module = "ipc_channel._core")]
pub struct Sending {
    plug: Plug,
}

#[pymethods]
impl Sending {
    #[new]
    #[pyo3(signature = (source, codec, /))]
    fn new(
        source: &Bound<'_, SenderEnd>,
        codec: Bound<'_, PyAny>,
    ) -> PyResult<PyClassInitializer<Sending>> {
        let plug = Plug::new(&codec)?;
        let base = SenderEnd::new(source, Some(codec))?;
        Ok(PyClassInitializer::from(base).add_subclass(Sending { plug }))
    }

    /// Send a message. Senders and receivers inside it move: they are closed here once it is sent, and
    /// untouched if it is not.
    ///
    /// Returns at once, unless the channel is bounded and full: then it waits for room, `timeout` seconds at
    /// most (None: without end). Raises `EncodeError`, `SendTimeout`, `ReceiverGone`, `ClosedError`,
    /// `TooManyHandles`, `BacklogFull`.
    /// Upstream: `IpcSender::send`.
    #[pyo3(signature = (message, timeout = None))]
    fn send(
        slf: &Bound<'_, Self>,
        message: &Bound<'_, PyAny>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let deadline = timeout::deadline(timeout)?;
        if let Some(sent) = send_bytes(slf, message) {
            return sent;
        }
        let encoded = slf.get().plug.encode(message)?;
        publish(slf, &encoded, deadline)?.map_err(|error| {
            SenderEnd::raise(
                slf.py(),
                if matches!(error, Error::Full) {
                    Error::TimedOut
                } else {
                    error
                },
            )
        })
    }

    /// Send a message if there is room now. Raises `Full` if there is none, otherwise as `send`.
    fn try_send(slf: &Bound<'_, Self>, message: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Some(sent) = send_bytes(slf, message) {
            return sent;
        }
        let encoded = slf.get().plug.encode(message)?;
        publish(slf, &encoded, Deadline::PASSED)?.map_err(|e| SenderEnd::raise(slf.py(), e))
    }

    /// Send every message of an iterable, in order. An exception that stops it has an attribute `sent`:
    /// how many messages went before.
    fn send_many(slf: &Bound<'_, Self>, messages: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut sent = 0u64;
        let all = || -> PyResult<()> {
            for message in PyIterator::from_object(messages)? {
                Sending::send(slf, &message?, None)?;
                sent += 1;
                if sent.is_multiple_of(1024) {
                    timeout::pause(slf.py())?;
                }
            }
            Ok(())
        };
        let mut all = all;
        let outcome = all();
        outcome.inspect_err(|error| {
            // An exception without room for attributes goes without.
            let _ = error.value(slf.py()).setattr("sent", sent);
        })
    }

    /// Wait until nothing that has been sent so far is held in this process, `timeout` seconds at most. Nothing ever
    /// is, except on channels to Rust programs: elsewhere a message is where the receiver finds it when `send` returns.
    /// Raises `SendTimeout`, `ReceiverGone` if something that was held will never be read, `ClosedError`.
    #[pyo3(signature = (timeout = None))]
    fn flush(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<()> {
        let deadline = timeout::deadline(timeout)?;
        let sender = &slf.as_super().get().sender;
        let raise = |error| errors::raise(slf.py(), error, Subject::Flush);
        let mark = sender.mark().map_err(raise)?;
        timeout::interruptible(slf.py(), || sender.flush_until(mark, deadline))?.map_err(raise)
    }

    /// Encode a message, to be published later.
    fn prepare(&self, message: &Bound<'_, PyAny>) -> PyResult<Prepared> {
        let mut encoded = self.plug.encode(message)?;
        if let Encoded::Written(bytes) = &mut encoded {
            bytes.trim();
        }
        Ok(Prepared(encoded))
    }

    /// Publish a prepared message. False when there is no room. Raises as `send`.
    fn try_publish(slf: &Bound<'_, Self>, prepared: &Prepared) -> PyResult<bool> {
        match publish(slf, &prepared.0, Deadline::PASSED)? {
            Ok(()) => Ok(true),
            Err(Error::Full) => Ok(false),
            Err(e) => Err(SenderEnd::raise(slf.py(), e)),
        }
    }
}

/// The shortest way: small bytes on a bytes channel that has a lane with room. None if it is not that.
#[inline]
fn send_bytes(slf: &Bound<'_, Sending>, message: &Bound<'_, PyAny>) -> Option<PyResult<()>> {
    let bytes = message.cast_exact::<PyBytes>().ok()?;
    let payload = bytes.as_bytes();
    if !slf.get().plug.is_raw() || payload.len() >= LARGE {
        return None;
    }
    let end = slf.as_super().get();
    match end.sender.send_plain(payload) {
        Ok(true) => {
            end.counters.count(payload.len() as u64, 0);
            Some(Ok(()))
        }
        Ok(false) => None,
        Err(error) => Some(Err(SenderEnd::raise(slf.py(), error))),
    }
}

fn publish(
    slf: &Bound<'_, Sending>,
    encoded: &Encoded,
    deadline: Deadline,
) -> PyResult<Result<(), Error>> {
    let end = slf.as_super().get();
    let outcome = encoded.publish(slf.py(), &end.sender, deadline)?;
    Ok(outcome.map(|(bytes, handles)| end.counters.count(bytes, handles)))
}

/// Two bare connected ends, labelled as bytes until a codec takes them. Upstream: `ipc::channel`.
///
/// `capacity` is the most undelivered messages of one sending process; 0: no limit. `version` is the label of the
/// crate's version that may be at the other side, where there is no such limit.
#[pyfunction]
#[pyo3(signature = (capacity = 0, version = None))]
pub fn channel(
    py: Python<'_>,
    capacity: u32,
    version: Option<u8>,
) -> PyResult<(SenderEnd, ReceiverEnd)> {
    let made = match version {
        None => transport::channel(capacity),
        Some(version) => transport::channel_of_frames(codec::version(version)?),
    };
    let (sender, receiver) = made.map_err(|e| errors::raise(py, e, Subject::Other))?;
    let label = crate::codec::LABEL_BYTES;
    Ok((
        SenderEnd::bare(sender, label),
        ReceiverEnd::bare(receiver, label),
    ))
}
