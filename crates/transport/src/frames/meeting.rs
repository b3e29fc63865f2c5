//! One-shot servers as the crate has them: the name is the path of a socket.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use crate::deadline::Deadline;
use crate::error::{ConnectFailure, Error, Result};
use crate::os::poll;
use crate::os::{fork, place, socket};

/// What a socket's address holds of a path, besides the zero at its end.
const MAX_PATH: usize = 107;
/// Of a directory's name, as the crate makes it.
const RANDOM_DIGITS: usize = 6;

/// A socket's path in a directory of its own. Both go with this value, in the process that made it.
#[derive(Debug)]
pub struct Place {
    directory: PathBuf,
    name: String,
    made_in: u64,
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
        let directory = make_directory(directory_mode)?;
        let path = directory.join("socket");
        let name = path.to_str().map(str::to_owned);
        let place = Place {
            directory,
            name: name.unwrap_or_default(),
            made_in: fork::generation(),
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
            let _ = fs::remove_file(self.directory.join("socket"));
            let _ = fs::remove_dir(&self.directory);
        }
    }
}

fn make_directory(mode: u32) -> Result<PathBuf> {
    loop {
        let random = place::random()?;
        let name = format!(".tmp{}", &random[..RANDOM_DIGITS]);
        let directory = std::env::temp_dir().join(name);
        match fs::DirBuilder::new().mode(mode).create(&directory) {
            Ok(()) => {
                if mode & 0o077 != 0 {
                    let _ = fs::set_permissions(&directory, fs::Permissions::from_mode(mode));
                }
                return Ok(directory);
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

/// A socket connected to the server at that path, waiting until the deadline while its queue of clients is full. The
/// caller deals with [`Error::Interrupted`] by calling again.
pub fn connect(name: &str, deadline: Deadline) -> Result<OwnedFd> {
    const PAUSE: Duration = Duration::from_millis(5);
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
    loop {
        let socket = socket::new_unconnected()?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => {
                // Others may get it, who expect that it waits.
                socket::set_blocking(socket.as_fd())?;
                return Ok(socket);
            }
            Err(Errno::AGAIN) if deadline.passed() => {
                return Err(failed(ConnectFailure::AnotherClient));
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                let left = deadline.remaining().unwrap_or(PAUSE).min(PAUSE);
                match poll::wait(&[], Deadline::after(left)) {
                    Ok(_) | Err(Error::TimedOut) => {}
                    Err(error) => return Err(error),
                }
            }
            Err(Errno::CONNREFUSED | Errno::NOENT | Errno::NOTDIR | Errno::PROTOTYPE) => {
                return Err(failed(ConnectFailure::NoSuchServer));
            }
            Err(Errno::ACCESS | Errno::PERM) => return Err(failed(ConnectFailure::AnotherUser)),
            Err(error) => return Err(failed(ConnectFailure::Other(error.into()))),
        }
    }
}
