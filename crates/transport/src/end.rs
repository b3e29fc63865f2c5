//! One end of a connection in this process: open, on the move, or gone; and who waits for it.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::os::poll::{self, Alarm, Epoll, Interest};
use crate::os::{descriptor, fork};
use crate::sync::Lock;

/// Why an end is no longer usable here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It was closed.
    Closed,
    /// It was given away inside a message.
    Sent,
    /// Another object took it over: an opaque end, or one with another codec.
    Converted,
    /// It was moved into a receiver set.
    Added,
    /// It was moved into a process that was started.
    Started,
}

/// What an end's process keeps beside its socket: lanes, connections.
pub trait Resident: std::fmt::Debug + Send + Sync {
    /// The end with that number has left: it was closed, moved or given to another object.
    fn left(&self, end: u64, why: Gone);

    /// This process is about to fork: its child will have the end too. No lock is held by anybody.
    fn before_fork(&self, _socket: BorrowedFd<'_>) {}

    /// This is the child of a fork: what the parent uses must be let go, without a trace for the parent.
    fn after_fork_in_child(&self) {}
}

#[derive(Debug)]
enum State {
    Open(Arc<OwnedFd>),
    /// In a message that is being sent: nobody may use it here, and it may yet come back.
    Moving(Arc<OwnedFd>),
    Gone(Gone),
}

/// Why an end looks ready although its descriptors do not say so.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Hint {
    /// The end's user keeps something that was received.
    Kept = 1,
    /// Something is in memory that the end shares with its peers.
    Memory = 2,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// What is waited for instead of the socket itself.
    behind: Option<Arc<Epoll>>,
    /// Alarms of the threads that wait for this end.
    waiting: Vec<Arc<Alarm>>,
    /// Event loops that wait for it.
    watching: Vec<Weak<Readiness>>,
    /// The [`Hint`]s that are given: event loops must look.
    hints: u8,
    /// What `fileno` gives out; with the generation that made it.
    own: Option<(u64, Arc<Readiness>)>,
}

/// An end. Shared by the object that owns it, the threads that use it, and the registry.
#[derive(Debug)]
pub struct End {
    inner: Lock<Inner>,
    /// The state is [`State::Open`]. For those who need not be exact.
    open: AtomicBool,
    /// Somebody waits or watches, or did lately.
    attended: AtomicBool,
    resident: Option<Arc<dyn Resident>>,
    /// Whether its socket's queue can hold anything.
    receives: bool,
    id: u64,
    born_in: u64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);
static REGISTRY: Lock<Option<HashMap<u64, Weak<End>>>> = Lock::new(None);

impl End {
    /// An open end that receives.
    pub fn new(socket: Arc<OwnedFd>, resident: Option<Arc<dyn Resident>>) -> Arc<End> {
        End::make(socket, None, resident, true)
    }

    /// An open end whose socket is shut for reading.
    pub fn of_sender(socket: Arc<OwnedFd>, resident: Arc<dyn Resident>) -> Arc<End> {
        End::make(socket, None, Some(resident), false)
    }

    /// An open end that is ready when `epoll` is.
    pub fn behind(socket: Arc<OwnedFd>, epoll: Arc<Epoll>) -> Arc<End> {
        End::make(socket, Some(epoll), None, true)
    }

