//! The receiving end of a channel.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::deadline::Deadline;
use crate::end::{End, Gone, Hint, Readiness};
use crate::error::{Error, Result};
use crate::frames::reader::{Holders, Reader};
use crate::frames::writer::Whereabouts;
use crate::intake::{Intake, Plain, Taken};
use crate::message::{Body, Message};
use crate::os::poll::{Epoll, Interest};
use crate::os::process::Claim;
use crate::os::{clock, descriptor, fork, process};
use crate::spin::{self, Spin};
use crate::way::In;
use crate::wire::luggage::Incoming;
use crate::wire::rust::Version;

/// A receiving end, used by one process. Threads may share it: each message goes to one of them.
#[derive(Debug)]
pub struct Receiver {
    end: Arc<End>,
    intake: In,
    claim: Arc<Claim>,
    /// The generation in which the claim was found to be ours.
    claimed_in: AtomicU64,
    spin: Spin,
    peer_pid: Option<u32>,
}

impl Receiver {
    /// Takes over a channel's socket.
    pub fn from_socket(socket: OwnedFd) -> Result<Receiver> {
        Receiver::received(socket, Vec::new())
    }

    /// Takes over what came in a message. Nobody at the other side notices before it is first used.
    pub(crate) fn received(socket: OwnedFd, luggage: Vec<Incoming>) -> Result<Receiver> {
        let socket = Arc::new(socket);
        let intake = In::Lanes(Intake::new(socket.clone(), luggage));
        Receiver::of(socket, intake)
    }

    /// Takes over the socket of a channel whose senders may be in Rust programs.
    pub fn of_frames(socket: OwnedFd, version: Version, holders: Holders) -> Result<Receiver> {
        let socket = Arc::new(socket);
        let intake = In::Frames(Reader::new(version, socket.clone(), holders));
        Receiver::of(socket, intake)
    }

    fn of(socket: Arc<OwnedFd>, intake: In) -> Result<Receiver> {
        let claim = Arc::new(Claim::new()?);
        let end = End::new(socket, Some(intake.resident()));
        intake.belongs_to(&end)?;
        Ok(Receiver {
            end,
            intake,
            claim,
            claimed_in: AtomicU64::new(0),
            spin: Spin::fresh(),
            peer_pid: None,
        })
    }

