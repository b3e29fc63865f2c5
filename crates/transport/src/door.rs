//! A door: a listening socket by which every further sending process gets a connection of its own.
//!
//! The receiver listens; whoever may send holds the place where the socket is bound, opened by its path and
//! unlinked, so there is no name to guess. A connection has room of its own, and what a process has sent over
//! it stays although the process has gone and nobody has accepted it yet. So nobody ever waits for another
//! sender's unread messages.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketFlags};

use crate::error::{Error, Result};
use crate::os::{place, socket};

/// Connections that wait to be accepted; the kernel's own limit (net.core.somaxconn) may be lower.
const BACKLOG: i32 = 4096;

/// A listening socket, and the place for those who connect.
pub fn make() -> Result<(OwnedFd, OwnedFd)> {
    let listening = socket::new_unconnected()?;
    let place = place::bind_privately(&listening, &place::random()?)?;
    rustix::net::listen(&listening, BACKLOG).map_err(|e| Error::kernel("listen", e))?;
    Ok((listening, place))
}

/// The next connection, or None. Never waits: a peer that has made the listening socket a waiting one gets
/// [`Error::Protocol`].
pub fn accept(listening: &OwnedFd) -> Result<Option<OwnedFd>> {
    loop {
        let waits =
            rustix::fs::fcntl_getfl(listening).is_ok_and(|flags| !flags.contains(OFlags::NONBLOCK));
        if waits {
            return Err(Error::Protocol(
                "the door of this channel was tampered with".into(),
            ));
        }
        match rustix::net::accept_with(listening, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(connection) => return Ok(Some(connection)),
            Err(Errno::AGAIN | Errno::INVAL) => return Ok(None),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(e) => return Err(Error::kernel("accept", e)),
        }
    }
}

/// A connection to whoever listens. Never waits.
pub fn connect(door: BorrowedFd<'_>) -> Result<OwnedFd> {
    let connection = socket::new_unconnected()?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", door.as_raw_fd()))
        .map_err(|e| Error::kernel("connect", e))?;
    loop {
        match rustix::net::connect(connection.as_fd(), &address) {
            Ok(()) => return Ok(connection),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                return Err(Error::BacklogFull(
                    "thousands of processes have sent to this channel, and its receiver has accepted none of \
                     them yet (net.core.somaxconn); let it catch up, then send again"
                        .into(),
                ));
            }
            Err(Errno::CONNREFUSED | Errno::NOENT) => return Err(Error::ReceiverGone),
            Err(Errno::MFILE) => return Err(Error::kernel("connect", Errno::MFILE)),
            Err(_) => {
                return Err(Error::Protocol(
                    "this sender came with a door that does not lead to its receiver".into(),
                ));
            }
        }
    }
}
