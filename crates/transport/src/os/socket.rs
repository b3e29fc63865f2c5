//! Sequenced-packet Unix sockets: whole packets, with descriptors beside the bytes.
//!
//! Sending and receiving use libc and not rustix: a hostile peer that holds a duplicate of our socket can
//! switch on control messages of its choice (SO_PASSPIDFD installs a descriptor with every packet), and
//! what is not parsed would leak. So every control message is looked at here, or has no room to come in.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType};

use crate::error::{Error, Result};
use crate::os::descriptor;

/// The kernel's limit on descriptors in one packet (SCM_MAX_FD).
pub const MAX_FDS_A_PACKET: usize = 253;

// Room for the descriptors and for every other control message a socket of this kind can produce.
const CONTROL_LEN: usize = 2048;
const SCM_PIDFD: libc::c_int = 4;
/// Packets up to this size are put together before they are sent.
const SMALL: usize = 2048;

#[repr(C, align(16))]
struct Control([MaybeUninit<u8>; CONTROL_LEN]);

/// Two connected sockets: the first for a sender, the second for a receiver.
///
/// The sender's is shut for reading: a receiver cannot send back, and the kernel's socket diagnosis shows
/// which end is which.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let (sender, receiver) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| Error::kernel("socketpair", e))?;
    shut_for_reading(sender.as_fd())?;
    Ok((sender, receiver))
}

/// Two connected sockets that both send and receive.
pub fn duplex_pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|e| Error::kernel("socketpair", e))
}

/// A socket to be bound or connected.
pub fn new_unconnected() -> Result<OwnedFd> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|e| Error::kernel("socket", e))
}

/// Whoever receives or sends on it without saying otherwise waits.
pub fn set_blocking(socket: BorrowedFd<'_>) -> Result<()> {
    rustix::io::ioctl_fionbio(socket, false).map_err(|e| Error::kernel("ioctl(FIONBIO)", e))
}

/// Marks a connected socket as a sender's.
pub fn shut_for_reading(socket: BorrowedFd<'_>) -> Result<()> {
    match rustix::net::shutdown(socket, Shutdown::Read) {
        // The other side is gone already: there is nothing left to shut.
        Ok(()) | Err(Errno::NOTCONN) => Ok(()),
        Err(e) => Err(Error::kernel("shutdown", e)),
    }
}

/// How a packet fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is in the receiver's queue.
    Whole,
    /// The queue is full; nothing was sent.
    WouldBlock,
}

/// Sends one packet or nothing. Never waits.
pub fn send(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>], fds: &[RawFd]) -> Result<Sent> {
    send_flagged(socket, parts, fds, 0)
}

/// The same, marked as the end of a record.
pub fn send_record(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>], fds: &[RawFd]) -> Result<Sent> {
    send_flagged(socket, parts, fds, libc::MSG_EOR)
}

#[inline]
fn send_flagged(
    socket: BorrowedFd<'_>,
    parts: &[IoSlice<'_>],
    fds: &[RawFd],
    flags: libc::c_int,
) -> Result<Sent> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | flags;
    let mut joined = [MaybeUninit::uninit(); SMALL];
    if fds.is_empty()
        && let Some(bytes) = join(parts, &mut joined)
    {
        return until_sent("send", || {
            // SAFETY: the pointer and the length are those of a slice.
            unsafe {
                libc::send(
                    socket.as_raw_fd(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    flags,
                )
            }
        });
    }
    let mut control = Control([MaybeUninit::uninit(); CONTROL_LEN]);
    // SAFETY: a msghdr of zeroes is a valid empty one.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len() as _;
    if !fds.is_empty() {
        assert!(
            fds.len() <= MAX_FDS_A_PACKET,
            "callers split descriptors into packets"
        );
        let bytes = size_of_val(fds);
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute; 253 descriptors fit the buffer.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(bytes as u32) } as _;
        // SAFETY: msg_control points to CONTROL_LEN aligned bytes, more than CMSG_SPACE(bytes), so the
        // first header and `bytes` bytes of data behind it lie inside.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(bytes as u32) as _;
            ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(header), bytes);
        }
    }
    until_sent("sendmsg", || {
        // SAFETY: `message` points to live iovecs (IoSlice has iovec's layout) and control data.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &message, flags) }
    })
}