    /// Takes over a socket that a one-shot server has accepted.
    pub(crate) fn accepted(
        socket: OwnedFd,
        peer_pid: u32,
        version: Option<Version>,
    ) -> Result<Receiver> {
        let mut receiver = match version {
            None => Receiver::from_socket(socket)?,
            Some(version) => Receiver::of_frames(socket, version, Holders::Us)?,
        };
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
    /// [`Error::Protocol`] is for that message (or lane) alone, which is then done with. After any other
    /// error the message is still there.
    pub fn try_recv(&self) -> Result<Message> {
        self.try_take(&mut |taken| {
            Ok(match taken {
                Taken::Plain(plain) => plain.into_message(),
                Taken::Bytes(bytes) => Message::plain(Body::Inline(bytes.to_vec())),
                Taken::Message(message) => message,
            })
        })
    }

    /// Gives the next message to `deliver`; what that refuses stays. Otherwise as [`Receiver::try_recv`].
    #[inline]
    pub fn try_take<R>(&self, deliver: &mut dyn FnMut(Taken<'_>) -> Result<R>) -> Result<R> {
        self.check_usable()?;
        let taken = self.intake.take(deliver);
        if self.end.is_attended() {
            // Whatever came of it: a bell may have been heard on behalf of others.
            self.intake.settle(&self.end);
        }
        taken
    }

    /// Gives messages that are nothing but a small payload to `deliver`, in their order, as long as it says yes
    /// and the next one can be seen without asking the kernel; `most` at most. Returns how many it has taken.
    #[inline]
    pub fn take_plain(&self, most: u32, deliver: impl FnMut(&Plain<'_>) -> bool) -> u32 {
        if self.check_usable().is_err() {
            return 0;
        }
        let taken = self.intake.take_plain(most, deliver);
        if taken > 0 && self.end.is_attended() {
            self.intake.settle(&self.end);
        }
        taken
    }

    /// The next message, waiting for it until the deadline. [`Error::Interrupted`] also after [`End::hint`].
    pub fn recv(&self, deadline: Deadline) -> Result<Message> {
        let mut vain = Vain::default();
        loop {
            match self.try_recv() {
                Err(Error::Empty) => {}
                other => return other,
            }
            self.wait(deadline, &mut vain)?;
            if self.end.is_hinted(Hint::Kept) {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Waits until there may be a message: try again.
    pub fn wait(&self, deadline: Deadline, vain: &mut Vain) -> Result<()> {
        vain.once_more(deadline)?;
        if vain.is_suspicious() {
            self.intake.look_at_the_first()?;
        }
        let sleep = |until| {
            let arm = || self.intake.rest();
            self.end.wait(None, Interest::Readable, until, arm)
        };
        if self.intake.has_lanes() {
            return self.spin.wait(deadline, |most| self.look(most), sleep);
        }
        let ask = |most| self.end.is_ready_within(Interest::Readable, most);
        spin::OF_THIS_THREAD.with(|spin| spin.wait(deadline, ask, sleep))
    }

    /// Looks for news in the lanes for a moment, `most` nanoseconds at most. True if there are some.
    pub fn spin(&self, most: u64) -> bool {
        let patience = self.spin.patience(most);
        patience.is_some_and(|most| {
            self.intake.has_news() || self.intake.has_lanes() && self.look(most)
        })
    }

    fn look(&self, nanoseconds: u64) -> bool {
        const LOOKS_A_CLOCK: u32 = 16;
        /// Long enough for a peer that is awake. Any other may need this processor to send.
        const UNDISTURBED_NS: u64 = 10_000;
        let began = clock::now();
        loop {
            for _ in 0..LOOKS_A_CLOCK {
                if self.intake.has_news() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let took = clock::now() - began;
            if took > nanoseconds || self.end.check_open().is_err() {
                return false;
            }
            if took > UNDISTURBED_NS {
                std::thread::yield_now();
            }
        }
    }

    /// Undoes what another holder of the socket may have done to make a full queue look empty.
    pub(crate) fn look_at_the_first(&self) -> Result<()> {
        self.intake.look_at_the_first()
    }

    /// Fails unless the end is open and this process's.
    #[inline]
    pub fn check_usable(&self) -> Result<()> {
        self.end.check_open()?;
        let generation = fork::generation();
        if self.claimed_in.load(Ordering::Relaxed) != generation {
            self.claim.take()?;
            self.claimed_in.store(generation, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits until a message or the end of the stream is there; false at the deadline.
    pub fn poll(&self, deadline: Deadline) -> Result<bool> {
        self.check_usable()?;
        let mut vain = Vain::default();
        loop {
            if self.is_ready()? {
                return Ok(true);
            }
            if deadline.passed() {
                return Ok(false);
            }
            match self.wait(deadline, &mut vain) {
                Ok(()) => {}
                Err(Error::TimedOut) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }

    fn is_ready(&self) -> Result<bool> {
        self.end.check_open()?;
        let ready = self.intake.is_ready();
        if self.end.is_attended() {
            self.intake.settle(&self.end);
        }
        ready
    }

    /// A descriptor for an event loop, which stays valid while the returned value lives.
    pub fn watch(&self) -> Result<Arc<Readiness>> {
        self.prepare_to_be_watched()?;
        let readiness = self.end.watch(None, Interest::Readable)?;
        self.intake.settle(&self.end);
        Ok(readiness)
    }

    /// From now on that descriptor tells of every message again.
    pub fn attend(&self, readiness: &Readiness) -> Result<()> {
        self.prepare_to_be_watched()?;
        self.end.attend(readiness, true);
        self.intake.settle(&self.end);
        Ok(())
    }

    /// Nobody looks at that descriptor until [`Receiver::attend`]: senders need not ring for it.
    pub fn neglect(&self, readiness: &Readiness) {
        self.end.attend(readiness, false);
    }

    /// Whether a message can be seen without asking the kernel.
    pub fn has_news(&self) -> bool {
        self.intake.has_news()
    }

    /// Whether messages can come that are seen without asking the kernel.
    pub fn has_lanes(&self) -> bool {
        self.intake.has_lanes()
    }

    /// The end's own descriptor for event loops, closed with it.
    pub fn fileno(&self) -> Result<RawFd> {
        self.prepare_to_be_watched()?;
        let fd = self.end.fileno(Interest::Readable)?;
        self.intake.settle(&self.end);
        Ok(fd)
    }

    /// What came with the receiver must be among the descriptors.
    pub(crate) fn prepare_to_be_watched(&self) -> Result<()> {
        self.end.check_open()?;
        if self.intake.is_packed() {
            self.check_usable()?;
            self.intake.is_ready()?;
        }
        Ok(())
    }

    /// Whether something is in memory that descriptors do not tell of; if not, they will tell of it.
    pub(crate) fn has_more(&self) -> bool {
        !self.intake.rest()
    }

    /// What is polled for news besides the socket, once there is more than that.
    pub(crate) fn behind(&self) -> Option<Arc<Epoll>> {
        self.intake.poll()
    }

    /// How many lanes lead here, and the bytes in them that are not yet received.
    pub fn lanes(&self) -> (usize, u64) {
        self.intake.lanes()
    }

    /// Sets the end aside, to be given to another process.
    pub fn begin_move(&self) -> Result<Moving> {
        self.end.begin_move()?;
        let moving = Moving {
            end: self.end.clone(),
            intake: self.intake.clone(),
            claim: self.claim.clone(),
            outcome: None,
        };
        self.intake.set_moving(true)?;
        self.claim.mark_moved()?;
        Ok(moving)
    }

    /// Moves the end into a new object; this one is gone for the reason given.
    pub fn take(&self, why: Gone) -> Result<Receiver> {
        let socket = self.end.socket()?;
        let end = End::new(socket, Some(self.intake.resident()));
        self.intake.belongs_to(&end)?;
        if let Err(error) = self.end.take(why) {
            // Another thread was faster. What it did to the end, it did not do to what belongs to the heir.
            self.intake.belongs_to(&self.end)?;
            if let Some(gone) = self.end.gone_for_good() {
                self.intake.resident().left(self.end.id(), gone);
            }
            return Err(error);
        }
        Ok(Receiver {
            end,
            intake: self.intake.clone(),
            claim: self.claim.clone(),
            claimed_in: AtomicU64::new(0),
            spin: Spin::fresh(),
            peer_pid: self.peer_pid,
        })
    }

    /// For its sender, to know whether it is still where the channel was made.
    pub(crate) fn whereabouts(&self) -> Option<Whereabouts> {
        match &self.intake {
            In::Lanes(_) => None,
            In::Frames(reader) => Some(Whereabouts::of(reader, &self.claim)),
        }
    }

    /// Its state.
    pub fn end(&self) -> &Arc<End> {
        &self.end
    }

    /// A new descriptor of its socket, for whatever the caller wants to do with it.
    pub fn duplicate(&self) -> Result<OwnedFd> {
        let socket = self.end.socket()?;
        self.intake.share();
        descriptor::duplicate(socket.as_fd())
    }

    /// The version of the crate whose frames it takes; None: messages of our own.
    pub fn version(&self) -> Option<Version> {
        self.intake.version()
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
pub struct Vain(u32);

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

/// A receiver that is being given away: usable by nobody here, until it is decided.
#[derive(Debug)]
pub struct Moving {
    end: Arc<End>,
    intake: In,
    claim: Arc<Claim>,
    outcome: Option<Gone>,
}

impl Moving {
    /// It arrived: our copy is closed.
    pub fn commit(mut self, why: Gone) {
        self.outcome = Some(why);
    }

    /// The version of the crate whose frames it takes.
    pub fn version(&self) -> Option<Version> {
        self.intake.version()
    }

    /// Whether it is this receiver that moves.
    pub fn is_of(&self, receiver: &Receiver) -> bool {
        Arc::ptr_eq(&self.end, &receiver.end)
    }

    /// Its socket.
    pub fn socket(&self) -> Result<Arc<OwnedFd>> {
        self.end.socket_even_moving()
    }

    /// What goes with the socket.
    pub fn pack(&self) -> Result<Option<OwnedFd>> {
        self.intake.pack()
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        if self.outcome.is_none() {
            // Only a beginning can be refused.
            let _ = self.intake.set_moving(false);
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
