//! Receiving ends.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipc_channel_transport as transport;
use ipc_channel_transport::spin::Call;
use ipc_channel_transport::{Deadline, Error, Gone, Hint, Message, Taken, Vain};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

use crate::codec::{self, Payload, Plug};
use crate::delivery::{View, copy_of};
use crate::errors::{self, Subject};
use crate::sender_end::{Counters, state_name};
use crate::timeout;
use crate::waiter::Waiter;

/// Messages between two looks for signals.
const MANY: usize = 1024;
/// The most messages of a `recv_many` that names no number.
const MOST_AT_ONCE: usize = 1 << 20;

/// A receiving end. The constructor takes the end out of `source`, which is then closed as converted.
#[pyclass(subclass, frozen, module = "ipc_channel._core")]
pub struct ReceiverEnd {
    pub receiver: transport::Receiver,
    pub label: u8,
    codec: Option<Py<PyAny>>,
    counters: Counters,
    /// What `recv_many` took and could not return: it comes first next time.
    kept: Mutex<VecDeque<PyResult<Py<PyAny>>>>,
    /// Whether there is any.
    keeps: AtomicBool,
}

impl ReceiverEnd {
    /// An end without a codec.
    pub fn bare(receiver: transport::Receiver, label: u8) -> ReceiverEnd {
        ReceiverEnd {
            receiver,
            label,
            codec: None,
            counters: Counters::default(),
            kept: Mutex::default(),
            keeps: AtomicBool::new(false),
        }
    }

    fn raise(py: Python<'_>, error: Error) -> PyErr {
        errors::raise(py, error, Subject::Receiver)
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<PyResult<Py<PyAny>>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails while something received waits in this object, where a new owner could not get at it.
    pub fn check_nothing_kept(&self, py: Python<'_>) -> PyResult<()> {
        if self.kept().is_empty() {
            return Ok(());
        }
        let class = errors::class(py, intern!(py, "EncodeError"))?;
        Err(PyErr::from_type(
            class,
            "this receiver cannot move now: a message or an error that recv_many has already taken \
             waits for the next recv",
        ))
    }
}

#[pymethods]
impl ReceiverEnd {
    #[new]
    #[pyo3(signature = (source, codec = None, /))]
    fn new(
        source: &Bound<'_, ReceiverEnd>,
        codec: Option<Bound<'_, PyAny>>,
    ) -> PyResult<ReceiverEnd> {
        let py = source.py();
        source.get().check_nothing_kept(py)?;
        let label = match &codec {
            Some(codec) => codec.getattr(intern!(py, "label"))?.extract()?,
            None => source.get().label,
        };
        let taken = source.get().receiver.take(Gone::Converted);
        let mut end = ReceiverEnd::bare(taken.map_err(|e| ReceiverEnd::raise(py, e))?, label);
        end.codec = codec.map(Bound::unbind);
        Ok(end)
    }

    /// Which kind of codec its messages have.
    #[getter]
    fn label(&self) -> u8 {
        self.label
    }

    /// The label of the crate's version that is meant to send at the other side; None: senders of our own.
    #[getter]
    fn version(&self) -> Option<u8> {
        self.receiver.version().map(codec::label_of)
    }

    /// The codec given to the constructor.
    #[getter]
    fn codec(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.codec.as_ref().map(|codec| codec.clone_ref(py))
    }

    /// Whether this end is closed or was moved.
    #[getter]
    fn closed(&self) -> bool {
        self.receiver.end().gone().is_some()
    }

    /// "open", or why not: "closed", "sent", "converted", "added", "started".
    #[getter]
    fn state(&self) -> &'static str {
        state_name(self.receiver.end().gone())
    }

    /// The process at the other side, known only for an end of a one-shot server.
    #[getter]
    fn peer_pid(&self) -> Option<u32> {
        self.receiver.peer_pid()
    }