/// Sends small packets as [`send_record`] would, one after the other. How many: none if the queue is full; fewer than
/// there are also if something is wrong with the next one.
pub fn send_records(socket: BorrowedFd<'_>, packets: &[&[u8]]) -> Result<usize> {
    let mut parts: Vec<IoSlice<'_>> = packets.iter().map(|packet| IoSlice::new(packet)).collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: an mmsghdr of zeroes is a valid empty one.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = ptr::from_mut(part).cast();
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_EOR;
    let mut sent = 0;
    let outcome = until_sent("sendmmsg", || {
        let (first, count) = (messages.as_mut_ptr(), messages.len() as _);
        // SAFETY: `count` live headers, each with a live iovec (IoSlice has iovec's layout) of a live slice.
        sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), first, count, flags as _) };
        sent as isize
    })?;
    Ok(match outcome {
        Sent::Whole => sent as usize,
        Sent::WouldBlock => 0,
    })
}

/// The parts of a small packet, one behind the other: to copy them takes less time than the kernel does to read a list
/// of them. None if it is not small.
#[inline]
fn join<'a>(parts: &[IoSlice<'_>], room: &'a mut [MaybeUninit<u8>; SMALL]) -> Option<&'a [u8]> {
    let mut len = 0;
    for part in parts {
        let place = room.get_mut(len..len + part.len())?;
        // SAFETY: `place` is as long as `part` and does not overlap it, being borrowed for writing.
        unsafe { ptr::copy_nonoverlapping(part.as_ptr(), place.as_mut_ptr().cast(), part.len()) };
        len += part.len();
    }
    // SAFETY: the first `len` bytes have just been written.
    Some(unsafe { std::slice::from_raw_parts(room.as_ptr().cast(), len) })
}

#[inline]
fn until_sent(name: &'static str, mut send: impl FnMut() -> isize) -> Result<Sent> {
    loop {
        if send() >= 0 {
            return Ok(Sent::Whole);
        }
        match last_errno() {
            Errno::INTR => {}
            Errno::AGAIN => return Ok(Sent::WouldBlock),
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::CONNREFUSED => {
                return Err(Error::ReceiverGone);
            }
            e => return Err(Error::kernel(name, e)),
        }
    }
}

/// What lies at the head of a socket's queue.
#[derive(Debug)]
pub enum Peeked {
    /// Nothing now.
    Nothing,
    /// Nothing ever again.
    End,
    /// A packet, still in the queue. The descriptors are duplicates of those in it.
    Packet {
        /// Its length, which may exceed the buffer it was copied to.
        len: usize,
        /// Its descriptors, or as many as could be had.
        fds: Vec<OwnedFd>,
        /// Some descriptors could not be had: this process is at its limit on open files.
        fds_missing: bool,
    },
}

