//! Many receivers, one wait.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::deadline::Deadline;
use crate::end::Gone;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::os::poll::{self, Alarm, Epoll, Interest};
use crate::os::{descriptor, fork};
use crate::receiver::{Receiver, Vain};
use crate::spin;
use crate::sync::Lock;

/// Receivers looked at in one call; the kernel brings the others forward in the next.
const EVENTS_A_CALL: usize = 256;
const WAKE: u64 = u64::MAX;
const MORE: u64 = u64::MAX - 1;

/// What happened to one receiver.
#[derive(Debug)]
pub enum Event {
    /// It got a message.
    Message(Message),
    /// Its stream has ended, and it has left the set.
    Closed,
    /// Its next message could not be had; see [`Receiver::try_recv`] for what became of it.
    Failed(Error),
}

#[derive(Debug)]
struct Member {
    receiver: Receiver,
    /// It has more than its socket: what the set watches is the receiver's own poll.
    nested: bool,
    /// It is in [`Members::ready`].
    ready: bool,
}

#[derive(Debug)]
struct Members {
    receivers: HashMap<u64, Member>,
    /// Those that have something in memory, which no descriptor tells of. Every other one's descriptors do.
    ready: VecDeque<u64>,
    next_token: u64,
    closed: bool,
}

/// A set of receivers. Threads may add and remove while another selects.
#[derive(Debug)]
pub struct ReceiverSet {
    members: Lock<Members>,
    epoll: Epoll,
    wake: Alarm,
    /// Rings while somebody is ready, once [`ReceiverSet::fileno`] was given out.
    more: Alarm,
    watched: AtomicBool,
    owner: u32,
    born_in: u64,
}

impl ReceiverSet {
    /// An empty set.
    pub fn new() -> Result<ReceiverSet> {
        let set = ReceiverSet {
            members: Lock::new(Members {
                receivers: HashMap::new(),
                ready: VecDeque::new(),
                next_token: 0,
                closed: false,
            }),
            epoll: Epoll::new()?,
            wake: Alarm::new()?,
            more: Alarm::new()?,
            watched: AtomicBool::new(false),
            owner: std::process::id(),
            born_in: fork::generation(),
        };
        set.epoll.add(set.wake.as_fd(), WAKE, Interest::Readable)?;
        set.epoll.add(set.more.as_fd(), MORE, Interest::Readable)?;
        Ok(set)
    }

    /// Moves `receiver` in and returns its token, never used again.
    pub fn add(&self, receiver: &Receiver) -> Result<u64> {
        self.check_process()?;
        let mut members = self.members.lock();
        members.check_open()?;
        // Claimed now, so that no forked process can have it afterwards.
        receiver.prepare_to_be_watched()?;
        receiver.check_usable()?;
        let socket = receiver.end().socket()?;
        let token = members.next_token;
        self.epoll.add(socket.as_fd(), token, Interest::Readable)?;
        match receiver.take(Gone::Added) {
            Ok(receiver) => {
                members.next_token += 1;
                let member = Member {
                    receiver,
                    nested: false,
                    ready: false,
                };
                members.receivers.insert(token, member);
                // It may bring lanes along.
                if let Err(error) = members.settle(&self.epoll, token) {
                    let expelled = self.expel(&mut members, token);
                    drop(members);
                    drop(expelled);
                    return Err(error);
                }
                self.show(&members);
                if !members.ready.is_empty() {
                    self.wake.ring();
                }
                Ok(token)
            }
            Err(e) => {
                self.epoll.remove(socket.as_fd());
                Err(e)
            }
        }
    }

    /// Takes a receiver out again; None if there is no such token.
    pub fn remove(&self, token: u64) -> Result<Option<Receiver>> {
        self.check_process()?;
        let mut members = self.members.lock();
        members.check_open()?;
        Ok(self.expel(&mut members, token))
    }

    fn expel(&self, members: &mut Members, token: u64) -> Option<Receiver> {
        let member = members.receivers.remove(&token)?;
        members.ready.retain(|other| *other != token);
        member.unwatch(&self.epoll);
        Some(member.receiver)
    }

    /// Makes `fileno` tell of what is in memory.
    fn show(&self, members: &Members) {
        if self.watched.load(Ordering::SeqCst) {
            if members.ready.is_empty() {
                self.more.silence();
            } else {
                self.more.ring();
            }
        }
    }

    /// At least one event; none at the deadline or after [`ReceiverSet::wake`]. At most one a receiver,
    /// so a flood on one of them cannot keep the others waiting.
    pub fn select(&self, deadline: Deadline) -> Result<Vec<(u64, Event)>> {
        let mut vain = Vain::default();
        loop {
            self.check_process()?;
            let mut woken = false;
            let mut events = Vec::new();
            let mut tokens = self.members.lock().take_ready();
            let known: HashSet<u64> = tokens.iter().copied().collect();
            for token in self.epoll.ready(EVENTS_A_CALL)? {
                // Not twice in one call, whatever it is ready by.
                if !known.contains(&token) {
                    tokens.push(token);
                }
            }
            let mut seen = 0;
            for token in tokens {
                seen += 1;
                if token == MORE {
                    continue;
                }
                if token == WAKE {
                    // The ring of a close is for everybody: it is never silenced.
                    let members = self.members.lock();
                    members.check_open()?;
                    woken = self.wake.silence();
                } else if let Some(event) = self.take_event(token, &vain)? {
                    events.push((token, event));
                }
            }
            let members = self.members.lock();
            members.check_open()?;
            self.show(&members);
            let more = !members.ready.is_empty();
            drop(members);
            if woken || !events.is_empty() {
                return Ok(events);
            }
            if more && seen > 0 {
                vain.once_more(deadline)?;
                continue;
            }
            match vain.once_more(deadline).and_then(|()| self.wait(deadline)) {
                Err(Error::TimedOut) => return Ok(Vec::new()),
                Err(e) => return Err(e),
                Ok(()) => {}
            }
        }
    }

