//! What came beside a message from a Rust program: nothing says yet what it is to be.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use ipc_channel_transport::frames::reader::Holders;
use ipc_channel_transport::os::descriptor;
use ipc_channel_transport::{Copies, Error, Gone, Receiver, Sender};
use pyo3::prelude::*;

use crate::codec;
use crate::errors::{self, Subject};
use crate::memory::Memory;
use crate::receiver_end::ReceiverEnd;
use crate::sender_end::SenderEnd;

/// A descriptor that becomes a sender, a receiver or a region of shared memory, once.
#[pyclass(frozen, module = "ipc_channel._core")]
pub struct Foreign {
    fd: Mutex<Option<OwnedFd>>,
    socket: bool,
    /// Those of its message.
    copies: Arc<Copies>,
}

impl Foreign {
    pub fn of(fd: OwnedFd, copies: Arc<Copies>) -> Foreign {
        Foreign {
            copies,
            socket: descriptor::is_socket(fd.as_fd()),
            fd: Mutex::new(Some(fd)),
        }
    }

    /// The descriptor, unless it has become something.
    pub fn take(&self) -> Option<OwnedFd> {
        self.fd
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Takes the descriptor if `check` likes it.
    fn take_if(&self, check: impl FnOnce(&OwnedFd) -> Result<(), Error>) -> Result<OwnedFd, Error> {
        let mut fd = self.fd.lock().unwrap_or_else(PoisonError::into_inner);
        match &*fd {
            None => return Err(Error::Gone(Gone::Converted)),
            Some(fd) => check(fd)?,
        }
        fd.take().ok_or(Error::Gone(Gone::Converted))
    }

    fn socket(&self) -> Result<OwnedFd, Error> {
        self.take_if(|fd| descriptor::check_channel_socket(fd.as_fd()))
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Some(fd) = self.take() {
            descriptor::close_unknown(vec![fd]);
        }
    }
}

#[pymethods]
impl Foreign {
    /// Whether it can be an end; otherwise it can be shared memory.
    #[getter]
    fn socket_like(&self) -> bool {
        self.socket
    }

    /// The sender that it is, of a channel with that version of the crate. Raises ProtocolError.
    fn sender(&self, py: Python<'_>, label: u8, version: u8) -> PyResult<SenderEnd> {
        let version = codec::version(version)?;
        let socket = self.socket();
        let socket = socket.map_err(|e| errors::raise(py, e, Subject::Other))?;
        Ok(SenderEnd::bare(Sender::of_frames(socket, version), label))
    }

    /// The receiver that it is. Raises ProtocolError.
    fn receiver(&self, py: Python<'_>, label: u8, version: u8) -> PyResult<ReceiverEnd> {
        let version = codec::version(version)?;
        let receiver = self
            .socket()
            .and_then(|socket| Receiver::of_frames(socket, version, Holders::Others));
        let receiver = receiver.map_err(|e| errors::raise(py, e, Subject::Other))?;
        Ok(ReceiverEnd::bare(receiver, label))
    }

    /// A copy of the shared memory that it is, the same for all of the message that are the same. Raises ProtocolError.
    fn memory(&self, py: Python<'_>) -> PyResult<Memory> {
        let copied = py.detach(|| {
            let file = self.take_if(|fd| descriptor::check_memory(fd.as_fd()).map(drop))?;
            self.copies.of(&file)
        });
        let region = copied.map_err(|e| errors::raise(py, e, Subject::Other))?;
        Ok(Memory::of(region))
    }

    /// Close it, if it is nothing yet.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            if let Some(fd) = self.take() {
                descriptor::close_unknown(vec![fd]);
            }
        });
    }
}
