//! The receiving end of a channel.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::deadline::Deadline;
use crate::end::{End, Gone};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::os::descriptor::Leftovers;
use crate::os::poll::{self, Interest};
use crate::os::process::Claim;
use crate::os::socket::{self, Peeked};
use crate::os::{descriptor, process};
use crate::wire::native;

thread_local! {
    // A packet is copied out of its queue before it is known how long it is.
    static PACKET: RefCell<Box<[u8]>> = RefCell::new(vec![0; native::MAX_PACKET].into());
}

/// A receiving end, used by one process. Threads may share it: each message goes to one of them.
#[derive(Debug)]
pub struct Receiver {
    end: Arc<End>,
    claim: Arc<Claim>,
    peer_pid: Option<u32>,
}

impl Receiver {
    /// Takes over a channel's socket.
    pub fn from_socket(socket: OwnedFd) -> Result<Receiver> {
        Ok(Receiver {
            claim: Arc::new(Claim::new()?),
            end: End::new(Arc::new(socket)),
            peer_pid: None,
        })
    }

    /// Takes over a socket that a one-shot server has accepted.
    pub(crate) fn accepted(socket: OwnedFd, peer_pid: u32) -> Result<Receiver> {
        let mut receiver = Receiver::from_socket(socket)?;
        receiver.peer_pid = Some(peer_pid);
        Ok(receiver)
    }

    /// Takes over an inherited descriptor, after a look at what it is.
    pub fn adopt(socket: OwnedFd) -> Result<Receiver> {
        descriptor::check_channel_socket(socket.as_fd())?;
        descriptor::set_close_on_exec(socket.as_fd())?;
        Receiver::from_socket(socket)
    }

    /// The next message if one is there, else [`Error::Empty`] or [`Error::Disconnected`].
    ///
    /// [`Error::Protocol`] is for that packet alone, which is consumed. After any other error the packet
    /// is still there.
    pub fn try_recv(&self) -> Result<Message> {
        let mut leftovers = Leftovers::default();
        self.end.while_open(|socket| {
            self.claim.take()?;
            take_message(socket, &mut leftovers)
        })
    }