    fn wait(&self, deadline: Deadline) -> Result<()> {
        let (epoll, news) = (self.epoll.as_fd(), Interest::Readable);
        // A close rings: that is readable, too.
        let ask = |most| poll::is_ready_within(epoll, news, most, || true);
        let sleep = |until| poll::wait(&[(epoll, news)], until).map(drop);
        spin::OF_THIS_THREAD.with(|spin| spin.wait(deadline, ask, sleep))
    }

    fn take_event(&self, token: u64, vain: &Vain) -> Result<Option<Event>> {
        let mut members = self.members.lock();
        let Some(member) = members.receivers.get(&token) else {
            // Another thread removed it since it became ready.
            return Ok(None);
        };
        let outcome = member.receiver.try_recv();
        if matches!(outcome, Err(Error::Empty)) && vain.is_suspicious() {
            member.receiver.look_at_the_first()?;
        }
        if let Err(Error::Disconnected | Error::Gone(_)) = outcome {
            // Closed from inside a forked child by close_inherited, or at its end: out it goes.
            // Closed when the lock is free again.
            let expelled = self.expel(&mut members, token);
            drop(members);
            drop(expelled);
            return Ok(Some(Event::Closed));
        }
        members.settle(&self.epoll, token)?;
        Ok(match outcome {
            Ok(message) => Some(Event::Message(message)),
            Err(Error::Empty) => None,
            Err(e) => Some(Event::Failed(e)),
        })
    }

    /// Makes a running select, or else the next one, return at once.
    pub fn wake(&self) {
        if self.check_process().is_ok() {
            self.wake.ring();
        }
    }

    /// How many receivers are in it.
    pub fn len(&self) -> usize {
        self.members.lock().receivers.len()
    }

    /// Whether none is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Readable while [`ReceiverSet::select`] would return at once.
    pub fn fileno(&self) -> Result<RawFd> {
        self.check_process()?;
        let members = self.members.lock();
        members.check_open()?;
        self.watched.store(true, Ordering::SeqCst);
        self.show(&members);
        Ok(self.epoll.as_fd().as_raw_fd())
    }

    /// A descriptor like [`ReceiverSet::fileno`]'s that stays valid after the set is closed, which it shows.
    pub fn watch(&self) -> Result<OwnedFd> {
        self.fileno()?;
        descriptor::duplicate(self.epoll.as_fd())
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.members.lock().closed
    }

    /// Closes every receiver in it and wakes a running select. In a forked child this touches the
    /// child's copies alone.
    pub fn close(&self) {
        let receivers = {
            let mut members = self.members.lock();
            members.closed = true;
            std::mem::take(&mut members.receivers)
        };
        if self.check_process().is_ok() {
            for member in receivers.values() {
                member.unwatch(&self.epoll);
            }
            self.wake.ring();
        }
    }

    /// The ids of the ends in it, for [`crate::close_inherited`].
    pub fn ids(&self) -> Vec<u64> {
        let members = self.members.lock();
        members
            .receivers
            .values()
            .map(|member| member.receiver.end().id())
            .collect()
    }

    fn check_process(&self) -> Result<()> {
        if self.born_in == fork::generation() {
            return Ok(());
        }
        Err(Error::Forked {
            what: "this receiver set",
            owner: self.owner,
        })
    }
}

impl Member {
    fn unwatch(&self, epoll: &Epoll) {
        if let Some(behind) = self.receiver.behind().filter(|_| self.nested) {
            epoll.remove(behind.as_fd());
        } else if let Ok(socket) = self.receiver.end().socket() {
            epoll.remove(socket.as_fd());
        }
    }
}

impl Members {
    /// Those that are ready now, once each; who is still so afterwards says so again.
    fn take_ready(&mut self) -> Vec<u64> {
        let tokens: Vec<u64> = self.ready.drain(..).collect();
        for token in &tokens {
            if let Some(member) = self.receivers.get_mut(token) {
                member.ready = false;
            }
        }
        tokens
    }

    /// After a look at a receiver: it is ready, or its descriptors, watched by `epoll`, will tell when it is.
    fn settle(&mut self, epoll: &Epoll, token: u64) -> Result<()> {
        let Some(member) = self.receivers.get_mut(&token) else {
            return Ok(());
        };
        if !member.nested
            && let Some(behind) = member.receiver.behind()
        {
            epoll.add(behind.as_fd(), token, Interest::Readable)?;
            if let Ok(socket) = member.receiver.end().socket() {
                epoll.remove(socket.as_fd());
            }
            member.nested = true;
        }
        if member.receiver.has_more() && !member.ready {
            member.ready = true;
            self.ready.push_back(token);
        }
        Ok(())
    }

    fn check_open(&self) -> Result<()> {
        if self.closed {
            return Err(Error::Gone(Gone::Closed));
        }
        Ok(())
    }
}
