//! The sending end of a channel, and what is under way through it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::deadline::Deadline;
use crate::end::{End, Gone, Readiness};
use crate::error::{Error, Result};
use crate::frames::meeting;
use crate::frames::reader::Holders;
use crate::frames::writer::{Mark, Writer};
use crate::message::{HandleRef, Parcel};
use crate::os::poll::Interest;
use crate::os::{descriptor, process, socket};
use crate::receiver::{Moving, Receiver, Vain};
use crate::route::{Attempt, LaneStatistics, Route, SHARED, Ticket};
use crate::spin;
use crate::sync::Lock;
use crate::way::{Layout, Out};
use crate::wire::native::{Entry, FdRef, Frame, HandleKind};
use crate::wire::rust::{self, Version};

/// A new channel. `capacity` is the most undelivered messages of one sending process; 0: no limit.
pub fn channel(capacity: u32) -> Result<(Sender, Receiver)> {
    let (sender, receiver) = socket::pair()?;
    let ticket = Ticket {
        door: None,
        occupied: 0,
    };
    Ok((
        Sender::new(Arc::new(sender), ticket, capacity),
        Receiver::from_socket(receiver)?,
    ))
}

/// A new channel whose other end may be in a Rust program.
pub fn channel_of_frames(version: Version) -> Result<(Sender, Receiver)> {
    let (sender, receiver) = socket::duplex_pair()?;
    let receiver = Receiver::of_frames(receiver, version, Holders::Us)?;
    let writer = Writer::new(version);
    writer.made_with(receiver.whereabouts());
    let sender = Sender::of_way(Arc::new(sender), Out::Frames(writer));
    Ok((sender, receiver))
}

/// The place of a one-shot server's client, until it travels to the server with the first message.
type Seat = Arc<Lock<Option<OwnedFd>>>;

/// A sending end. Many threads may use it.
#[derive(Debug)]
pub struct Sender {
    end: Arc<End>,
    way: Out,
    peer_pid: Option<u32>,
    seat: Lock<Option<Seat>>,
}

impl Sender {
    fn new(socket: Arc<OwnedFd>, ticket: Ticket, capacity: u32) -> Sender {
        let route = Route::new(ticket, capacity);
        Sender::of_way(socket, Out::Lanes(route))
    }

    fn of_way(socket: Arc<OwnedFd>, way: Out) -> Sender {
        let end = match &way {
            Out::Lanes(_) => End::of_sender(socket, way.resident()),
            // Its other side can write to it, and leave there what is slow to close.
            Out::Frames(_) => End::new(socket, Some(way.resident())),
        };
        way.enlist(&end);
        Sender {
            end,
            way,
            peer_pid: None,
            seat: Lock::new(None),
        }
    }

    /// Takes over a channel's socket, which other processes may have too.
    pub fn from_socket(socket: OwnedFd) -> Sender {
        let ticket = Ticket {
            door: None,
            occupied: SHARED,
        };
        Sender::new(Arc::new(socket), ticket, 0)
    }

    /// Takes over the socket of a channel whose receiver may be in a Rust program.
    pub fn of_frames(socket: OwnedFd, version: Version) -> Sender {
        Sender::of_way(Arc::new(socket), Out::Frames(Writer::new(version)))
    }

    /// Connects to a one-shot server of a Rust program, or to one of ours for such programs.
    pub fn connect_to_path(name: &str, version: Version, deadline: Deadline) -> Result<Sender> {
        let socket = meeting::connect(name, deadline)?;
        let peer_pid = Some(process::peer_of(socket.as_fd())?.pid);
        let mut sender = Sender::of_frames(socket, version);
        sender.peer_pid = peer_pid;
        Ok(sender)
    }

    /// Takes over what came in a message.
    pub(crate) fn received(socket: OwnedFd, door: Option<OwnedFd>, entry: &Entry) -> Sender {
        let ticket = Ticket {
            door: door.map(Arc::new),
            occupied: entry.occupied,
        };
        Sender::new(Arc::new(socket), ticket, entry.capacity)
    }

    /// Takes over a socket connected to a one-shot server, and the seat that this client has there.
    pub(crate) fn connected(socket: OwnedFd, seat: OwnedFd) -> Result<Sender> {
        let peer_pid = Some(process::peer_of(socket.as_fd())?.pid);
        let ticket = Ticket {
            door: None,
            occupied: 0,
        };
        let mut sender = Sender::new(Arc::new(socket), ticket, 0);
        sender.peer_pid = peer_pid;
        sender.seat = Lock::new(Some(Arc::new(Lock::new(Some(seat)))));
        Ok(sender)
    }

