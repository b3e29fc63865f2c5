//! Forks: a gate that keeps them out of critical sections, and a number that tells processes apart.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Once, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static GATE: RwLock<()> = RwLock::new(());

/// Counts the forks that this process has begun, in parent and child alike.
static FORKS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Proof that this thread is inside the gate: no fork happens while it lives. Not for another thread.
#[derive(Debug)]
pub struct Gate {
    // None for a nested entry: a second read lock would wait for a fork that waits for the first.
    _inside: Option<RwLockReadGuard<'static, ()>>,
    _thread: PhantomData<*const ()>,
}

/// Enters the gate, waiting for a fork in progress.
pub fn enter() -> Gate {
    install();
    let nested = DEPTH.with(|depth| {
        depth.set(depth.get() + 1);
        depth.get() > 1
    });
    Gate {
        _inside: (!nested).then(|| GATE.read().unwrap_or_else(PoisonError::into_inner)),
        _thread: PhantomData,
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

/// Does what is otherwise done at the first use.
pub fn prepare_process() {
    drop(enter());
    generation();
}

/// How many forks this process has begun (and, in a child, its ancestors).
pub fn forks_begun() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

struct HeldByFork(UnsafeCell<Option<RwLockWriteGuard<'static, ()>>>);

// SAFETY: written only between the prepare handler and the parent's or child's handler, by the thread
// that forks, which holds the write lock all the while; forks of other threads wait for that lock.
unsafe impl Sync for HeldByFork {}

static HELD: HeldByFork = HeldByFork(UnsafeCell::new(None));

/// What runs at every fork, in the thread that forks, while nobody else is inside the gate: in the parent
/// before it, and in the child after it. Only the first call counts.
pub fn install_hooks(before: fn(), in_child: fn()) {
    HOOKS.get_or_init(|| (before, in_child));
}

static HOOKS: OnceLock<(fn(), fn())> = OnceLock::new();

/// Runs a hook as if inside the gate, which this thread has closed for all others.
fn run(hook: fn()) {
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    hook();
    DEPTH.with(|depth| depth.set(depth.get() - 1));
}

extern "C" fn prepare() {
    let guard = GATE.write().unwrap_or_else(PoisonError::into_inner);
    FORKS.fetch_add(1, Ordering::Relaxed);
    if let Some((before, _)) = HOOKS.get() {
        run(*before);
    }
    // SAFETY: the write lock is held, so nobody else touches HELD (see its Sync argument).
    unsafe { *HELD.0.get() = Some(guard) };
}

extern "C" fn release() {
    // SAFETY: runs in the forking thread, or its only copy in the child, before the lock is released.
    drop(unsafe { (*HELD.0.get()).take() });
}

extern "C" fn release_in_child() {
    if let Some((_, in_child)) = HOOKS.get() {
        run(*in_child);
    }
    release();
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
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
