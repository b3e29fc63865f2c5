//! The thread that sends what waits, for all channels of the process. It lives while anything waits.
//!
//! A forked child has neither the thread nor what waits: both are the parent's. So whatever the thread holds, it
//! holds inside the gate, or has in [`SERVICE`], where the child finds and drops it.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::frames::writer::{Next, Writer};
use crate::os::poll::{self, Alarm, Epoll, Interest};
use crate::os::{descriptor, fork, process};
use crate::sync::{Lock, Locked};

/// After which the kernel is asked again for what it could not give.
const PAUSE: Duration = Duration::from_millis(20);
/// Writers looked at in a turn.
const EVENTS_A_TURN: usize = 256;

#[derive(Debug)]
struct Known {
    writer: Arc<Writer>,
    /// The socket in which it waits for room.
    room: Option<Arc<OwnedFd>>,
}

/// What the thread waits with.
#[derive(Clone, Debug)]
struct Tools {
    alarm: Arc<Alarm>,
    epoll: Arc<Epoll>,
}

#[derive(Debug, Default)]
struct Service {
    running: bool,
    /// Those that have something to send since the thread has last looked.
    fresh: Vec<Arc<Writer>>,
    /// Those that the thread looks after.
    known: HashMap<u64, Known>,
    next_token: u64,
    tools: Option<Tools>,
}

impl Service {
    fn writers(&self) -> Vec<Arc<Writer>> {
        let known = self.known.values().map(|known| &known.writer);
        known.chain(&self.fresh).cloned().collect()
    }
}

static SERVICE: Lock<Option<Service>> = Lock::new(None);

fn with<T>(action: impl FnOnce(&mut Service) -> T) -> T {
    let mut service: Locked<'_, Option<Service>> = SERVICE.lock();
    action(service.get_or_insert_default())
}

/// Something waits in `writer`.
pub(super) fn enlist(writer: &Arc<Writer>) {
    fork::install_child_hook(in_child);
    with(|service| {
        service.fresh.push(writer.clone());
        if let Some(tools) = &service.tools {
            tools.alarm.ring();
        }
    });
    see_that_it_runs();
}

/// Starts the thread if something waits and it does not run: the last time none could be had.
pub(super) fn see_that_it_runs() {
    with(|service| {
        let waits = !service.fresh.is_empty() || !service.known.is_empty();
        if waits && !service.running {
            let thread = std::thread::Builder::new().name("ipc-channel-send".into());
            service.running = thread.spawn(run).is_ok();
        }
    });
}

/// Which writers the thread looks at next.
#[derive(Default)]
struct Agenda {
    /// In this turn.
    ready: Vec<u64>,
    /// After a pause.
    later: Vec<u64>,
}

fn run() {
    // Signals are for the threads that wait in Python.
    process::block_signals();
    let mut agenda = Agenda::default();
    loop {
        let tools = {
            let _gate = fork::enter();
            let Some(tools) = begin_turn(&mut agenda) else {
                return;
            };
            tools
        };
        for token in std::mem::take(&mut agenda.ready) {
            let _gate = fork::enter();
            take_turn(token, tools.as_ref(), &mut agenda);
        }
        wait(tools.as_ref(), &mut agenda);
    }
}

/// Takes in who is new. None if nothing waits: then the thread is over.
fn begin_turn(agenda: &mut Agenda) -> Option<Option<Tools>> {
    with(|service| {
        for writer in std::mem::take(&mut service.fresh) {
            let token = service.next_token;
            service.next_token += 1;
            agenda.ready.push(token);
            service.known.insert(token, Known { writer, room: None });
        }
        if service.known.is_empty() {
            service.running = false;
            service.tools = None;
            return None;
        }
        if service.tools.is_none()
            && let (Ok(alarm), Ok(epoll)) = (Alarm::new(), Epoll::new())
        {
            service.tools = Some(Tools {
                alarm: Arc::new(alarm),
                epoll: Arc::new(epoll),
            });
        }
        Some(service.tools.clone())
    })
}

