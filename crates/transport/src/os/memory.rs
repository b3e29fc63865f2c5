//! Memory files and their mappings.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::error::{Error, Result};

/// A fresh memory file of `size` zero bytes, not sealed yet.
pub fn create(name: &str, size: u64) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know the flag.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        made => made,
    }
    .map_err(|e| Error::kernel("memfd_create", e))?;
    if size > 0 {
        retry(|| rustix::fs::ftruncate(&fd, size)).map_err(|e| Error::kernel("ftruncate", e))?;
    }
    Ok(fd)
}

/// Writes all of `parts` one after the other from the start of the file.
pub fn write_all(fd: BorrowedFd<'_>, parts: &[&[u8]]) -> Result<()> {
    const PARTS_A_CALL: usize = 512;
    let mut offset = 0u64;
    let mut slices: Vec<IoSlice<'_>> = parts
        .iter()
        .filter(|part| !part.is_empty())
        .map(|part| IoSlice::new(part))
        .collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let batch = rest.len().min(PARTS_A_CALL);
        match rustix::io::pwritev(fd, &rest[..batch], offset) {
            Ok(0) => return Err(Error::kernel("pwritev", Errno::NOSPC)),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::kernel("pwritev", e)),
        }
    }
    Ok(())
}

/// Nobody can change the content or the size any more. False while a writable mapping exists somewhere.
pub fn seal_content(fd: BorrowedFd<'_>) -> Result<bool> {
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    match rustix::fs::fcntl_add_seals(fd, all) {
        Ok(()) => Ok(true),
        Err(Errno::BUSY) => Ok(false),
        Err(e) => Err(Error::kernel("fcntl(F_ADD_SEALS)", e)),
    }
}

/// Nobody can change the size any more.
pub fn seal_size(fd: BorrowedFd<'_>) -> Result<()> {
    rustix::fs::fcntl_add_seals(fd, SealFlags::SHRINK | SealFlags::GROW)
        .map_err(|e| Error::kernel("fcntl(F_ADD_SEALS)", e))
}

/// A memory file that can grow and never shrink, for a lane.
pub fn create_growing(name: &str) -> Result<OwnedFd> {
    let file = create(name, 0)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::SEAL)
        .map_err(|e| Error::kernel("fcntl(F_ADD_SEALS)", e))?;
    Ok(file)
}

/// Makes the file `size` bytes long, without pages behind what is new.
pub fn grow(fd: BorrowedFd<'_>, size: u64) -> Result<()> {
    retry(|| rustix::fs::ftruncate(fd, size)).map_err(|e| Error::kernel("ftruncate", e))
}

/// Makes pages for a part of the file, so that writing there cannot fail for want of memory.
pub fn allocate(fd: BorrowedFd<'_>, offset: u64, len: u64) -> Result<()> {
    match retry(|| rustix::fs::fallocate(fd, FallocateFlags::KEEP_SIZE, offset, len)) {
        Ok(()) => Ok(()),
        Err(Errno::NOSPC | Errno::NOMEM) => Err(Error::BacklogFull(
            "the system has no memory left for this channel's unread messages; \
             let the receiver catch up, then send again"
                .into(),
        )),
        Err(e) => Err(Error::kernel("fallocate", e)),
    }
}

/// How many bytes of the file have pages.
pub fn allocated(fd: BorrowedFd<'_>) -> Result<u64> {
    let stat = rustix::fs::fstat(fd).map_err(|e| Error::kernel("fstat", e))?;
    Ok((stat.st_blocks.max(0) as u64).saturating_mul(512))
}

/// Gives the pages of a part of the file back to the system; it reads as zeroes from now on.
pub fn release(fd: BorrowedFd<'_>, offset: u64, len: u64) {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let _ = retry(|| rustix::fs::fallocate(fd, flags, offset, len));
    #[cfg(loom)]
    crate::os::shared::release(fd, offset, len);
}

/// What a mapping may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading what is in the file.
    Read,
    /// Reading and writing the file itself.
    Write,
    /// Reading the file and writing to private copies of its pages.
    CopyOnWrite,
}

/// A file's pages in this process's memory; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory owned by this value; access through raw pointers is the callers'.
unsafe impl Send for Mapping {}
// SAFETY: as above; the safe method only reads, see `as_slice`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes (at least one) of a file that cannot shrink.
    pub fn new(fd: BorrowedFd<'_>, len: usize, access: Access) -> Result<Mapping> {
        let (protection, flags) = match access {
            Access::Read => (ProtFlags::READ, MapFlags::SHARED),
            Access::Write => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
            Access::CopyOnWrite => (
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            ),
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), len, protection, flags, fd, 0) }
            .map_err(|e| Error::kernel("mmap", e))?;
        let start =
            NonNull::new(start.cast()).ok_or_else(|| Error::kernel("mmap", Errno::NOMEM))?;
        Ok(Mapping { start, len })
    }

    /// The first byte.
    pub fn pointer(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: an empty file cannot be mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies a part of it; panics if that is not all inside.
    pub fn copy_out(&self, at: usize, bytes: &mut [u8]) {
        assert!(at <= self.len && bytes.len() <= self.len - at);
        // SAFETY: the range is inside the mapping (just checked), and the target is a slice of ours.
        unsafe {
            ptr::copy_nonoverlapping(self.start.as_ptr().add(at), bytes.as_mut_ptr(), bytes.len());
        }
    }

    /// The content.
    ///
    /// # Safety
    /// The file must be sealed against writing (or the mapping private and untouched by the caller) for
    /// as long as the slice lives, so that nobody changes what a reference says is constant.
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: start..start+len is mapped and readable while self lives; the file cannot shrink
        // (sealed), and the caller vouches for its content.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own mapping, and nothing borrowed from it outlives it.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A copy of the first `len` bytes of `source`, in a new memory file.
pub fn copy(source: &OwnedFd, len: u64) -> Result<OwnedFd> {
    let target = create("ipc-channel-memory", len)?;
    let mut buffer = vec![0u8; 1 << 20];
    let mut offset = 0u64;
    while offset < len {
        let wanted = buffer.len().min((len - offset) as usize);
        let got = retry(|| rustix::io::pread(source, &mut buffer[..wanted], offset))
            .map_err(|e| Error::kernel("pread", e))?;
        if got == 0 {
            break;
        }
        let mut done = 0;
        while done < got {
            done += retry(|| {
                rustix::io::pwrite(target.as_fd(), &buffer[done..got], offset + done as u64)
            })
            .map_err(|e| Error::kernel("pwrite", e))?;
        }
        offset += got as u64;
    }
    Ok(target)
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    rustix::io::retry_on_intr(&mut call)
}
