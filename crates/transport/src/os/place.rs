//! Where a socket can be reached that has no name: bound in a directory of this user's and unlinked at once.
//!
//! A process may be killed between the two. So all processes of a user bind in one directory, which exists only
//! while somebody does, and the next one removes what a killed one left. Invariant: an entry whose maker lives lies
//! in a directory that its maker has locked in shared mode. So whoever gets the exclusive lock may remove every entry
//! and the directory; who bound in a directory that was removed in between is told so by the kernel, and tries again.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use crate::error::{Error, Result};
use crate::os::process;

/// Hexadecimal digits of a nonce or a secret.
pub const RANDOM_LEN: usize = 24;

/// As many random hexadecimal digits.
pub fn random() -> Result<String> {
    let mut bytes = [0u8; RANDOM_LEN / 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::kernel("getrandom", e))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Tries before giving up: each fails only because another process removed the directory in that very moment.
const TRIES: usize = 100;

/// Binds in the user's directory and unlinks everything. Returns the way to it.
pub fn bind_privately(listening: &OwnedFd, nonce: &str) -> Result<OwnedFd> {
    for _ in 0..TRIES {
        let directory = Directory::enter(nonce)?;
        // Through the directory's descriptor: the temporary directory's own path may exceed a socket's limit.
        let path = format!("/proc/self/fd/{}/{nonce}", directory.opened.as_raw_fd());
        let address = SocketAddrUnix::new(path).map_err(|e| Error::kernel("bind", e))?;
        match rustix::net::bind(listening, &address) {
            Err(Errno::NOENT) => continue,
            bound => bound.map_err(|e| Error::kernel("bind", e))?,
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let place = rustix::fs::openat(&directory.opened, nonce, flags, Mode::empty());
        let _ = rustix::fs::unlinkat(&directory.opened, nonce, AtFlags::empty());
        return place.map_err(|e| Error::kernel("open", e));
    }
    Err(Error::kernel("bind", Errno::NOENT))
}

/// The directory to bind in, locked in shared mode; removed, if nobody else is in it, when this is dropped.
struct Directory {
    opened: OwnedFd,
    path: PathBuf,
}

impl Directory {
    fn enter(nonce: &str) -> Result<Self> {
        let user = process::effective_user();
        let shared = std::env::temp_dir().join(format!("ipc-channel-{user}"));
        match Self::open(&shared)? {
            Some(directory) => Ok(directory),
            // Another user has taken the name: nobody can foresee this one.
            None => Self::open(&shared.with_file_name(format!("ipc-channel-{user}-{nonce}")))?
                .ok_or_else(|| Error::kernel("mkdir", Errno::EXIST)),
        }
    }

    /// None if the path leads to something that is not this user's alone.
    fn open(path: &Path) -> Result<Option<Self>> {
        for _ in 0..TRIES {
            match rustix::fs::mkdir(path, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(Error::kernel("mkdir", error)),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = match rustix::fs::open(path, flags, Mode::empty()) {
                Ok(opened) => opened,
                Err(Errno::NOENT) => continue,
                Err(Errno::ACCESS | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(error) => return Err(Error::kernel("open", error)),
            };
            let status = rustix::fs::fstat(&opened).map_err(|e| Error::kernel("fstat", e))?;
            let others = Mode::from_raw_mode(status.st_mode).intersects(Mode::RWXG | Mode::RWXO);
            if others || status.st_uid != process::effective_user() {
                return Ok(None);
            }
            let directory = Self {
                opened,
                path: path.to_owned(),
            };
            match rustix::fs::flock(&directory.opened, FlockOperation::NonBlockingLockShared) {
                // Somebody is removing it, unless he was stopped in the middle of that.
                Err(Errno::WOULDBLOCK) => rustix::thread::sched_yield(),
                // Some file systems have no locks: then what killed processes leave stays there.
                Ok(()) | Err(_) => return Ok(Some(directory)),
            }
        }
        Ok(None)
    }

    /// Removes what killed processes left. The caller has the exclusive lock.
    fn clear(&self) {
        let Ok(entries) = Dir::read_from(&self.opened) else {
            return;
        };
        for entry in entries.flatten() {
            let _ = rustix::fs::unlinkat(&self.opened, entry.file_name(), AtFlags::empty());
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let locked = rustix::fs::flock(&self.opened, FlockOperation::NonBlockingLockExclusive);
        if locked == Err(Errno::WOULDBLOCK) {
            return; // Others are in it: the last of them removes it.
        }
        if rustix::fs::rmdir(&self.path) == Err(Errno::NOTEMPTY) && locked.is_ok() {
            self.clear();
            let _ = rustix::fs::rmdir(&self.path);
        }
    }
}