/// Looks at the first packet without taking it. Never waits.
pub fn peek(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Peeked> {
    match receive(socket, buffer, libc::MSG_PEEK | libc::MSG_TRUNC)? {
        None => Ok(Peeked::Nothing),
        Some(packet) if packet.len == 0 => {
            descriptor::close_unknown(packet.fds);
            peek_at_nothing(socket)
        }
        Some(packet) => Ok(packet.into()),
    }
}

/// A first look at a queue.
#[derive(Clone, Copy, Debug)]
pub enum Glimpse {
    /// It is empty.
    Nothing,
    /// It has ended, or begins with an empty packet: [`peek`] tells these apart.
    Unclear,
    /// A packet.
    Packet {
        /// Of all of it.
        len: usize,
        /// Something comes beside its bytes.
        beside: bool,
    },
}

/// How long the first packet is, whose beginning is copied. Never waits.
pub fn glimpse(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Glimpse> {
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    loop {
        // SAFETY: a msghdr of zeroes is a valid empty one; without control data no descriptor is installed.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        let flags = libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_DONTWAIT;
        // SAFETY: the iovec covers `buffer`, which outlives the call.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) };
        match got {
            0 => return Ok(Glimpse::Unclear),
            1.. => {
                // What has no room shows as truncated.
                let beside = message.msg_flags & libc::MSG_CTRUNC != 0;
                return Ok(Glimpse::Packet {
                    len: got as usize,
                    beside,
                });
            }
            _ => match last_errno() {
                Errno::INTR | Errno::CONNRESET => {}
                Errno::AGAIN => return Ok(Glimpse::Nothing),
                Errno::NOTCONN | Errno::INVAL => return Ok(Glimpse::Unclear),
                e => return Err(Error::kernel("recvmsg", e)),
            },
        }
    }
}

/// Memory that packets occupy which were sent here and have not been received.
pub fn unread(socket: BorrowedFd<'_>) -> Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request writes one int to the live value given.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } == 0 {
        Ok(bytes.max(0) as usize)
    } else {
        Err(Error::kernel("ioctl(SIOCOUTQ)", last_errno()))
    }
}

/// How much a socket's buffer holds, by the kernel's accounting.
pub fn buffer_size(socket: BorrowedFd<'_>) -> Result<usize> {
    rustix::net::sockopt::socket_send_buffer_size(socket)
        .map_err(|e| Error::kernel("getsockopt(SO_SNDBUF)", e))
}

/// Whether nobody is at the other side any more.
pub fn has_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut polled = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: one live pollfd, and no waiting.
    let ready = unsafe { libc::poll(&raw mut polled, 1, 0) };
    ready > 0 && polled.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
}

/// An empty packet and the end of the stream look the same. Only a packet has a sender's credentials.
fn peek_at_nothing(socket: BorrowedFd<'_>) -> Result<Peeked> {
    let ask = |on| {
        rustix::net::sockopt::set_socket_passcred(socket, on)
            .map_err(|e| Error::kernel("setsockopt(SO_PASSCRED)", e))
    };
    ask(true)?;
    let again = receive(socket, &mut [0u8; 1], libc::MSG_PEEK | libc::MSG_TRUNC);
    match again? {
        None => ask(false).map(|()| Peeked::Nothing),
        Some(packet) if packet.len == 0 && !packet.has_credentials => Ok(Peeked::End),
        Some(packet) if packet.len == 0 => ask(false).map(|()| packet.into()),
        // Another holder of the socket took the empty packet meanwhile; this one was not copied out.
        Some(packet) => {
            descriptor::close_unknown(packet.fds);
            ask(false).map(|()| Peeked::Nothing)
        }
    }
}

/// From now on each [`peek`] looks at the packet after the last one looked at, beginning with the first.
pub fn peek_one_after_the_other(socket: BorrowedFd<'_>) -> Result<()> {
    set_peek_offset(socket, 0)
}

/// From now on each [`peek`] looks at the first packet, as it is unless another holder changed it.
pub fn peek_at_the_first(socket: BorrowedFd<'_>) -> Result<()> {
    set_peek_offset(socket, -1)
}

fn set_peek_offset(socket: BorrowedFd<'_>, offset: libc::c_int) -> Result<()> {
    // SAFETY: the option's value is an int that outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            ptr::from_ref(&offset).cast(),
            size_of_val(&offset) as libc::socklen_t,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(Error::kernel("setsockopt(SO_PEEK_OFF)", last_errno()))
    }
}

