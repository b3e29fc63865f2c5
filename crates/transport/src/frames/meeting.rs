//! One-shot servers as the crate has them: the name is the path of a socket.
//!
//! A process that is killed leaves its path behind. So each of ours has a file beside its socket that it keeps locked,
//! and whoever makes the next server removes every path of this user's whose lock is free. Invariant: a path whose
//! maker lives has a lock that is held, or no lock yet. Paths of the crate's own servers look the same but for that
//! file, and are let alone.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use crate::deadline::Deadline;
use crate::error::{ConnectFailure, Error, Result};
use crate::os::poll;
use crate::os::{fork, place, process, socket};

/// What a socket's address holds of a path, besides the zero at its end.
const MAX_PATH: usize = 107;
/// Of a directory's name, as the crate makes it.
const RANDOM_DIGITS: usize = 6;
const PREFIX: &str = ".tmp";
const SOCKET: &str = "socket";
const LOCK: &str = "ipc-channel-lock";

/// A socket's path in a directory of its own. Both go with this value, in the process that made it.
#[derive(Debug)]
pub struct Place {
    directory: PathBuf,
    name: String,
    made_in: u64,
    /// Locked; None where the file system has no locks.
    _lock: Option<OwnedFd>,
}

impl Place {
    /// Binds `listening` to a fresh path. Other users can get at it if they may.
    pub fn bind(listening: &OwnedFd, others_may: bool) -> Result<Place> {
        let io = |call: &'static str| move |source| Error::Kernel { call, source };
        let (directory_mode, socket_mode) = if others_may {
            (0o711, 0o666)
        } else {
            (0o700, 0o600)
        };
        remove_abandoned();
        let (directory, lock) = make_directory(directory_mode)?;
        let path = directory.join(SOCKET);
        let name = path.to_str().map(str::to_owned);
        let place = Place {
            directory,
            name: name.unwrap_or_default(),
            made_in: fork::generation(),
            _lock: lock,
        };
        // The crate's client cuts a longer path off.
        if place.name.is_empty() || place.name.len() > MAX_PATH {
            return Err(Error::Kernel {
                call: "bind",
                source: std::io::Error::new(
                    std::io::ErrorKind::InvalidFilename,
                    format!(
                        "{} is longer than {MAX_PATH} bytes, or not UTF-8; choose a shorter temporary directory (TMPDIR)",
                        path.display()
                    ),
                ),
            });
        }
        let address = SocketAddrUnix::new(&path).map_err(|e| Error::kernel("bind", e))?;
        rustix::net::bind(listening, &address).map_err(|e| Error::kernel("bind", e))?;
        let mode = fs::Permissions::from_mode(socket_mode);
        fs::set_permissions(&path, mode).map_err(io("chmod"))?;
        Ok(place)
    }

    /// The path.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.made_in == fork::generation() {
            let _ = fs::remove_file(self.directory.join(SOCKET));
            let _ = fs::remove_file(self.directory.join(LOCK));
            let _ = fs::remove_dir(&self.directory);
        }
    }
}

/// A directory of its own, and its lock.
fn make_directory(mode: u32) -> Result<(PathBuf, Option<OwnedFd>)> {
    loop {
        let random = place::random()?;
        let name = format!("{PREFIX}{}", &random[..RANDOM_DIGITS]);
        let directory = std::env::temp_dir().join(name);
        match fs::DirBuilder::new().mode(mode).create(&directory) {
            Ok(()) => {
                if mode & 0o077 != 0 {
                    let _ = fs::set_permissions(&directory, fs::Permissions::from_mode(mode));
                }
                match make_lock(&directory) {
                    // Another process took it for abandoned, in the moment before it was locked.
                    Err(Errno::NOENT | Errno::WOULDBLOCK) => {}
                    made => {
                        let lock = made.map_err(|e| Error::kernel("open", e))?;
                        return Ok((directory, lock));
                    }
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => {
                return Err(Error::Kernel {
                    call: "mkdir",
                    source,
                });
            }
        }
    }
}

fn make_lock(directory: &Path) -> rustix::io::Result<Option<OwnedFd>> {
    let path = directory.join(LOCK);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let lock = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).inspect_err(|_| {
        let _ = fs::remove_dir(directory);
    })?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if rustix::fs::fstat(&lock)?.st_nlink == 0 => Err(Errno::NOENT),
        Ok(()) => Ok(Some(lock)),
        Err(Errno::WOULDBLOCK) => Err(Errno::WOULDBLOCK),
        // A free lock would say that nobody is here.
        Err(_) => fs::remove_file(&path).map_or(Err(Errno::NOENT), |()| Ok(None)),
    }
}

/// Removes the paths that killed processes of this user have left.
fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let random = name.as_bytes().strip_prefix(PREFIX.as_bytes());
        if random.is_some_and(|random| random.len() == RANDOM_DIGITS) {
            // Whatever is in the way: it is only left where it is.
            let _ = remove_if_abandoned(&entry.path());
        }
    }
}

fn remove_if_abandoned(path: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    // Another user's may be of a file system that does not answer.
    let asked = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let owner = rustix::fs::statx(&directory, "", asked, StatxFlags::UID)?.stx_uid;
    if owner != process::effective_user() {
        return Err(Errno::PERM);
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let lock = rustix::fs::openat(&directory, LOCK, flags, Mode::empty())?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    rustix::fs::unlinkat(&directory, SOCKET, AtFlags::empty()).or_else(|error| match error {
        Errno::NOENT => Ok(()),
        error => Err(error),
    })?;
    rustix::fs::unlinkat(&directory, LOCK, AtFlags::empty())?;
    rustix::fs::rmdir(path)
}

/// A socket connected to the server at that path. [`Error::Interrupted`] after a pause while its queue of clients is full:
/// the caller calls again.
pub fn connect(name: &str, deadline: Deadline) -> Result<OwnedFd> {
    let failed = |why| Error::Connect {
        name: name.into(),
        why,
    };
    let not = |why: &str| failed(ConnectFailure::NotAName(why.into()));
    if CString::new(name).is_err() || name.is_empty() {
        return Err(not("it should be the path of a socket"));
    }
    // As the crate does, at either side.
    let path = Path::new(OsStr::from_bytes(
        &name.as_bytes()[..name.len().min(MAX_PATH)],
    ));
    let address = SocketAddrUnix::new(path).map_err(|e| failed(ConnectFailure::Other(e.into())))?;
    let socket = socket::new_unconnected()?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {
            // Others may get it, who expect that it waits.
            socket::set_blocking(socket.as_fd())?;
            Ok(socket)
        }
        Err(Errno::AGAIN) if deadline.passed() => Err(failed(ConnectFailure::AnotherClient)),
        Err(Errno::AGAIN | Errno::INTR) => Err(poll::pause(deadline)),
        Err(Errno::CONNREFUSED | Errno::NOENT | Errno::NOTDIR | Errno::PROTOTYPE) => {
            Err(failed(ConnectFailure::NoSuchServer))
        }
        Err(Errno::ACCESS | Errno::PERM) => Err(failed(ConnectFailure::AnotherUser)),
        Err(error) => Err(failed(ConnectFailure::Other(error.into()))),
    }
}
