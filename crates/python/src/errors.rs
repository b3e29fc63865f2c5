//! Where the transport's errors become Python's exceptions.

use ipc_channel_transport::{Error, Gone};
use pyo3::exceptions::{PyBufferError, PyException, PyMemoryError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};

const EINTR: i32 = 4;
const EMFILE: i32 = 24;

/// What the error happened to, for the message.
#[derive(Clone, Copy)]
pub enum Subject {
    Sender,
    /// A sender that waits until nothing is held.
    Flush,
    Receiver,
    Set,
    Server,
    /// An end inside a message that was to be sent.
    InnerSender,
    InnerReceiver,
    InnerMemory,
    InnerFile,
    Other,
}

impl Subject {
    fn noun(self) -> &'static str {
        match self {
            Subject::Sender | Subject::Flush => "this sender",
            Subject::Receiver => "this receiver",
            Subject::Set => "this receiver set",
            Subject::Server => "this one-shot server",
            Subject::InnerSender => "a sender inside the message",
            Subject::InnerReceiver => "a receiver inside the message",
            Subject::InnerMemory => "a shared memory inside the message",
            Subject::InnerFile => "a file inside the message",
            Subject::Other => "this object",
        }
    }
}

/// An exception class of `ipc_channel.errors`, by name.
pub fn class<'py>(py: Python<'py>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyType>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || {
        PyModule::import(py, "ipc_channel.errors").map(Bound::unbind)
    })?;
    Ok(module.bind(py).getattr(name)?.cast_into::<PyType>()?)
}

fn exception<A>(name: &Bound<'_, PyString>, arguments: A) -> PyErr
where
    A: pyo3::PyErrArguments + Send + Sync + 'static,
{
    match class(name.py(), name) {
        Ok(class) => PyErr::from_type(class, arguments),
        Err(error) => error,
    }
}

/// The exception for `error`, which happened to `subject`.
pub fn raise(py: Python<'_>, error: Error, subject: Subject) -> PyErr {
    let text = error.to_string();
    match error {
        Error::Empty => exception(intern!(py, "Empty"), text),
        Error::Full => exception(intern!(py, "Full"), text),
        Error::BacklogFull(_) => exception(intern!(py, "BacklogFull"), text),
        Error::TimedOut => exception(
            match subject {
                Subject::Sender | Subject::Flush => intern!(py, "SendTimeout"),
                Subject::Server => intern!(py, "AcceptTimeout"),
                _ => intern!(py, "RecvTimeout"),
            },
            match subject {
                Subject::Sender => "the receiver made no room before the timeout; nothing was sent",
                Subject::Flush => "the receiver did not make enough room before the timeout",
                Subject::Server => "no client connected and sent a message before the timeout",
                _ => "no message came before the timeout",
            },
        ),
        Error::Disconnected => exception(intern!(py, "Disconnected"), text),
        Error::ReceiverGone => exception(intern!(py, "ReceiverGone"), text),
        Error::Gone(why) => exception(intern!(py, "ClosedError"), gone(why, subject)),
        // Callers check signals and call again; this is what remains if one does not.
        Error::Interrupted => exception(intern!(py, "KernelError"), (EINTR, text)),
        Error::Protocol(_) => exception(intern!(py, "ProtocolError"), text),
        Error::TooManyHandles(_) => exception(intern!(py, "TooManyHandles"), (EMFILE, text)),
        Error::Connect { .. } => exception(intern!(py, "ConnectError"), text),
        Error::Forked { what, owner } => exception(
            intern!(py, "ForkError"),
            match subject {
                Subject::Set => format!(
                    "{what} belongs to process {owner}, and this is a fork of it; make a new one here"
                ),
                _ => format!(
                    "{what} is used by process {owner}; a receiver that a fork has shared belongs to \
                     the process that receives first (or that gave it away)"
                ),
            },
        ),
        Error::ReceiverTwice | Error::Unfit(_) => exception(intern!(py, "EncodeError"), text),
        Error::ViewsExist(_) => PyBufferError::new_err(text),
        Error::Kernel { ref source, .. } => match source.raw_os_error() {
            Some(errno) => exception(intern!(py, "KernelError"), (errno, text)),
            None => exception(intern!(py, "KernelError"), text),
        },
    }
}

fn gone(why: Gone, subject: Subject) -> String {
    let noun = subject.noun();
    match (why, subject) {
        (Gone::Closed, _) => format!("{noun} is closed"),
        (Gone::Sent, Subject::Sender | Subject::Flush) => {
            "this sender was moved by an earlier send; send sender.clone() to keep one".into()
        }
        (Gone::Sent, Subject::InnerSender) => {
            format!("{noun} was moved by an earlier send itself; send sender.clone() to keep one")
        }
        (Gone::Sent, _) => format!(
            "{noun} was moved by an earlier send; it belongs to whoever receives that message"
        ),
        (Gone::Converted, _) => {
            format!("{noun} was taken over by to_opaque() or to(); use the end they returned")
        }
        (Gone::Added, _) => format!("{noun} was moved into a receiver set or router"),
        (Gone::Started, _) => {
            format!("{noun} was moved into another process")
        }
    }
}

/// An exception from a codec: ours, interrupts and the lack of memory as they are, any other as the cause
/// of an `EncodeError` or `DecodeError`.
pub fn from_codec(py: Python<'_>, error: PyErr, name: &Bound<'_, PyString>, what: &str) -> PyErr {
    let own = class(py, intern!(py, "IpcError")).is_ok_and(|base| error.is_instance(py, &base));
    if own || !error.is_instance_of::<PyException>(py) || error.is_instance_of::<PyMemoryError>(py)
    {
        return error;
    }
    let wrapped = exception(name, format!("{what}: {}", error.value(py)));
    wrapped.set_cause(py, Some(error));
    wrapped
}