/// Whether the queue of a seqpacket socket is certainly empty, so that closing it closes nothing else.
pub fn holds_nothing(socket: BorrowedFd<'_>) -> bool {
    let nothing_to_see = || {
        // SAFETY: a msghdr of zeroes asks for no bytes and no control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: as above.
        if unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) } < 0 {
            // A socket that listens says that it is not connected; what is in its queues cannot be seen.
            return (true, last_errno() == Errno::AGAIN);
        }
        // Control data that had no room show as MSG_CTRUNC.
        (false, message.msg_flags & libc::MSG_CTRUNC == 0)
    };
    // The sum over all packets, whatever another holder has done to make the queue look empty.
    if !rustix::io::ioctl_fionread(socket).is_ok_and(|bytes| bytes == 0) {
        return false;
    }
    // Empty packets remain to be told from the end of the stream.
    let (certain, nothing) = nothing_to_see();
    if certain || !nothing {
        return nothing;
    }
    // Even an empty packet has credentials. Off again, or else a sender gets a name of its own.
    let ask = |on| rustix::net::sockopt::set_socket_passcred(socket, on).is_ok();
    let nothing = ask(true) && nothing_to_see().1;
    ask(false) && nothing
}

/// Takes the first packet off the queue; the queue's own descriptors in it are closed by the kernel.
pub fn discard(socket: BorrowedFd<'_>) -> Result<()> {
    loop {
        // SAFETY: a msghdr of zeroes asks for no bytes and no control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
        if got >= 0 {
            return Ok(());
        }
        match last_errno() {
            Errno::INTR | Errno::CONNRESET => {}
            Errno::AGAIN => return Ok(()),
            e => return Err(Error::kernel("recvmsg", e)),
        }
    }
}

/// Takes everything off the queue, `most` packets at most. What comes with them is closed by the kernel.
pub fn discard_all(socket: BorrowedFd<'_>, most: usize) -> Result<()> {
    for _ in 0..most {
        // SAFETY: a msghdr of zeroes asks for no bytes and no control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
        if got < 0 && !matches!(last_errno(), Errno::INTR | Errno::CONNRESET) {
            break;
        }
    }
    Ok(())
}

/// What [`take_into`] has taken off a queue.
#[derive(Debug)]
pub enum Took {
    /// There is nothing now.
    Nothing,
    /// There is nothing ever again, or an empty packet.
    End,
    /// A packet.
    Packet {
        /// Its length, which is more than what was appended if there was no room.
        len: usize,
        /// Descriptors that came beside it.
        fds: Vec<OwnedFd>,
        /// Further ones are lost: this process is at its limit on open files.
        fds_missing: bool,
    },
}