    fn make(
        socket: Arc<OwnedFd>,
        behind: Option<Arc<Epoll>>,
        resident: Option<Arc<dyn Resident>>,
        receives: bool,
    ) -> Arc<End> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let end = Arc::new(End {
            inner: Lock::new(Inner {
                state: State::Open(socket),
                behind,
                waiting: Vec::new(),
                watching: Vec::new(),
                hints: 0,
                own: None,
            }),
            open: AtomicBool::new(true),
            attended: AtomicBool::new(false),
            resident,
            receives,
            id,
            born_in: fork::generation(),
        });
        fork::install_hooks(before_fork, after_fork_in_child);
        REGISTRY
            .lock()
            .get_or_insert_default()
            .insert(id, Arc::downgrade(&end));
        end
    }

    /// Fails unless it is open; without a lock, so a close by another thread may have just come between.
    #[inline]
    pub fn check_open(&self) -> Result<()> {
        if self.open.load(Ordering::Acquire) {
            return Ok(());
        }
        self.inner.lock().open().map(drop)
    }

    /// Whether somebody may be waiting for it.
    #[inline]
    pub fn is_attended(&self) -> bool {
        self.attended.load(Ordering::SeqCst)
    }

    /// The socket, kept open while the caller uses it.
    pub fn socket(&self) -> Result<Arc<OwnedFd>> {
        self.inner.lock().open().cloned()
    }

    /// The socket of an end that its caller is moving.
    pub fn socket_even_moving(&self) -> Result<Arc<OwnedFd>> {
        match &self.inner.lock().state {
            State::Open(socket) | State::Moving(socket) => Ok(socket.clone()),
            State::Gone(why) => Err(Error::Gone(*why)),
        }
    }

    /// Runs `action` on the socket while nobody can move or close the end. It must not wait.
    pub fn while_open<T>(&self, action: impl FnOnce(&OwnedFd) -> Result<T>) -> Result<T> {
        let inner = self.inner.lock();
        action(inner.open()?)
    }

    /// None while it is open.
    pub fn gone(&self) -> Option<Gone> {
        match self.inner.lock().state {
            State::Open(_) => None,
            State::Moving(_) => Some(Gone::Sent),
            State::Gone(why) => Some(why),
        }
    }

    /// Why it is gone, unless it is open or may come back.
    pub fn gone_for_good(&self) -> Option<Gone> {
        match self.inner.lock().state {
            State::Gone(why) => Some(why),
            State::Open(_) | State::Moving(_) => None,
        }
    }

    /// Suspends all use of it, until [`End::finish_move`].
    pub fn begin_move(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        let socket = inner.open()?.clone();
        inner.state = State::Moving(socket);
        self.open.store(false, Ordering::Release);
        Ok(())
    }

    /// Ends what [`End::begin_move`] began: gone for the reason given, or open again.
    pub fn finish_move(&self, outcome: Option<Gone>) {
        match outcome {
            Some(why) => {
                if let Ok(socket) = self.leave(why) {
                    self.let_go(socket);
                }
            }
            None => {
                let mut inner = self.inner.lock();
                if let State::Moving(socket) = &inner.state {
                    inner.state = State::Open(socket.clone());
                    self.open.store(true, Ordering::Release);
                }
            }
        }
    }

    /// Takes the socket out of an open end.
    pub fn take(&self, why: Gone) -> Result<Arc<OwnedFd>> {
        self.inner.lock().open()?;
        self.leave(why)
    }

    /// Closes it and wakes everybody who waits for it. Does nothing to an end that is gone.
    pub fn close(&self) {
        let Ok(socket) = self.leave(Gone::Closed) else {
            return;
        };
        // Threads that were using the socket when this process was forked off do not exist here, and what
        // they held is never dropped: the other side would wait for an end of stream that does not come.
        if self.born_in != fork::generation() && Arc::strong_count(&socket) > 1 {
            descriptor::disconnect(socket.as_fd());
        }
        self.let_go(socket);
    }

    /// What [`End::socket`] gave is not needed any more. If the end has left meanwhile, this closes the socket.
    pub fn put_back(&self, socket: Arc<OwnedFd>) {
        self.let_go(socket);
    }

    /// Closes a socket whose queue may hold whatever files a peer has put there; who still uses it does so.
    fn let_go(&self, socket: Arc<OwnedFd>) {
        if self.receives
            && let Some(socket) = Arc::into_inner(socket)
        {
            descriptor::close_own_socket(socket);
        }
    }

    fn leave(&self, why: Gone) -> Result<Arc<OwnedFd>> {
        let mut inner = self.inner.lock();
        let socket = match std::mem::replace(&mut inner.state, State::Gone(why)) {
            State::Open(socket) | State::Moving(socket) => socket,
            State::Gone(earlier) => {
                inner.state = State::Gone(earlier);
                return Err(Error::Gone(earlier));
            }
        };
        self.open.store(false, Ordering::Release);
        for alarm in inner.waiting.drain(..) {
            alarm.ring();
        }
        // In a forked child the epoll is the parent's, and so are its registrations.
        let ours = self.born_in == fork::generation();
        let mut watched = Vec::new();
        for readiness in inner.watching.drain(..).filter_map(|weak| weak.upgrade()) {
            if ours {
                readiness.epoll.remove(socket.as_fd());
            }
            // Out of the epoll already. Kept any longer, the socket would hide the close from the peer.
            watched.extend(readiness.watched.lock().take());
            readiness.alarm.ring();
        }
        let (own, behind) = (inner.own.take(), inner.behind.take());
        drop(inner);
        drop((own, behind, watched));
        if let Some(resident) = &self.resident {
            resident.left(self.id, why);
        }
        Ok(socket)
    }

    /// Waits until the socket (or `instead` of it) is ready, the end is closed, the deadline passes or a
    /// signal arrives. Returns also when another thread was faster: look, then wait again.
    ///
    /// `arm` is called when this thread is already on the list of those who are woken: it makes sure of
    /// being told of news, or returns false if there are some, and then nothing is waited for.
    pub fn wait(
        &self,
        instead: Option<Arc<OwnedFd>>,
        interest: Interest,
        deadline: Deadline,
        arm: impl FnOnce() -> bool,
    ) -> Result<()> {
        let Ok(alarm) = poll::thread_alarm() else {
            // No descriptor is left for an alarm: look for a close now and then.
            let slice = std::time::Duration::from_millis(50);
            let watched = self.inner.lock().watched(instead)?;
            if !arm() {
                return Ok(());
            }
            let left = deadline.remaining().unwrap_or(slice).min(slice);
            return match poll::wait(&[(watched.as_fd(), interest)], Deadline::after(left)) {
                Err(Error::TimedOut) if !deadline.passed() => Ok(()),
                outcome => outcome.map(drop),
            };
        };
        let watched = {
            let mut inner = self.inner.lock();
            let watched = inner.watched(instead)?;
            inner.waiting.push(alarm.clone());
            self.attended.store(true, Ordering::SeqCst);
            watched
        };
        let outcome = if arm() {
            poll::wait(
                &[
                    (watched.as_fd(), interest),
                    (alarm.as_fd(), Interest::Readable),
                ],
                deadline,
            )
            .map(|ready| ready.contains(1))
        } else {
            Ok(false)
        };
        // A hint rings without taking the alarm from the list.
        let mut rung = matches!(outcome, Ok(true));
        let mut inner = self.inner.lock();
        match inner.waiting.iter().position(|a| Arc::ptr_eq(a, &alarm)) {
            Some(place) => drop(inner.waiting.swap_remove(place)),
            // Whoever closed the end or woke its waiters took it from the list and rang it, under this lock.
            None => rung = true,
        }
        if rung {
            alarm.silence();
        }
        self.note_attendance(&mut inner);
        inner.open()?;
        match outcome {
            // Told of news while the time ran out: whoever told us counts on our looking.
            Err(Error::TimedOut) if rung => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Whether it gets ready within so many nanoseconds, found out without sleeping.
    pub fn is_ready_within(&self, interest: Interest, nanoseconds: u64) -> bool {
        let watched = self.inner.lock().watched(None);
        watched.is_ok_and(|watched| {
            let open = || self.check_open().is_ok();
            poll::is_ready_within(watched.as_fd(), interest, nanoseconds, open)
        })
    }

    fn note_attendance(&self, inner: &mut Inner) {
        inner.watching.retain(|weak| weak.strong_count() > 0);
        let looks = |readiness: Arc<Readiness>| readiness.attentive.load(Ordering::Relaxed);
        let mut watching = inner.watching.iter().filter_map(Weak::upgrade);
        let attended = !inner.waiting.is_empty() || watching.any(looks);
        self.attended.store(attended, Ordering::SeqCst);
    }

    /// Whether somebody looks at the descriptor now. While nobody does it may miss what happens in memory.
    pub fn attend(&self, readiness: &Readiness, attentive: bool) {
        let mut inner = self.inner.lock();
        readiness.attentive.store(attentive, Ordering::Relaxed);
        self.note_attendance(&mut inner);
    }

    /// A descriptor for an event loop, which stays valid while the returned value lives. It shows what the
    /// socket (or `instead` of it) shows.
    pub fn watch(
        &self,
        instead: Option<Arc<OwnedFd>>,
        interest: Interest,
    ) -> Result<Arc<Readiness>> {
        let mut inner = self.inner.lock();
        self.watch_locked(&mut inner, instead, interest)
    }

    fn watch_locked(
        &self,
        inner: &mut Inner,
        instead: Option<Arc<OwnedFd>>,
        interest: Interest,
    ) -> Result<Arc<Readiness>> {
        let readiness = inner.watch(instead, interest)?;
        self.attended.store(true, Ordering::SeqCst);
        Ok(readiness)
    }

    /// The end's own descriptor for event loops, closed with it.
    pub fn fileno(&self, interest: Interest) -> Result<RawFd> {
        let generation = fork::generation();
        let mut inner = self.inner.lock();
        match &inner.own {
            Some((made_in, readiness)) if *made_in == generation => Ok(readiness.raw()),
            _ => {
                let readiness = self.watch_locked(&mut inner, None, interest)?;
                let fd = readiness.raw();
                inner.own = Some((generation, readiness));
                Ok(fd)
            }
        }
    }

    /// From now on it is ready when `epoll` is, which watches the socket and more. Whoever waits for the
    /// socket alone is made to wait anew.
    pub fn set_behind(&self, epoll: &Arc<Epoll>) -> Result<()> {
        let mut inner = self.inner.lock();
        let socket = inner.open()?.clone();
        for readiness in inner.watching.iter().filter_map(Weak::upgrade) {
            // It may be there, if this has been tried before and could not be finished.
            readiness.epoll.remove(epoll.as_fd());
            readiness.epoll.add(epoll.as_fd(), 2, Interest::Readable)?;
            readiness.epoll.remove(socket.as_fd());
        }
        inner.behind = Some(epoll.clone());
        for alarm in inner.waiting.drain(..) {
            alarm.ring();
        }
        Ok(())
    }

    /// Makes the threads that wait look again.
    pub fn wake(&self) {
        for alarm in self.inner.lock().waiting.drain(..) {
            alarm.ring();
        }
    }

    /// Whether that hint is given.
    pub fn is_hinted(&self, hint: Hint) -> bool {
        self.inner.lock().hints & hint as u8 != 0
    }

    /// Wakes whoever waits and makes the end look ready to event loops; or no longer.
    pub fn hint(&self, hint: Hint, ready: bool) {
        let mut inner = self.inner.lock();
        let before = inner.hints;
        if ready {
            inner.hints |= hint as u8;
            for alarm in &inner.waiting {
                alarm.ring();
            }
        } else {
            inner.hints &= !(hint as u8);
        }
        if (before == 0) == (inner.hints == 0) || inner.open().is_err() {
            return;
        }
        for readiness in inner.watching.iter().filter_map(Weak::upgrade) {
            if ready {
                readiness.alarm.ring();
            } else {
                readiness.alarm.silence();
            }
        }
    }

    /// Its number in this process, for [`close_inherited`].
    pub fn id(&self) -> u64 {
        self.id
    }
}

/// What a wait is for, kept open meanwhile.
#[derive(Debug)]
enum Watched {
    Socket(Arc<OwnedFd>),
    Epoll(Arc<Epoll>),
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Watched::Socket(socket) => socket.as_fd(),
            Watched::Epoll(epoll) => epoll.as_fd(),
        }
    }
}

