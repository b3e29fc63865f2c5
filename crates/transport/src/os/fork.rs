//! Forks: a gate that keeps them out of critical sections, and a number that tells processes apart.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence, fence};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};

use rustix::thread::{MembarrierCommand, membarrier};

/// Held from before a fork until after it.
static GATE: Mutex<()> = Mutex::new(());

/// The gate is closed: whoever wants in waits for [`GATE`].
static CLOSED: AtomicBool = AtomicBool::new(false);

/// The kernel cannot make all threads pass a barrier: each makes its own at every entry.
static WITHOUT_MEMBARRIER: AtomicBool = AtomicBool::new(false);

/// Counts the forks that this process has begun, in parent and child alike.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// Whether a thread is inside. Never freed, but used again when its thread has ended.
type Presence = &'static AtomicBool;

static PRESENCES: Mutex<Presences> = Mutex::new(Presences {
    all: Vec::new(),
    free: Vec::new(),
});

struct Presences {
    all: Vec<Presence>,
    free: Vec<Presence>,
}

/// Gives a thread's presence back when the thread ends.
struct Badge;

impl Drop for Badge {
    fn drop(&mut self) {
        if let Some(presence) = MINE.with(Cell::take) {
            let mut presences = PRESENCES.lock().unwrap_or_else(PoisonError::into_inner);
            presences.free.push(presence);
        }
    }
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    // Without a destructor, so that it can be used in those of other thread-locals.
    static MINE: Cell<Option<Presence>> = const { Cell::new(None) };
    static BADGE: Badge = const { Badge };
}

/// Proof that this thread is inside the gate: no fork happens while it lives. Not for another thread.
#[derive(Debug)]
pub struct Gate {
    _thread: PhantomData<*const ()>,
}

/// Enters the gate, waiting for a fork in progress.
///
/// Invariant: either this thread sees [`CLOSED`] after it has said that it is inside, and goes out again; or
/// the fork, which closes first and then makes all threads pass a barrier, sees it inside and waits. The
/// barrier is the fork's business, so that entering costs a few plain instructions.
#[inline]
pub fn enter() -> Gate {
    let depth = DEPTH.get();
    DEPTH.set(depth + 1);
    if depth == 0 {
        let presence = match MINE.get() {
            Some(presence) => presence,
            None => introduce(),
        };
        presence.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        if WITHOUT_MEMBARRIER.load(Ordering::Relaxed) {
            fence(Ordering::SeqCst);
        }
        if CLOSED.load(Ordering::Acquire) {
            wait_outside(presence);
        }
    }
    Gate {
        _thread: PhantomData,
    }
}

#[cold]
fn introduce() -> Presence {
    install();
    let mut presences = PRESENCES.lock().unwrap_or_else(PoisonError::into_inner);
    let presence = presences.free.pop().unwrap_or_else(|| {
        let presence: Presence = Box::leak(Box::new(AtomicBool::new(false)));
        presences.all.push(presence);
        presence
    });
    drop(presences);
    MINE.set(Some(presence));
    // Fails while the thread ends; then the presence is not used again.
    let _ = BADGE.try_with(|_| ());
    presence
}

#[cold]
fn wait_outside(presence: Presence) {
    loop {
        presence.store(false, Ordering::SeqCst);
        drop(GATE.lock().unwrap_or_else(PoisonError::into_inner));
        presence.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if !CLOSED.load(Ordering::SeqCst) {
            return;
        }
    }
}

impl Drop for Gate {
    #[inline]
    fn drop(&mut self) {
        let depth = DEPTH.get() - 1;
        DEPTH.set(depth);
        if depth == 0
            && let Some(presence) = MINE.get()
        {
            presence.store(false, Ordering::Release);
        }
    }
}

/// Makes every thread of the process pass a memory barrier.
fn barrier() {
    if WITHOUT_MEMBARRIER.load(Ordering::Relaxed) {
        fence(Ordering::SeqCst);
    } else if membarrier(MembarrierCommand::PrivateExpedited).is_err() {
        // A forked process may have to register anew.
        let _ = membarrier(MembarrierCommand::RegisterPrivateExpedited);
        let _ = membarrier(MembarrierCommand::PrivateExpedited);
    }
}

/// Closes the gate and waits until nobody is inside.
fn close() -> Closed {
    let guard = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    CLOSED.store(true, Ordering::SeqCst);
    // Held as well: a thread that is being introduced has not said that it is inside.
    let presences = PRESENCES.lock().unwrap_or_else(PoisonError::into_inner);
    barrier();
    for presence in &presences.all {
        while presence.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }
    // Whoever is introduced afterwards sees CLOSED, and waits.
    (guard, presences)
}