    /// Takes over an inherited descriptor, after a look at what it is.
    pub fn adopt(socket: OwnedFd) -> Result<Sender> {
        descriptor::check_channel_socket(socket.as_fd())?;
        descriptor::set_close_on_exec(socket.as_fd())?;
        Ok(Sender::from_socket(socket))
    }

    /// Sends a message that is nothing but bytes, if that is possible without any ado; else nothing.
    #[inline]
    pub fn send_plain(&self, payload: &[u8]) -> Result<bool> {
        self.end.check_open()?;
        self.way.send_plain(&self.end, payload)
    }

    /// Sends what `outgoing` holds. Waits until the deadline if the channel is bounded and full. May be called
    /// again after [`Error::Interrupted`], [`Error::TimedOut`] and [`Error::Full`]; nothing has been sent then.
    pub fn publish(&self, outgoing: &Outgoing<'_>, deadline: Deadline) -> Result<()> {
        let primary = self.end.socket()?;
        let shared_seat = self.seat.lock().clone();
        let mut seat = shared_seat.as_ref().and_then(|seat| seat.lock().take());
        let mut vain = Vain::default();
        let outcome = loop {
            let place = seat.as_ref().map(|seat| seat.as_fd());
            let bell = match self.way.send(&primary, &outgoing.layout, place) {
                Ok(Attempt::Sent) => {
                    seat = None;
                    if shared_seat.is_some() {
                        *self.seat.lock() = None;
                    }
                    break Ok(());
                }
                Ok(Attempt::SocketFull) => None,
                Ok(Attempt::AtCapacity(bell)) => Some(bell),
                Err(e) => break Err(e),
            };
            if deadline.passed() {
                break Err(Error::Full);
            }
            if let Err(e) = vain.once_more(deadline) {
                break Err(e);
            }
            let waited = spin::sleep(deadline, |until| match bell {
                Some(bell) => self
                    .end
                    .wait(Some(bell), Interest::Readable, until, || self.way.arm()),
                None => self.end.wait(None, Interest::Writable, until, || true),
            });
            if let Err(e) = waited {
                break Err(e);
            }
        };
        if let (Some(shared), Some(seat)) = (shared_seat, seat) {
            *shared.lock() = Some(seat);
        }
        self.end.put_back(primary);
        outcome
    }

    /// A descriptor that is readable when there is room, which stays valid while the returned value lives.
    pub fn watch(&self) -> Result<Arc<Readiness>> {
        match self.way.bell() {
            None => self.end.watch(None, Interest::Writable),
            Some(bell) => {
                let readiness = self.end.watch(Some(bell), Interest::Readable)?;
                if !self.way.arm() {
                    readiness.ring();
                }
                Ok(readiness)
            }
        }
    }

    /// Closes the end. A one-shot server's client that has not sent anything gives up its seat.
    pub fn close(&self) {
        self.end.close();
        *self.seat.lock() = None;
    }

    /// Another handle on the same sending end.
    pub fn duplicate(&self) -> Result<Sender> {
        let socket = Arc::new(descriptor::duplicate(self.end.socket()?.as_fd())?);
        let mut twin = Sender::of_way(socket, self.way.clone());
        twin.peer_pid = self.peer_pid;
        twin.seat = Lock::new(self.seat.lock().clone());
        Ok(twin)
    }

    /// Moves the end into a new object; this one is gone for the reason given.
    pub fn take(&self, why: Gone) -> Result<Sender> {
        // The new one first: a route without ends gives up its lane.
        let mut heir = Sender::of_way(self.end.socket()?, self.way.clone());
        self.end.take(why)?;
        heir.peer_pid = self.peer_pid;
        heir.seat = Lock::new(self.seat.lock().clone());
        Ok(heir)
    }

    /// Its state.
    pub fn end(&self) -> &Arc<End> {
        &self.end
    }

    /// The most undelivered messages of one sending process; None: no limit.
    pub fn capacity(&self) -> Option<u32> {
        match self.way.capacity() {
            0 => None,
            capacity => Some(capacity),
        }
    }

    /// What is under way in this process's lane, if it has one.
    pub fn lane(&self) -> Option<LaneStatistics> {
        self.way.statistics()
    }

    /// The version of the crate that is meant to read at the other side; None: a receiver of ours.
    pub fn version(&self) -> Option<Version> {
        self.way.version()
    }