impl Inner {
    fn open(&self) -> Result<&Arc<OwnedFd>> {
        match &self.state {
            State::Open(socket) => Ok(socket),
            State::Moving(_) => Err(Error::Gone(Gone::Sent)),
            State::Gone(why) => Err(Error::Gone(*why)),
        }
    }

    /// What is to be polled.
    fn watched(&self, instead: Option<Arc<OwnedFd>>) -> Result<Watched> {
        let socket = self.open()?;
        Ok(match (instead, &self.behind) {
            (Some(other), _) => Watched::Socket(other),
            (None, Some(epoll)) => Watched::Epoll(epoll.clone()),
            (None, None) => Watched::Socket(socket.clone()),
        })
    }

    fn watch(
        &mut self,
        instead: Option<Arc<OwnedFd>>,
        interest: Interest,
    ) -> Result<Arc<Readiness>> {
        let watched = self.watched(instead)?;
        let (epoll, alarm) = (Epoll::new()?, Alarm::new()?);
        epoll.add(watched.as_fd(), 0, interest)?;
        let readiness = Readiness {
            epoll,
            alarm,
            watched: Lock::new(Some(watched)),
            attentive: AtomicBool::new(true),
        };
        readiness
            .epoll
            .add(readiness.alarm.as_fd(), 1, Interest::Readable)?;
        if self.hints != 0 {
            readiness.alarm.ring();
        }
        let readiness = Arc::new(readiness);
        self.watching.retain(|weak| weak.strong_count() > 0);
        self.watching.push(Arc::downgrade(&readiness));
        Ok(readiness)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close();
        if let Some(ends) = &mut *REGISTRY.lock() {
            ends.remove(&self.id);
        }
    }
}