    /// Close the end. Senders learn of it at their next send; whoever waits here gets `ClosedError`.
    /// Closing twice does nothing.
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.receiver.end().close());
    }

    /// A file descriptor for `select`, `selectors` and event loops: readable exactly while a message or
    /// the end of the stream is there. Raises `ClosedError`.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        self.receiver
            .fileno()
            .map_err(|e| ReceiverEnd::raise(py, e))
    }

    /// A descriptor that is readable like `fileno`'s, and once the end is closed or moved.
    fn waiter(&self, py: Python<'_>) -> PyResult<Waiter> {
        self.receiver
            .watch()
            .map(Waiter::of_end)
            .map_err(|e| ReceiverEnd::raise(py, e))
    }

    /// From now on `waiter` tells of every message again.
    fn attend(&self, py: Python<'_>, waiter: &Waiter) -> PyResult<()> {
        match waiter.readiness() {
            Some(readiness) => self.receiver.attend(&readiness),
            None => Ok(()),
        }
        .map_err(|e| ReceiverEnd::raise(py, e))
    }

    /// Nobody waits for `waiter` until `attend`, so that nobody need ring for it.
    fn neglect(&self, waiter: &Waiter) {
        if let Some(readiness) = waiter.readiness() {
            self.receiver.neglect(&readiness);
        }
    }

    /// Whether a message can be seen without asking the kernel; None if none can be seen coming so.
    fn has_news(&self) -> Option<bool> {
        if self.keeps.load(Ordering::Acquire) {
            return Some(true);
        }
        self.receiver.has_lanes().then(|| self.receiver.has_news())
    }

    /// Messages, payload bytes and handles received through this object.
    fn counters(&self) -> (u64, u64, u64) {
        self.counters.read()
    }

    /// How many sending processes have a lane here, and the bytes in them that are not yet received.
    fn lanes(&self) -> (usize, u64) {
        self.receiver.lanes()
    }

    /// Set the end aside, to be moved into another process.
    fn depart(&self, py: Python<'_>) -> PyResult<Departure> {
        self.check_nothing_kept(py)?;
        let moving = self
            .receiver
            .begin_move()
            .map_err(|e| ReceiverEnd::raise(py, e))?;
        let envelope = transport::envelope::with_receiver(&moving, self.label)
            .map_err(|e| ReceiverEnd::raise(py, e))?;
        Ok(Departure(Mutex::new(Some((moving, envelope)))))
    }

    /// A new close-on-exec descriptor of the socket, owned by the caller.
    fn duplicate_fd(&self, py: Python<'_>) -> PyResult<i32> {
        self.receiver
            .duplicate()
            .map(IntoRawFd::into_raw_fd)
            .map_err(|e| ReceiverEnd::raise(py, e))
    }
}

/// A receiver on its way to another process: not usable here until `abort`, gone after `commit`.
#[pyclass(frozen, module = "ipc_channel._core")]
pub struct Departure(Mutex<Option<(transport::Moving, OwnedFd)>>);