    /// What has been sent so far, for [`Sender::flush_until`]. None: a message is where its receiver finds it when it
    /// is sent.
    pub fn mark(&self) -> Result<Option<Mark>> {
        self.end.check_open()?;
        Ok(match &self.way {
            Out::Lanes(_) => None,
            Out::Frames(writer) => Some(writer.mark()),
        })
    }

    /// Waits until nothing of that is held in this process. [`Error::ReceiverGone`] if it never will be read.
    pub fn flush_until(&self, mark: Option<Mark>, deadline: Deadline) -> Result<()> {
        match (&self.way, mark) {
            (Out::Frames(writer), Some(mark)) => writer.flush(mark, deadline),
            _ => Ok(()),
        }
    }

    /// Waits until nothing that had been sent when it was called is held in this process.
    pub fn flush(&self, deadline: Deadline) -> Result<()> {
        self.flush_until(self.mark()?, deadline)
    }

    /// What people are told when the process cannot end because a message waits for its receiver.
    pub fn describe(&self, text: impl FnOnce() -> String) {
        if let Out::Frames(writer) = &self.way {
            writer.describe(text());
        }
    }

    /// The process at the other side, if a one-shot server made the connection.
    pub fn peer_pid(&self) -> Option<u32> {
        self.peer_pid
    }
}

/// A message on its way: laid out, and its ends set aside. Dropped before [`Outgoing::delivered`], it leaves
/// everything as it was.
#[derive(Debug)]
pub struct Outgoing<'a> {
    layout: Layout<'a>,
    receivers: Vec<Moving>,
    senders: Vec<Leaving<'a>>,
}

/// A sender inside a message. If it is the only one of its channel, it is set aside: what others are told of it
/// must stay true until it has left.
#[derive(Debug)]
struct Leaving<'a> {
    sender: &'a Sender,
    set_aside: bool,
}

impl Leaving<'_> {
    fn commit(mut self) {
        self.set_aside = false;
        self.sender.end.finish_move(Some(Gone::Sent));
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if self.set_aside {
            self.sender.end.finish_move(None);
        }
    }
}

impl<'a> Outgoing<'a> {
    /// Lays out `parcel`, to be sent through `carrier`; without one, in packets of our own.
    pub fn new(parcel: &Parcel<'a>, carrier: Option<&Sender>) -> Result<Outgoing<'a>> {
        if let Some(version) = carrier.and_then(Sender::version) {
            return Outgoing::in_frames(parcel, version);
        }
        let mut luggage = Luggage::default();
        for (handle, label) in &parcel.handles {
            luggage.add(handle, *label, parcel, carrier)?;
        }
        let frame = Frame::new(
            parcel.payload,
            &parcel.buffers,
            &luggage.entries,
            luggage.fds,
        )?;
        Ok(Outgoing {
            layout: Layout::Native(frame),
            receivers: luggage.receivers,
            senders: luggage.senders,
        })
    }

    /// Lays it out for a Rust program.
    fn in_frames(parcel: &Parcel<'a>, version: Version) -> Result<Outgoing<'a>> {
        let mut luggage = Luggage::default();
        let (ends, regions): (Vec<_>, Vec<_>) = parcel
            .handles
            .iter()
            .partition(|(handle, _)| !matches!(handle, HandleRef::Memory(_)));
        for (handle, _) in ends.into_iter().chain(regions) {
            luggage.add_to_frame(&handle, version)?;
        }
        if !parcel.buffers.is_empty() {
            return unfit("buffers");
        }
        let frame = rust::Frame::new(version, parcel.payload, luggage.fds)?;
        Ok(Outgoing {
            layout: Layout::Rust(frame),
            receivers: luggage.receivers,
            senders: luggage.senders,
        })
    }

    /// As it is laid out for receivers of ours.
    pub(crate) fn frame(&self) -> Result<&Frame<'a>> {
        match &self.layout {
            Layout::Native(frame) => Ok(frame),
            Layout::Rust(_) => unfit("an envelope"),
        }
    }

    /// It was sent: its ends are no longer ours.
    pub fn delivered(self) {
        // First, so that the ends close their sockets: they know with which care.
        drop(self.layout);
        for moving in self.receivers {
            moving.commit(Gone::Sent);
        }
        for leaving in self.senders {
            leaving.commit();
        }
    }
}

/// The handles of a message, as it is laid out.
#[derive(Default)]
struct Luggage<'a> {
    entries: Vec<Entry>,
    fds: Vec<FdRef<'a>>,
    receivers: Vec<Moving>,
    senders: Vec<Leaving<'a>>,
}

