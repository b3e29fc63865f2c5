//! Where a socket can be reached that has no name: bound in a private directory and unlinked at once.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::SocketAddrUnix;

use crate::error::{Error, Result};

/// Hexadecimal digits of a nonce or a secret.
pub const RANDOM_LEN: usize = 24;

/// As many random hexadecimal digits.
pub fn random() -> Result<String> {
    let mut bytes = [0u8; RANDOM_LEN / 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::kernel("getrandom", e))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Binds in a directory of our own and unlinks everything. Returns the way to it.
pub fn bind_privately(listening: &OwnedFd, nonce: &str) -> Result<OwnedFd> {
    let io = |call: &'static str| move |source| Error::Kernel { call, source };
    let directory = std::env::temp_dir().join(format!("ipc-channel-{nonce}"));
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .map_err(io("mkdir"))?;
    let cleared = Unlinked {
        directory: &directory,
        nonce,
    };
    // Through the directory's descriptor: the temporary directory's own path may exceed a socket's limit.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::open(
        &directory,
        flags | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        Mode::empty(),
    )
    .map_err(|e| Error::kernel("open", e))?;
    let path = format!("/proc/self/fd/{}/{nonce}", opened.as_raw_fd());
    let address = SocketAddrUnix::new(path).map_err(|e| Error::kernel("bind", e))?;
    rustix::net::bind(listening, &address).map_err(|e| Error::kernel("bind", e))?;
    let place = rustix::fs::openat(&opened, nonce, flags | OFlags::NOFOLLOW, Mode::empty())
        .map_err(|e| Error::kernel("open", e))?;
    drop(cleared);
    Ok(place)
}

struct Unlinked<'a> {
    directory: &'a Path,
    nonce: &'a str,
}

impl Drop for Unlinked<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.directory.join(self.nonce));
        let _ = fs::remove_dir(self.directory);
    }
}