#[pymethods]
impl Departure {
    /// A descriptor that holds the end, for `open_envelope` in another process; still owned by this object.
    #[getter]
    fn fd(&self) -> PyResult<i32> {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((_, envelope)) => Ok(envelope.as_raw_fd()),
            None => Err(PyValueError::new_err("this departure is over")),
        }
    }

    /// It has arrived: close our copy.
    fn commit(&self) {
        let departing = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((moving, _)) = departing {
            moving.commit(Gone::Started);
        }
    }

    /// Give the end back to the receiver, untouched.
    fn abort(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// What was taken off the channel.
enum Received<'a> {
    Payload(Payload<'a>),
    Message(Message),
}

/// A receiving end with a codec.
#[pyclass(subclass, frozen, extends = ReceiverEnd, module = "ipc_channel._core")]
pub struct Receiving {
    plug: Plug,
}

impl Receiving {
    /// The next message if it is a small one of which the kernel need not be asked; else None.
    #[inline]
    fn next_quickly(slf: &Bound<'_, Self>) -> Option<PyResult<Py<PyAny>>> {
        let end = slf.as_super().get();
        if end.keeps.load(Ordering::Acquire) {
            return None;
        }
        let mut payload = None;
        end.receiver.take_plain(1, |plain| {
            // Not taken if there is no memory for it: the slow way says so.
            payload = copy_of(slf.py(), plain).ok();
            payload.is_some()
        });
        let payload = payload?;
        end.counters.count(payload.as_bytes().len() as u64, 0);
        let payload = Payload::Object(payload.unbind());
        Some(slf.get().plug.decode_payload(slf.py(), payload))
    }

    /// The next message, decoded, unless none is there.
    fn try_next(slf: &Bound<'_, Self>) -> PyResult<Result<Py<PyAny>, Error>> {
        let py = slf.py();
        let end = slf.as_super().get();
        let plug = &slf.get().plug;
        let mut failure = None;
        let taken = end.receiver.try_take(&mut |taken: Taken<'_>| {
            let payload = match taken {
                Taken::Plain(plain) => {
                    copy_of(py, &plain).map(|payload| Payload::Object(payload.unbind()))
                }
                Taken::Bytes(bytes) => plug.payload_of(py, bytes),
                Taken::Message(message) => return Ok(Received::Message(message)),
            };
            payload.map(Received::Payload).map_err(|error| {
                // What is in a lane is not taken: it can be received again when there is memory.
                failure = Some(error);
                Error::Empty
            })
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        match taken {
            Ok(Received::Payload(payload)) => {
                end.counters.count(payload.len(py) as u64, 0);
                plug.decode_payload(py, payload).map(Ok)
            }
            Ok(Received::Message(message)) => {
                let (bytes, handles) = (message.payload.len(), message.handles.len());
                end.counters.count(bytes as u64, handles as u64);
                plug.decode(py, message).map(Ok)
            }
            Err(error) => Ok(Err(error)),
        }
    }

    #[inline]
    fn next(
        slf: &Bound<'_, Self>,
        deadline: Option<Deadline>,
    ) -> PyResult<Result<Py<PyAny>, Error>> {
        match Receiving::next_quickly(slf) {
            Some(message) => message.map(Ok),
            None => Receiving::next_slowly(slf, deadline),
        }
    }

    #[cold]
    fn next_slowly(
        slf: &Bound<'_, Self>,
        deadline: Option<Deadline>,
    ) -> PyResult<Result<Py<PyAny>, Error>> {
        /// Shorter than it takes to give up the GIL, to ask the kernel, and to get the GIL back.
        const SPIN_WITH_GIL_NS: u64 = 3_000;
        let end = slf.as_super().get();
        let (_call, mut vain) = (Call::begin(), Vain::default());
        loop {
            if end.keeps.load(Ordering::Acquire) {
                if let Err(error) = end.receiver.check_usable() {
                    return Ok(Err(error));
                }
                if let Some(kept) = Receiving::pop_kept(slf) {
                    return kept.map(Ok);
                }
            }
            if deadline.is_some()
                && end.receiver.spin(SPIN_WITH_GIL_NS)
                && let Some(message) = Receiving::next_quickly(slf)
            {
                return message.map(Ok);
            }
            match Receiving::try_next(slf)? {
                Err(Error::Empty) => {}
                outcome => return Ok(outcome),
            }
            let Some(deadline) = deadline else {
                return Ok(Err(Error::Empty));
            };
            match slf.py().detach(|| end.receiver.wait(deadline, &mut vain)) {
                Ok(()) => {}
                Err(Error::Interrupted) => slf.py().check_signals()?,
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    fn pop_kept(slf: &Bound<'_, Self>) -> Option<PyResult<Py<PyAny>>> {
        let end = slf.as_super().get();
        let mut kept = end.kept();
        let first = kept.pop_front()?;
        if kept.is_empty() {
            end.keeps.store(false, Ordering::Release);
            end.receiver.end().hint(Hint::Kept, false);
        }
        Some(first)
    }

    /// Small messages of a bytes channel, several at a time. False if the next one is something else.
    fn take_payloads(slf: &Bound<'_, Self>, most: usize, messages: &mut Vec<Py<PyAny>>) -> bool {
        let end = slf.as_super().get();
        if !slf.get().plug.gives_payloads() || end.keeps.load(Ordering::Acquire) {
            return false;
        }
        let mut bytes = 0;
        let taken = end.receiver.take_plain(most.min(MANY) as u32, |plain| {
            let Ok(payload) = copy_of(slf.py(), plain) else {
                return false;
            };
            bytes += plain.len() as u64;
            messages.push(payload.into_any().unbind());
            true
        });
        end.counters.count_many(taken.into(), bytes);
        taken > 0
    }

    /// Puts what was taken back to the front.
    fn keep(slf: &Bound<'_, Self>, outcomes: Vec<PyResult<Py<PyAny>>>) {
        let end = slf.as_super().get();
        let mut kept = end.kept();
        for outcome in outcomes.into_iter().rev() {
            kept.push_front(outcome);
        }
        end.keeps.store(true, Ordering::Release);
        end.receiver.end().hint(Hint::Kept, true);
    }
}

#[pymethods]
impl Receiving {
    #[new]
    #[pyo3(signature = (source, codec, /))]
    fn new(
        source: &Bound<'_, ReceiverEnd>,
        codec: Bound<'_, PyAny>,
    ) -> PyResult<PyClassInitializer<Receiving>> {
        let plug = Plug::new(&codec)?;
        let base = ReceiverEnd::new(source, Some(codec))?;
        Ok(PyClassInitializer::from(base).add_subclass(Receiving { plug }))
    }

    /// Receive the next message, waiting for it `timeout` seconds at most (None: without end).
    ///
    /// Raises `RecvTimeout`; `Disconnected` when every sender is gone and everything sent was delivered;
    /// `DecodeError` or `ProtocolError` for one bad message alone; `TooManyHandles` when this process has
    /// no room for the message's descriptors (it can be received again); `ClosedError`; `ForkError`.
    /// Upstream: `IpcReceiver::recv`, `try_recv_timeout`.
    #[pyo3(signature = (timeout = None))]
    fn recv(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let deadline = timeout::deadline(timeout)?;
        Receiving::next(slf, Some(deadline))?.map_err(|e| ReceiverEnd::raise(slf.py(), e))
    }

    /// Receive a message if one is there. Raises `Empty` if none is, otherwise as `recv`.
    /// Upstream: `IpcReceiver::try_recv`.
    fn try_recv(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let next = Receiving::next(slf, None)?;
        next.map_err(|e| ReceiverEnd::raise(slf.py(), e))
    }

    /// The message that is there; if none is, `otherwise`. Raises as `recv`.
    fn recv_or(slf: &Bound<'_, Self>, otherwise: Py<PyAny>) -> PyResult<Py<PyAny>> {
        match Receiving::next(slf, None)? {
            Err(Error::Empty) => Ok(otherwise),
            next => next.map_err(|e| ReceiverEnd::raise(slf.py(), e)),
        }
    }

    /// Receive what is there, at least one message and at most `max_messages` (a million if None), waiting for the first
    /// `timeout` seconds at most. What precedes a message that cannot be decoded is returned; the next call
    /// raises. Otherwise raises as `recv`.
    #[pyo3(signature = (max_messages = None, timeout = None))]
    fn recv_many(
        slf: &Bound<'_, Self>,
        max_messages: Option<isize>,
        timeout: Option<f64>,
    ) -> PyResult<Vec<Py<PyAny>>> {
        let most = match max_messages {
            // A sender that keeps up shall not keep us for ever.
            None => MOST_AT_ONCE,
            Some(most) if most > 0 => most.unsigned_abs(),
            Some(most) => {
                return Err(PyValueError::new_err(format!(
                    "max_messages must be None or at least 1, not {most}"
                )));
            }
        };
        let mut messages = vec![Receiving::recv(slf, timeout)?];
        let mut checked = 0;
        while messages.len() < most {
            if messages.len() - checked >= MANY {
                checked = messages.len();
                // The GIL is kept: threads of this process that send would make this go on for ever.
                if let Err(interrupt) = slf.py().check_signals() {
                    Receiving::keep(slf, messages.into_iter().map(Ok).collect());
                    return Err(interrupt);
                }
            }
            if Receiving::take_payloads(slf, most - messages.len(), &mut messages) {
                continue;
            }
            let next = match Receiving::next(slf, None) {
                Ok(Ok(message)) => Ok(message),
                // The end of the stream, a close, an exhausted limit: the next call finds it again.
                Ok(Err(Error::Protocol(text))) => {
                    Err(ReceiverEnd::raise(slf.py(), Error::Protocol(text)))
                }
                Ok(Err(_)) => break,
                Err(error) => Err(error),
            };
            match next {
                Ok(message) => messages.push(message),
                Err(error) if error.is_instance_of::<pyo3::exceptions::PyException>(slf.py()) => {
                    Receiving::keep(slf, vec![Err(error)]);
                    break;
                }
                // Ctrl-C and its like go out at once; what was received waits for the next call.
                Err(interrupt) => {
                    Receiving::keep(slf, messages.into_iter().map(Ok).collect());
                    return Err(interrupt);
                }
            }
        }
        Ok(messages)
    }

    /// Whether a message or the end of the stream is there, waiting for it `timeout` seconds at most.
    #[pyo3(signature = (timeout = 0.0))]
    fn poll(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<bool> {
        let deadline = timeout::deadline(timeout)?;
        let end = slf.as_super().get();
        if !end.kept().is_empty() && end.receiver.end().gone().is_none() {
            return Ok(true);
        }
        timeout::interruptible(slf.py(), || end.receiver.poll(deadline))?
            .map_err(|e| ReceiverEnd::raise(slf.py(), e))
    }

    /// As `recv`, but where the message lies: a large one is not copied, and its memory is used again when
    /// the view is released. For messages that are bytes and nothing else.
    #[pyo3(signature = (timeout = None))]
    fn recv_view(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let deadline = timeout::deadline(timeout)?;
        if !slf.get().plug.is_raw() {
            return Err(PyTypeError::new_err(
                "recv_view is for receivers of bytes channels; the messages of others are decoded",
            ));
        }
        let end = slf.as_super().get();
        let (_call, mut vain) = (Call::begin(), Vain::default());
        loop {
            if end.keeps.load(Ordering::Acquire)
                && let Some(kept) = Receiving::pop_kept(slf)
            {
                return Ok(PyMemoryView::from(kept?.bind(py))?.into_any().unbind());
            }
            let outcome = match end.receiver.try_recv() {
                Err(Error::Empty) => py.detach(|| end.receiver.wait(deadline, &mut vain)),
                Err(error) => Err(error),
                Ok(message) if !message.is_plain() => return slf.get().plug.decode(py, message),
                Ok(message) => {
                    end.counters.count(message.payload.len() as u64, 0);
                    let bytes = View::where_it_lies(py, message)?;
                    return Ok(PyMemoryView::from(&bytes)?.into_any().unbind());
                }
            };
            match outcome {
                Ok(()) => {}
                Err(Error::Interrupted) => py.check_signals()?,
                Err(error) => return Err(ReceiverEnd::raise(py, error)),
            }
        }
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        match Receiving::next(slf, Some(Deadline::NEVER))? {
            Ok(message) => Ok(Some(message)),
            Err(Error::Disconnected) => Ok(None),
            Err(error) => Err(ReceiverEnd::raise(slf.py(), error)),
        }
    }
}