    /// The next message, waiting for it until the deadline. [`Error::Interrupted`] also after [`End::hint`].
    pub fn recv(&self, deadline: Deadline) -> Result<Message> {
        let mut vain = Vain::default();
        loop {
            match self.try_recv() {
                Err(Error::Empty) => vain.once_more(deadline)?,
                other => return other,
            }
            if vain.is_suspicious() {
                self.look_at_the_first()?;
            }
            self.end.wait(Interest::Readable, deadline)?;
            if self.end.is_hinted() {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Undoes what another holder of the socket may have done to make a full queue look empty.
    pub(crate) fn look_at_the_first(&self) -> Result<()> {
        self.end
            .while_open(|socket| socket::peek_at_the_first(socket.as_fd()))
    }

    /// Fails unless the end is open and this process's.
    pub fn check_usable(&self) -> Result<()> {
        self.end.while_open(|_| self.claim.take())
    }

    /// Waits until a message or the end of the stream is there; false at the deadline.
    pub fn poll(&self, deadline: Deadline) -> Result<bool> {
        self.check_usable()?;
        loop {
            if poll::is_ready(self.end.socket()?.as_fd(), Interest::Readable)? {
                return Ok(true);
            }
            match self.end.wait(Interest::Readable, deadline) {
                Ok(()) => {}
                Err(Error::TimedOut) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }

    /// Sets the end aside, to be given to another process.
    pub fn begin_move(&self) -> Result<Moving> {
        self.end.begin_move()?;
        let moving = Moving {
            end: self.end.clone(),
            claim: self.claim.clone(),
            outcome: None,
        };
        self.claim.mark_moved()?;
        Ok(moving)
    }

    /// Moves the end into a new object; this one is gone for the reason given.
    pub fn take(&self, why: Gone) -> Result<Receiver> {
        Ok(Receiver {
            end: End::new(self.end.take(why)?),
            claim: self.claim.clone(),
            peer_pid: self.peer_pid,
        })
    }

    /// Its state.
    pub fn end(&self) -> &Arc<End> {
        &self.end
    }

    /// The process at the other side, if a one-shot server made the connection.
    pub fn peer_pid(&self) -> Option<u32> {
        self.peer_pid
    }
}

/// Counts the waits that ended although nothing was there: another thread was faster, or a hostile peer
/// that holds a duplicate of the socket makes it look ready. Such a wait never sleeps, so by itself it sees
/// neither the deadline nor a signal.
#[derive(Debug, Default)]
pub(crate) struct Vain(u32);

impl Vain {
    /// Called before each wait.
    pub(crate) fn once_more(&mut self, deadline: Deadline) -> Result<()> {
        const LOOK_FOR_SIGNALS_EVERY: u32 = 1024;
        if self.0 > 0 && deadline.passed() {
            return Err(Error::TimedOut);
        }
        self.0 += 1;
        if self.0.is_multiple_of(LOOK_FOR_SIGNALS_EVERY) {
            return Err(Error::Interrupted);
        }
        Ok(())
    }

    /// So many that other threads are hardly the reason.
    pub(crate) fn is_suspicious(&self) -> bool {
        self.0 > 16
    }
}

/// Takes the message at the head of a queue; see [`Receiver::try_recv`] for the errors.
///
/// Invariant: a packet leaves the queue only once its message is complete in our hands, or once it is
/// known to be forged. The caller keeps other threads away between the look and the taking.
fn take_message(socket: &OwnedFd, leftovers: &mut Leftovers) -> Result<Message> {
    PACKET.with_borrow_mut(|buffer| {
        let (len, fds) = match socket::peek(socket.as_fd(), buffer)? {
            Peeked::Nothing => return Err(Error::Empty),
            Peeked::End => return Err(Error::Disconnected),
            Peeked::Packet {
                fds,
                fds_missing: true,
                ..
            } => {
                let came = fds.len();
                leftovers.fds = fds;
                return Err(Error::TooManyHandles(format!(
                    "the next message carries descriptors, and this process has room for {came} only; \
                     close some or raise the limit (ulimit -n), then receive it again"
                )));
            }
            Peeked::Packet { len, fds, .. } => (len, fds),
        };
        leftovers.fds = fds;
        let message = match buffer.get(..len) {
            Some(packet) => native::read(packet, leftovers),
            None => Err(Error::Protocol(format!(
                "a packet from the peer is {len} bytes long, and {} are the most",
                native::MAX_PACKET
            ))),
        };
        if matches!(message, Ok(_) | Err(Error::Protocol(_))) {
            socket::discard(socket.as_fd())?;
        }
        message
    })
}

/// A receiver that is being given away: usable by nobody here, until it is decided.
#[derive(Debug)]
pub struct Moving {
    end: Arc<End>,
    claim: Arc<Claim>,
    outcome: Option<Gone>,
}

impl Moving {
    /// It arrived: our copy is closed.
    pub fn commit(mut self, why: Gone) {
        self.outcome = Some(why);
    }

    /// Whether it is this receiver that moves.
    pub fn is_of(&self, receiver: &Receiver) -> bool {
        Arc::ptr_eq(&self.end, &receiver.end)
    }

    /// Its socket.
    pub fn socket(&self) -> Result<Arc<OwnedFd>> {
        self.end.socket_even_moving()
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        if self.outcome.is_none() {
            self.claim.unmark_moved();
        }
        self.end.finish_move(self.outcome);
    }
}

/// The process that made a connection, and whether it may: it is the same user, or the one allowed.
pub(crate) fn admit(socket: &OwnedFd, allow_uid: Option<u32>) -> Result<Option<process::Peer>> {
    let peer = process::peer_of(socket.as_fd())?;
    let welcome = peer.uid == process::effective_user() || Some(peer.uid) == allow_uid;
    Ok(welcome.then_some(peer))
}