/// Lets a writer go on, and sees to it that it will again.
fn take_turn(token: u64, tools: Option<&Tools>, agenda: &mut Agenda) {
    let Some((writer, watched)) = with(|service| {
        let known = service.known.get(&token)?;
        Some((known.writer.clone(), known.room.clone()))
    }) else {
        return;
    };
    let (room, done) = match writer.go_on() {
        Next::Done => (None, true),
        Next::Room(socket) => (Some(socket), false),
        Next::Turn => {
            agenda.ready.push(token);
            (watched.clone(), false)
        }
        Next::Later => {
            agenda.later.push(token);
            (None, false)
        }
    };
    let same = match (&watched, &room) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (None, None) => true,
        _ => false,
    };
    if let Some(tools) = tools.filter(|_| !same) {
        if let Some(old) = &watched {
            tools.epoll.remove(old.as_fd());
        }
        if let Some(new) = &room
            && tools
                .epoll
                .add(new.as_fd(), token, Interest::Writable)
                .is_err()
        {
            agenda.later.push(token);
        }
    }
    with(|service| {
        if done {
            service.known.remove(&token);
        } else if let Some(known) = service.known.get_mut(&token) {
            known.room = room;
        }
    });
}

/// Waits until there is something to do.
fn wait(tools: Option<&Tools>, agenda: &mut Agenda) {
    let pause = match tools {
        _ if !agenda.ready.is_empty() => Some(Duration::ZERO),
        // Somebody has to look, now and then, where nothing can be waited for.
        None => Some(PAUSE),
        Some(_) if !agenda.later.is_empty() => Some(PAUSE),
        // Nothing left: this was the last turn.
        Some(_) if with(|service| service.known.is_empty()) => Some(Duration::ZERO),
        Some(_) => None,
    };
    let deadline = pause.map_or(Deadline::NEVER, Deadline::after);
    let waited = match tools {
        Some(tools) => poll::wait(
            &[
                (tools.epoll.as_fd(), Interest::Readable),
                (tools.alarm.as_fd(), Interest::Readable),
            ],
            deadline,
        ),
        None => poll::wait(&[], deadline),
    };
    match tools {
        Some(tools) => {
            tools.alarm.silence();
            // Those that look ready while the kernel is out of something would never let the thread sleep.
            let ready = tools.epoll.ready(EVENTS_A_TURN).unwrap_or_default();
            let soon = |token: &u64| !agenda.later.contains(token);
            agenda
                .ready
                .extend(ready.iter().filter(|token| soon(token)));
        }
        None => agenda.later = with(|service| service.known.keys().copied().collect()),
    }
    if matches!(waited, Err(Error::TimedOut)) {
        agenda.ready.append(&mut agenda.later);
    }
    agenda.ready.sort_unstable();
    agenda.ready.dedup();
}

/// What waits in one channel.
#[derive(Clone, Debug)]
pub struct Held {
    /// What people know the channel by.
    pub about: String,
    /// How many messages.
    pub messages: usize,
}

/// What waits in this process.
pub fn held() -> Vec<Held> {
    let writers = with(|service| service.writers());
    let held = writers.iter().map(|writer| writer.held());
    held.filter(|held| held.messages > 0).collect()
}

/// Waits until nothing waits in this process. [`Error::TimedOut`] if something still does at the deadline.
pub fn wait_until_written(deadline: Deadline) -> Result<()> {
    loop {
        let writers = with(|service| service.writers());
        let Some(writer) = writers.iter().find(|writer| writer.held().messages > 0) else {
            return Ok(());
        };
        match writer.flush(deadline) {
            // What nobody will read is no reason to wait.
            Ok(()) | Err(Error::ReceiverGone) => {}
            Err(error) => return Err(error),
        }
    }
}

fn in_child() {
    let Some(service) = SERVICE.lock().take() else {
        return;
    };
    for writer in service.writers() {
        writer.forget();
    }
    if let Some(tools) = service.tools {
        descriptor::close_abandoned(tools.alarm);
        descriptor::close_abandoned(tools.epoll);
    }
}