/// The gate, closed: no lock of this module is held by anybody else.
type Closed = (MutexGuard<'static, ()>, MutexGuard<'static, Presences>);

/// Does what is otherwise done at the first use.
pub fn prepare_process() {
    drop(enter());
    generation();
}

/// How many forks this process has begun (and, in a child, its ancestors).
pub fn forks_begun() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

struct HeldByFork(UnsafeCell<Option<Closed>>);

// SAFETY: written only between the prepare handler and the parent's or child's handler, by the thread
// that forks, which holds the gate all the while; forks of other threads wait for that lock.
unsafe impl Sync for HeldByFork {}

static HELD: HeldByFork = HeldByFork(UnsafeCell::new(None));

/// What runs at every fork, in the thread that forks, while nobody else is inside the gate: in the parent
/// before it, and in the child after it. Only the first call counts.
pub fn install_hooks(before: fn(), in_child: fn()) {
    HOOKS.get_or_init(|| (before, in_child));
}

static HOOKS: OnceLock<Hooks> = OnceLock::new();

/// What runs besides in the child of every fork. Only the first call counts.
pub fn install_child_hook(in_child: fn()) {
    install();
    CHILD_HOOK.get_or_init(|| in_child);
}

static CHILD_HOOK: OnceLock<fn()> = OnceLock::new();

/// Before a fork, and after it in the child.
type Hooks = (fn(), fn());

/// Runs a hook as if inside the gate, which this thread has closed for all others.
fn run(hook: fn()) {
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    hook();
    DEPTH.with(|depth| depth.set(depth.get() - 1));
}

extern "C" fn prepare() {
    let guard = close();
    FORKS.fetch_add(1, Ordering::Relaxed);
    if let Some((before, _)) = HOOKS.get() {
        run(*before);
    }
    // SAFETY: the gate is held, so nobody else touches HELD (see its Sync argument).
    unsafe { *HELD.0.get() = Some(guard) };
}

extern "C" fn release() {
    CLOSED.store(false, Ordering::SeqCst);
    // SAFETY: runs in the forking thread, or its only copy in the child, before the lock is released.
    drop(unsafe { (*HELD.0.get()).take() });
}

extern "C" fn release_in_child() {
    if let Some((_, in_child)) = HOOKS.get() {
        run(*in_child);
    }
    if let Some(in_child) = CHILD_HOOK.get() {
        run(*in_child);
    }
    release();
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if membarrier(MembarrierCommand::RegisterPrivateExpedited).is_err() {
            WITHOUT_MEMBARRIER.store(true, Ordering::SeqCst);
        }
        // SAFETY: the handlers are plain functions of this library, which is never unloaded: CPython
        // does not dlclose extension modules. The result is ENOMEM at most; forks are then ungated,
        // which only matters while another thread is inside a critical section.
        unsafe { libc::pthread_atfork(Some(prepare), Some(release), Some(release_in_child)) };
    });
}

/// A page that the kernel wipes in the child of every fork, a raw `clone` included.
struct WipedPage(*const AtomicU64);

// SAFETY: the page lives as long as the process and is accessed only atomically.
unsafe impl Send for WipedPage {}
// SAFETY: as above.
unsafe impl Sync for WipedPage {}

fn wiped_page() -> Option<&'static AtomicU64> {
    static PAGE: OnceLock<Option<WipedPage>> = OnceLock::new();
    PAGE.get_or_init(|| {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
        // SAFETY: a fresh private mapping at an address of the kernel's choice.
        let page = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                4096,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .ok()?;
        // SAFETY: the range is the mapping just made.
        unsafe { madvise(page, 4096, Advice::LinuxWipeOnFork) }.ok()?;
        Some(WipedPage(page.cast()))
    })
    .as_ref()
    // SAFETY: the mapping is never unmapped, is aligned to a page, and zero is a valid value.
    .map(|page| unsafe { &*page.0 })
}

/// A number that differs between a process and the children it forks.
pub fn generation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let Some(page) = wiped_page() else {
        return u64::from(std::process::id());
    };
    match page.load(Ordering::Acquire) {
        0 => {
            // A new process: one more than the generation copied from the parent. Of several threads
            // the first decides.
            let next = LAST.fetch_add(1, Ordering::AcqRel) + 1;
            match page.compare_exchange(0, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => next,
                Err(decided) => decided,
            }
        }
        known => known,
    }
}