impl<'a> Luggage<'a> {
    fn add(
        &mut self,
        handle: &HandleRef<'a>,
        label: u8,
        parcel: &Parcel<'a>,
        carrier: Option<&Sender>,
    ) -> Result<()> {
        let mut entry = Entry {
            kind: HandleKind::File,
            label,
            extra: false,
            occupied: 0,
            capacity: 0,
            foreign: None,
        };
        match handle {
            HandleRef::Sender(sender) => {
                let same = |other: &Sender| other.way.same(&sender.way);
                let times = parcel
                    .handles
                    .iter()
                    .filter(|(other, _)| matches!(other, HandleRef::Sender(other) if same(other)));
                let Out::Lanes(route) = &sender.way else {
                    return self.add_foreign_sender(sender, entry);
                };
                let alone = times.count() == 1 && route.is_alone() && !carrier.is_some_and(same);
                let socket = sender.end.socket()?;
                if alone {
                    sender.end.begin_move()?;
                }
                self.senders.push(Leaving {
                    sender,
                    set_aside: alone,
                });
                let ticket = route.depart(socket.as_fd(), alone)?;
                entry.kind = HandleKind::Sender;
                entry.extra = ticket.door.is_some();
                entry.occupied = ticket.occupied;
                entry.capacity = route.capacity();
                self.fds.push(FdRef::Shared(socket));
                self.fds.extend(ticket.door.map(FdRef::Shared));
            }
            HandleRef::Receiver(receiver) => {
                if self.receivers.iter().any(|moving| moving.is_of(receiver)) {
                    return Err(Error::ReceiverTwice);
                }
                let moving = receiver.begin_move()?;
                entry.kind = HandleKind::Receiver;
                entry.foreign = moving.version();
                let luggage = moving.pack()?;
                entry.extra = luggage.is_some();
                self.fds.push(FdRef::Shared(moving.socket()?));
                self.fds.extend(luggage.map(FdRef::Owned));
                self.receivers.push(moving);
            }
            HandleRef::Memory(region) => {
                region.freeze()?;
                entry.kind = HandleKind::Memory;
                self.fds.push(FdRef::Shared(region.file()));
            }
            HandleRef::File(file) => self.fds.push(FdRef::Borrowed(*file)),
        }
        self.entries.push(entry);
        Ok(())
    }

    /// A sender whose receiver may be in a Rust program, in a message of our own: nothing but its socket.
    fn add_foreign_sender(&mut self, sender: &'a Sender, mut entry: Entry) -> Result<()> {
        entry.kind = HandleKind::Sender;
        entry.foreign = sender.version();
        self.fds.push(FdRef::Shared(sender.end.socket()?));
        self.senders.push(Leaving {
            sender,
            set_aside: false,
        });
        self.entries.push(entry);
        Ok(())
    }

    /// A handle in a message for a Rust program: nothing but a descriptor.
    fn add_to_frame(&mut self, handle: &HandleRef<'a>, version: Version) -> Result<()> {
        match handle {
            HandleRef::Sender(sender) if sender.version() != Some(version) => {
                return unfit("a sender of a channel that was made without the same codec=");
            }
            HandleRef::Receiver(receiver) if receiver.version() != Some(version) => {
                return unfit("a receiver of a channel that was made without the same codec=");
            }
            HandleRef::File(_) => return unfit("a file"),
            HandleRef::Sender(sender) => {
                self.fds.push(FdRef::Shared(sender.end.socket()?));
                self.senders.push(Leaving {
                    sender,
                    set_aside: false,
                });
            }
            HandleRef::Receiver(receiver) => {
                if self.receivers.iter().any(|moving| moving.is_of(receiver)) {
                    return Err(Error::ReceiverTwice);
                }
                let moving = receiver.begin_move()?;
                self.fds.push(FdRef::Shared(moving.socket()?));
                self.receivers.push(moving);
            }
            // Nothing travels for an empty one.
            HandleRef::Memory(region) if region.is_empty() => {}
            HandleRef::Memory(region) => self.fds.push(FdRef::Shared(region.writable_file()?)),
        }
        Ok(())
    }
}

fn unfit<T>(what: &str) -> Result<T> {
    Err(Error::Unfit(format!(
        "{what} cannot travel in a message for a Rust program"
    )))
}
