//! The thread that sends what waits, for all channels of the process. It lives while anything waits.
//!
//! A forked child has neither the thread nor what waits: both are the parent's. So whatever the thread holds, it
//! holds inside the gate, or has in [`SERVICE`], where the child finds and drops it.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::frames::writer::{Mark, Next, Outlet, Writer};
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
    /// The socket in which it waits for room: the one that is watched.
    room: Option<Arc<Outlet>>,
}

/// What the thread waits with.
#[derive(Clone, Debug)]
struct Tools {
    alarm: Arc<Alarm>,
    epoll: Arc<Epoll>,
}

#[derive(Debug, Default)]
struct Service {
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

/// Whether the thread runs: changed under that lock, and read without it.
static RUNS: AtomicBool = AtomicBool::new(false);

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

/// Starts the thread if something waits and it does not run: the last time none could be had. False if there is none
/// now either: then whoever waits for it tries again, and so does every send.
pub(super) fn see_that_it_runs() -> bool {
    // It goes on as long as something waits that it knows of.
    if RUNS.load(Ordering::Acquire) {
        return true;
    }
    with(|service| {
        let waits = !service.fresh.is_empty() || !service.known.is_empty();
        if waits && !RUNS.load(Ordering::Relaxed) {
            let thread = std::thread::Builder::new().name("ipc-channel-send".into());
            RUNS.store(thread.spawn(run).is_ok(), Ordering::Release);
        }
        RUNS.load(Ordering::Relaxed) || !waits
    })
}

/// Which writers the thread looks at next.
#[derive(Default)]
struct Agenda {
    /// In this turn.
    ready: Vec<u64>,
    /// After a pause, however much others have to send meanwhile.
    later: Vec<u64>,
    /// When that is over.
    resume: Option<Deadline>,
}

impl Agenda {
    fn put_off(&mut self, token: u64) {
        self.later.push(token);
        self.resume.get_or_insert_with(|| Deadline::after(PAUSE));
    }

    /// Those who were put off have their turn, if the pause is over.
    fn resume(&mut self) {
        if self.resume.is_some_and(|resume| resume.passed()) {
            self.resume = None;
            self.ready.append(&mut self.later);
        }
        self.ready.sort_unstable();
        self.ready.dedup();
    }
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
            RUNS.store(false, Ordering::Release);
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
            agenda.put_off(token);
            (None, false)
        }
    };
    let same = match (&watched, &room) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (None, None) => true,
        _ => false,
    };
    let room = if same {
        room
    } else {
        watch(token, tools, watched.as_deref(), room, agenda)
    };
    // What is not needed any more is closed when the lock is released.
    let left = with(|service| {
        if done {
            return (service.known.remove(&token), None);
        }
        let known = service.known.get_mut(&token);
        (
            None,
            known.and_then(|known| std::mem::replace(&mut known.room, room)),
        )
    });
    drop(left);
}

/// Watches `new` instead of `old`. What could not be watched is tried again after a pause.
fn watch(
    token: u64,
    tools: Option<&Tools>,
    old: Option<&Outlet>,
    new: Option<Arc<Outlet>>,
    agenda: &mut Agenda,
) -> Option<Arc<Outlet>> {
    if let (Some(tools), Some(old)) = (tools, old) {
        tools.epoll.remove(old.as_fd());
    }
    let new = new?;
    let watched = tools.is_some_and(|tools| {
        let added = tools.epoll.add(new.as_fd(), token, Interest::Writable);
        added.is_ok()
    });
    if watched {
        return Some(new);
    }
    agenda.put_off(token);
    None
}

/// Waits until there is something to do.
fn wait(tools: Option<&Tools>, agenda: &mut Agenda) {
    let nothing_left = || with(|service| service.known.is_empty());
    let deadline = if !agenda.ready.is_empty() || nothing_left() {
        Deadline::PASSED
    } else {
        agenda.resume.unwrap_or(Deadline::NEVER)
    };
    // Interrupted or not, whatever is there is looked at.
    match tools {
        Some(tools) => {
            let _ = poll::wait(
                &[
                    (tools.epoll.as_fd(), Interest::Readable),
                    (tools.alarm.as_fd(), Interest::Readable),
                ],
                deadline,
            );
            tools.alarm.silence();
            let ready = tools.epoll.ready(EVENTS_A_TURN).unwrap_or_default();
            agenda.ready.extend(ready);
        }
        // Everything that waits was put off, so there is a time to look again.
        None => {
            let _ = poll::wait(&[], deadline);
        }
    }
    agenda.resume();
}

/// What waits in one channel.
#[derive(Clone, Debug)]
pub struct Held {
    /// What people know the channel by.
    pub about: String,
    /// How many messages.
    pub messages: usize,
}

/// What waits in this process for others.
pub fn held() -> Vec<Held> {
    let held = writers().into_iter().map(|writer| writer.held());
    held.filter(|held| held.messages > 0).collect()
}

/// All in which something waits, but for those that lead to a receiver of this process alone.
fn writers() -> Vec<Arc<Writer>> {
    let mut writers = with(|service| service.writers());
    writers.retain(|writer| !writer.leads_back());
    writers
}

/// What waits in this process for others, as it was when this was made.
#[derive(Debug)]
pub struct Unwritten(Vec<(Arc<Writer>, Mark)>);

impl Unwritten {
    /// What waits now.
    pub fn now() -> Unwritten {
        let marked = writers().into_iter().map(|writer| {
            let mark = writer.mark();
            (writer, mark)
        });
        Unwritten(marked.collect())
    }

    /// Waits until nothing of it does. [`Error::TimedOut`] if something still does at the deadline.
    pub fn wait(&self, deadline: Deadline) -> Result<()> {
        for (writer, mark) in &self.0 {
            match writer.flush(*mark, deadline) {
                // What nobody will read is no reason to wait.
                Ok(()) | Err(Error::ReceiverGone) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn in_child() {
    RUNS.store(false, Ordering::Release);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Breaks when those who were put off wait for a moment in which nobody else has anything to do.
    #[test]
    fn who_was_put_off_has_a_turn_however_busy_others_are() {
        let patience = Deadline::after(Duration::from_secs(20));
        let mut agenda = Agenda::default();
        agenda.put_off(1);
        loop {
            agenda.ready = vec![2];
            agenda.put_off(3);
            agenda.resume();
            if agenda.ready.contains(&1) {
                break;
            }
            assert!(!patience.passed());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(agenda.ready, [1, 2, 3]);
        assert!(agenda.later.is_empty());
    }
}
