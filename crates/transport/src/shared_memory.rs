//! A region of memory that several processes map: a sealed memory file.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::os::descriptor::{self, Identity};
use crate::os::memory::{self, Access, Mapping};
use crate::sync::Lock;

const VIEWED: &str = "this shared memory is about to be sent, which freezes it, and a writable view of it \
                      exists; release the view first";

#[derive(Debug)]
struct Inner {
    file: Arc<OwnedFd>,
    mapping: Option<Mapping>,
    frozen: bool,
    /// Views handed out and not yet released.
    views: usize,
}

/// Copies of what came in one message from a Rust program. Whoever sends a region many times has paid for it once; so it is
/// copied once.
#[derive(Debug, Default)]
pub struct Copies(Lock<Vec<(Identity, Arc<SharedMemory>)>>);

impl Copies {
    /// As [`SharedMemory::copy_of`], of a file that was received with the others.
    pub fn of(&self, file: &OwnedFd) -> Result<Arc<SharedMemory>> {
        descriptor::check_memory(file.as_fd())?;
        // All of them were open at one time, so none has the number of another that was closed before.
        let identity = descriptor::identity(file.as_fd())?;
        let copied = self.0.lock().iter().find_map(|(of, copy)| {
            let same = *of == identity;
            same.then(|| copy.clone())
        });
        if let Some(copy) = copied {
            return Ok(copy);
        }
        let copy = Arc::new(SharedMemory::copy_of(file)?);
        self.0.lock().push((identity, copy.clone()));
        Ok(copy)
    }
}

/// A region. It never changes size; once frozen it never changes at all.
#[derive(Debug)]
pub struct SharedMemory {
    inner: Lock<Inner>,
    len: usize,
    mutable: bool,
}

impl SharedMemory {
    /// `len` zero bytes: writable until frozen, or for ever if `mutable`.
    pub fn create(len: usize, mutable: bool) -> Result<SharedMemory> {
        let file = memory::create("ipc-channel-memory", len as u64)?;
        memory::seal_size(file.as_fd())?;
        Ok(SharedMemory::new(file, len, mutable, false))
    }

    /// A frozen copy of `content`. Written, not mapped: a page is filled as it is made, and needs no fault.
    pub fn of_bytes(content: &[u8]) -> Result<SharedMemory> {
        let file = memory::create("ipc-channel-memory", 0)?;
        memory::write_all(file.as_fd(), &[content])?;
        memory::seal_content(file.as_fd())?;
        Ok(SharedMemory::new(file, content.len(), false, true))
    }

    /// A region from a peer. [`Error::Protocol`] unless nobody can shrink it under its readers.
    pub fn from_file(file: OwnedFd) -> Result<SharedMemory> {
        let sealed = descriptor::check_sealed_memory(file.as_fd())?;
        let len = usize::try_from(sealed.size).unwrap_or(usize::MAX);
        if isize::try_from(len).is_err() {
            return Err(Error::Protocol(
                "shared memory from the peer is too large".into(),
            ));
        }
        Ok(SharedMemory::new(file, len, !sealed.frozen, sealed.frozen))
    }

    fn new(file: OwnedFd, len: usize, mutable: bool, frozen: bool) -> SharedMemory {
        SharedMemory {
            inner: Lock::new(Inner {
                file: Arc::new(file),
                mapping: None,
                frozen,
                views: 0,
            }),
            len,
            mutable,
        }
    }

    /// Nobody can write to it from now on, in any process. Does nothing to a mutable region.
    /// [`Error::ViewsExist`] while it can still be written to through a view.
    pub fn freeze(&self) -> Result<()> {
        let mut inner = self.inner.lock();
        if self.mutable || inner.frozen {
            return Ok(());
        }
        if inner.views > 0 {
            return Err(Error::ViewsExist(VIEWED));
        }
        inner.mapping = None;
        if memory::seal_content(inner.file.as_fd())? {
            inner.frozen = true;
            return Ok(());
        }
        // A forked process still maps it writable: what is sent is a copy that nobody else has. Copied
        // without the lock, which must not be held for long; a view made meanwhile stands in the way.
        let file = inner.file.clone();
        drop(inner);
        let copy = memory::copy(&file, self.len as u64)?;
        memory::seal_content(copy.as_fd())?;
        let mut inner = self.inner.lock();
        if inner.frozen {
            return Ok(());
        }
        if inner.views > 0 {
            return Err(Error::ViewsExist(VIEWED));
        }
        inner.mapping = None;
        inner.file = Arc::new(copy);
        inner.frozen = true;
        Ok(())
    }

    /// A copy of what a Rust program has sent. There it stays writable, and could be cut off under whoever maps it.
    pub fn copy_of(file: &OwnedFd) -> Result<SharedMemory> {
        let len = descriptor::check_memory(file.as_fd())?;
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        let copy = memory::copy(file, len)?;
        if memory::allocated(copy.as_fd())? < len {
            return Err(Error::Protocol(
                "shared memory from the peer was cut off while it was received".into(),
            ));
        }
        memory::seal_content(copy.as_fd())?;
        Ok(SharedMemory::new(copy, size, false, true))
    }

    /// A file that a Rust program can map writable: that of a mutable region, or a copy of a frozen one.
    pub fn writable_file(&self) -> Result<Arc<OwnedFd>> {
        self.freeze()?;
        let file = self.file();
        if self.mutable {
            // A region with holes looks like one whose sender has not paid for it.
            memory::allocate(file.as_fd(), 0, self.len as u64)?;
            return Ok(file);
        }
        let copy = memory::copy(&file, self.len as u64)?;
        memory::seal_size(copy.as_fd())?;
        Ok(Arc::new(copy))
    }

    /// Maps the region if it is not, and keeps it mapped and unfrozen until [`SharedMemory::release`].
    /// An empty region has a pointer that must not be followed.
    pub fn view(&self) -> Result<NonNull<u8>> {
        let mut inner = self.inner.lock();
        if self.len > 0 && inner.mapping.is_none() {
            let access = if inner.frozen {
                Access::Read
            } else {
                Access::Write
            };
            inner.mapping = Some(Mapping::new(inner.file.as_fd(), self.len, access)?);
        }
        inner.views += 1;
        Ok(inner
            .mapping
            .as_ref()
            .and_then(|mapping| NonNull::new(mapping.pointer()))
            .unwrap_or(NonNull::dangling()))
    }

    /// A view given out by [`SharedMemory::view`] is no longer used.
    pub fn release(&self) {
        self.inner.lock().views -= 1;
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether nobody can write to it.
    pub fn is_frozen(&self) -> bool {
        self.inner.lock().frozen
    }

    /// Whether it stays writable on both sides.
    pub fn is_mutable(&self) -> bool {
        self.mutable
    }

    /// The memory file.
    pub fn file(&self) -> Arc<OwnedFd> {
        self.inner.lock().file.clone()
    }
}