/// A descriptor that is readable while an end is ready for what is waited for, or gone.
#[derive(Debug)]
pub struct Readiness {
    epoll: Epoll,
    alarm: Alarm,
    // Kept open while the end is: closed, it would leave the epoll without a word.
    watched: Lock<Option<Watched>>,
    /// Somebody looks at it now.
    attentive: AtomicBool,
}

impl Readiness {
    /// Makes it readable until the end's next [`End::hint`].
    pub fn ring(&self) {
        self.alarm.ring();
    }

    /// Its number.
    pub fn raw(&self) -> RawFd {
        self.epoll.as_fd().as_raw_fd()
    }
}

/// Closes every end that this process has from before its fork, except those with the ids in `keep`.
/// Returns how many were closed.
pub fn close_inherited(keep: &[u64]) -> usize {
    let now = fork::generation();
    let inherited = all();
    inherited
        .iter()
        .filter(|end| end.born_in != now && end.gone().is_none() && !keep.contains(&end.id))
        .map(|end| end.close())
        .count()
}

/// All ends. None of them is dropped under the registry's lock, which its drop would take.
fn all() -> Vec<Arc<End>> {
    let registry = REGISTRY.lock();
    registry
        .iter()
        .flatten()
        .filter_map(|(_, end)| end.upgrade())
        .collect()
}

fn before_fork() {
    for end in all() {
        if let Some(resident) = &end.resident
            && let Ok(socket) = end.socket_even_moving()
        {
            resident.before_fork(socket.as_fd());
        }
    }
}

fn after_fork_in_child() {
    for end in all() {
        if let Some(resident) = &end.resident {
            resident.after_fork_in_child();
        }
    }
}