/// Takes a packet off a queue. Its beginning is copied to `buffer`.
pub fn take(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Took> {
    receive(socket, buffer, libc::MSG_TRUNC).map(Took::of)
}

/// The same where nothing is beside the bytes, which costs the kernel less: how long the packet is, 0 for the end of the
/// stream, None for nothing. What is beside them all the same is closed before this returns, which may take as long as
/// its sender likes: so nobody else may hold the socket.
pub fn take_bytes(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<usize>> {
    let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    loop {
        match rustix::net::recv(socket, &mut *buffer, flags) {
            Ok((_, len)) => return Ok(Some(len)),
            // As in `receive_parts`.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::NOTCONN | Errno::INVAL) => return Ok(Some(0)),
            Err(e) => return Err(Error::kernel("recv", e)),
        }
    }
}

impl Took {
    fn of(packet: Option<Packet>) -> Took {
        match packet {
            None => Took::Nothing,
            Some(packet) if packet.len == 0 => {
                descriptor::close_unknown(packet.fds);
                Took::End
            }
            Some(packet) => Took::Packet {
                len: packet.len,
                fds: packet.fds,
                fds_missing: packet.fds_missing,
            },
        }
    }
}

/// Takes a packet off a queue and appends its bytes, after the first `skip` ones, to `bytes`: `most` at most, for
/// which there must be room.
pub fn take_into(
    socket: BorrowedFd<'_>,
    skip: usize,
    bytes: &mut Vec<u8>,
    most: usize,
) -> Result<Took> {
    const MOST_SKIPPED: usize = 64;
    let mut skipped = [0u8; MOST_SKIPPED];
    assert!(skip <= MOST_SKIPPED && most <= bytes.capacity() - bytes.len());
    let mut parts = [
        libc::iovec {
            iov_base: skipped.as_mut_ptr().cast(),
            iov_len: skip,
        },
        libc::iovec {
            iov_base: bytes.spare_capacity_mut().as_mut_ptr().cast(),
            iov_len: most,
        },
    ];
    let took = Took::of(receive_parts(socket, &mut parts, libc::MSG_TRUNC)?);
    if let Took::Packet { len, .. } = &took {
        let written = len.saturating_sub(skip).min(most);
        // SAFETY: the kernel has written so many bytes behind the old length, and the capacity has room.
        unsafe { bytes.set_len(bytes.len() + written) };
    }
    Ok(took)
}

struct Packet {
    len: usize,
    fds: Vec<OwnedFd>,
    fds_missing: bool,
    has_credentials: bool,
}

impl From<Packet> for Peeked {
    fn from(packet: Packet) -> Peeked {
        Peeked::Packet {
            len: packet.len,
            fds: packet.fds,
            fds_missing: packet.fds_missing,
        }
    }
}

fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: libc::c_int,
) -> Result<Option<Packet>> {
    let part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    receive_parts(socket, &mut [part], flags)
}

/// The same; the parts are of memory that is the caller's to write to.
fn receive_parts(
    socket: BorrowedFd<'_>,
    parts: &mut [libc::iovec],
    flags: libc::c_int,
) -> Result<Option<Packet>> {
    let mut control = Control([MaybeUninit::uninit(); CONTROL_LEN]);
    loop {
        // SAFETY: a msghdr of zeroes is a valid empty one.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len() as _;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_LEN as _;
        // SAFETY: the iovecs cover the callers' memory, the control pointer CONTROL_LEN bytes; both outlive the
        // call.
        let got = unsafe {
            libc::recvmsg(
                socket.as_raw_fd(),
                &mut message,
                flags | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC,
            )
        };
        if got >= 0 {
            let (fds, has_credentials) = take_control(&message);
            return Ok(Some(Packet {
                len: got as usize,
                fds,
                fds_missing: message.msg_flags & libc::MSG_CTRUNC != 0,
                has_credentials,
            }));
        }
        match last_errno() {
            // ECONNRESET: the peer closed without reading what was sent back to it. Its packets follow.
            Errno::INTR | Errno::CONNRESET => {}
            Errno::AGAIN => return Ok(None),
            // Never connected: a forged end, from which nothing will ever come. As the end of a stream.
            Errno::NOTCONN | Errno::INVAL => {
                return Ok(Some(Packet {
                    len: 0,
                    fds: Vec::new(),
                    fds_missing: false,
                    has_credentials: false,
                }));
            }
            e => return Err(Error::kernel("recvmsg", e)),
        }
    }
}

fn take_control(message: &libc::msghdr) -> (Vec<OwnedFd>, bool) {
    let mut fds = Vec::new();
    let mut has_credentials = false;
    // SAFETY: the kernel has filled msg_controllen bytes of msg_control with well-formed headers, and
    // CMSG_FIRSTHDR and CMSG_NXTHDR stay inside them.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: `header` is non-null and inside the control data; its length covers its data.
        let (level, kind, len, data) = unsafe {
            (
                (*header).cmsg_level,
                (*header).cmsg_type,
                (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize,
                libc::CMSG_DATA(header),
            )
        };
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for index in 0..len / size_of::<RawFd>() {
                    // SAFETY: the data are `len` bytes of descriptors that the kernel has just installed
                    // in this process for us alone; the read need not be aligned.
                    fds.push(unsafe {
                        OwnedFd::from_raw_fd(data.cast::<RawFd>().add(index).read_unaligned())
                    });
                }
            }
            (libc::SOL_SOCKET, SCM_PIDFD) if len >= size_of::<RawFd>() => {
                // SAFETY: the data are one descriptor, or a negative number if none could be made.
                let fd = unsafe { data.cast::<RawFd>().read_unaligned() };
                if fd >= 0 {
                    // SAFETY: installed for us by the kernel, unasked; nobody else knows it.
                    drop(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => has_credentials = true,
            _ => {}
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    (fds, has_credentials)
}

/// The error of the libc call that has just failed in this thread.
pub fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
