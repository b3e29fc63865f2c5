//! A meeting point for two processes that share nothing yet.
//!
//! A server is a listening socket. By default it is bound in a fresh private directory, opened by its
//! O_PATH descriptor, and unlinked at once: nothing can stay behind, and only this user's processes can
//! pass through `/proc/PID/fd/N` to it. For a client of another user it is bound in the abstract
//! namespace. The name carries a nonce, because descriptor numbers are used again.
//!
//! Invariant: at most one honest client has the seat. A client first binds a socket, its seat, to an
//! abstract name that only the server's `.name` tells; the kernel lets one socket have it, and frees it with
//! the socket's last duplicate. The seat travels to the server with the client's first message, and the
//! server keeps it until it has stopped listening: so from the moment a client connects until the server
//! has served it (or the client has left without a message) every other one is told so, and loses nothing.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketFlags};

use crate::deadline::Deadline;
use crate::end::End;
use crate::error::{ConnectFailure, Error, Result};
use crate::frames::meeting;
use crate::message::Message;
use crate::os::place::{self, RANDOM_LEN};
use crate::os::poll::{self, Epoll, Interest};
use crate::os::{descriptor, process, socket};
use crate::receiver::{self, Receiver, Vain};
use crate::sender::Sender;
use crate::spin;
use crate::sync::Lock;
use crate::wire::rust::Version;

/// Clients admitted in one look.
const ADMITTED: usize = 128;
/// Connections that wait to be admitted, the dead ones of clients that gave up among them; the kernel may allow less.
const QUEUE: i32 = 4096;
/// The kernel's limit on a socket's path; a longer name is nobody's.
const MAX_NAME: usize = 107;

/// A one-shot server's socket and the clients that have not said anything yet.
#[derive(Debug)]
pub struct Listener {
    end: Arc<End>,
    // Readable when a client connects or speaks.
    news: Arc<Epoll>,
    name: String,
    allow_uid: Option<u32>,
    place: Lock<Option<Meeting>>,
    // The crate's version, if Rust programs are its clients.
    version: Option<Version>,
    clients: Lock<Vec<Client>>,
    // Of the client whose message was accepted last: nobody else may sit down before we stop listening.
    seat: Lock<Option<OwnedFd>>,
}

/// Where clients come to.
#[derive(Debug)]
enum Meeting {
    /// Opened by its path; it keeps the name reachable, and so "served already" apart from "no such server".
    Opened { _place: OwnedFd },
    /// The path itself, as Rust programs know it.
    Path { _place: meeting::Place },
}

/// A client that has not said anything yet.
#[derive(Debug)]
struct Client {
    receiver: Receiver,
    /// What is watched, once it is more than the socket.
    behind: Option<Arc<Epoll>>,
}

impl Listener {
    /// Starts listening. With `allow_uid`, that user's processes may connect as well.
    pub fn new(allow_uid: Option<u32>) -> Result<Listener> {
        let listening = socket::new_unconnected()?;
        // The nonce is part of an address, which every user can read in /proc/net/unix; the secret is not.
        let (nonce, secret) = (place::random()?, place::random()?);
        let (name, place) = match allow_uid {
            None => {
                let place = place::bind_privately(&listening, &nonce)?;
                let pid = std::process::id();
                let name = format!("/proc/{pid}/fd/{}#{nonce}{secret}", place.as_raw_fd());
                (name, Some(place))
            }
            Some(allowed) => {
                let owner = process::effective_user();
                let address = format!("ipc-channel-{owner}-{allowed}-{nonce}");
                bind_abstract(&listening, &address).map_err(|e| Error::kernel("bind", e))?;
                (format!("@{address}#{secret}"), None)
            }
        };
        let place = place.map(|place| Meeting::Opened { _place: place });
        Listener::listen(listening, name, place, allow_uid, None)
    }

    /// Starts listening for Rust programs. With `allow_uid`, that user's processes may connect as well.
    pub fn for_rust(version: Version, allow_uid: Option<u32>) -> Result<Listener> {
        let listening = socket::new_unconnected()?;
        let place = meeting::Place::bind(&listening, allow_uid.is_some())?;
        let name = place.name().to_owned();
        let place = Some(Meeting::Path { _place: place });
        Listener::listen(listening, name, place, allow_uid, Some(version))
    }

    fn listen(
        listening: OwnedFd,
        name: String,
        place: Option<Meeting>,
        allow_uid: Option<u32>,
        version: Option<Version>,
    ) -> Result<Listener> {
        rustix::net::listen(&listening, QUEUE).map_err(|e| Error::kernel("listen", e))?;
        let news = Arc::new(Epoll::new()?);
        news.add(listening.as_fd(), 0, Interest::Readable)?;
        Ok(Listener {
            end: End::behind(Arc::new(listening), news.clone()),
            news,
            name,
            allow_uid,
            place: Lock::new(place),
            version,
            clients: Lock::new(Vec::new()),
            seat: Lock::new(None),
        })
    }

    /// What a client needs to know.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A client's connection and its first message. Clients that leave without one, send something else,
    /// or are of a user who may not, are turned away unseen.
    pub fn accept(&self, deadline: Deadline) -> Result<(Receiver, Message)> {
        let mut vain = Vain::default();
        loop {
            self.admit_clients()?;
            if let Some((client, mut message)) = self.first_message(&vain)? {
                let earlier = std::mem::replace(&mut *self.seat.lock(), message.seat.take());
                descriptor::close_unknown(earlier.into_iter().collect());
                return Ok((client, message));
            }
            vain.once_more(deadline)?;
            spin::sleep(deadline, |until| {
                self.end.wait(None, Interest::Readable, until, || true)
            })?;
        }
    }

    fn admit_clients(&self) -> Result<()> {
        self.end.while_open(|listening| {
            // A bound: whoever connects without end must not keep this call, and the lock, to himself.
            for _ in 0..ADMITTED {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                match rustix::net::accept_with(listening, flags) {
                    Ok(client) => {
                        if let Some(peer) = receiver::admit(&client, self.allow_uid)? {
                            self.news.add(client.as_fd(), 0, Interest::Readable)?;
                            if self.version.is_some() {
                                // It may travel to a Rust program, which expects that it waits.
                                socket::set_blocking(client.as_fd())?;
                            }
                            let receiver = Receiver::accepted(client, peer.pid, self.version)?;
                            self.clients.lock().push(Client {
                                receiver,
                                behind: None,
                            });
                        }
                    }
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(Errno::INTR | Errno::CONNABORTED) => {}
                    Err(e) => return Err(Error::kernel("accept", e)),
                }
            }
            Ok(())
        })
    }

    fn first_message(&self, vain: &Vain) -> Result<Option<(Receiver, Message)>> {
        let mut clients = self.clients.lock();
        let mut at = 0;
        while let Some(client) = clients.get_mut(at) {
            match client.receiver.try_recv() {
                Ok(message) => {
                    let client = clients.swap_remove(at);
                    self.unwatch(&client)?;
                    return Ok(Some((client.receiver, message)));
                }
                Err(Error::Empty) => {
                    if vain.is_suspicious() {
                        client.receiver.look_at_the_first()?;
                    }
                    if client.behind.is_none()
                        && let Some(behind) = client.receiver.behind()
                    {
                        // The rest of a large message comes by another way.
                        self.unwatch(client)?;
                        self.news.add(behind.as_fd(), 0, Interest::Readable)?;
                        client.behind = Some(behind);
                    }
                    at += 1;
                }
                Err(Error::Disconnected | Error::Protocol(_)) => {
                    let client = clients.swap_remove(at);
                    self.unwatch(&client)?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    fn unwatch(&self, client: &Client) -> Result<()> {
        match &client.behind {
            Some(behind) => self.news.remove(behind.as_fd()),
            None => self.news.remove(client.receiver.end().socket()?.as_fd()),
        }
        Ok(())
    }

    /// The client whose message was accepted last is not served after all: its seat is free.
    pub fn turn_away(&self) {
        let seat = self.seat.lock().take();
        descriptor::close_unknown(seat.into_iter().collect());
    }

    /// A client has been served: no other will be. The name stays known until [`Listener::close`].
    pub fn served(&self) {
        self.end.close();
        let clients = std::mem::take(&mut *self.clients.lock());
        drop(clients);
        self.turn_away();
        if self.version.is_some() {
            // A path does not tell "served already" from "no such server".
            *self.place.lock() = None;
        }
    }

    /// Ends it.
    pub fn close(&self) {
        // In this order: with a name and nobody who listens, it would look as if it had served.
        *self.place.lock() = None;
        self.served();
    }

    /// Its state.
    pub fn end(&self) -> &Arc<End> {
        &self.end
    }
}

fn bind_abstract(socket: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    rustix::net::bind(socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}

/// A server's name, taken apart.
#[derive(Debug)]
struct Place {
    address: SocketAddrUnix,
    nonce: String,
    secret: String,
    /// The user who must be listening there; None: the path admits nobody else.
    owner: Option<u32>,
}

impl Place {
    fn parse(name: &str) -> std::result::Result<Place, ConnectFailure> {
        let not = |why: &str| ConnectFailure::NotAName(why.into());
        if name.len() > MAX_NAME {
            return Err(ConnectFailure::NotAName(format!(
                "it is {} bytes long, and {MAX_NAME} are the most",
                name.len()
            )));
        }
        let is_random = |text: &str| {
            text.len() == RANDOM_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let Some((place, random)) = name.rsplit_once('#') else {
            return Err(not("it should be what a server's .name gave"));
        };
        let (address, owner, nonce, secret) = match place.strip_prefix('@') {
            Some(place) => {
                let parts = place.strip_prefix("ipc-channel-").unwrap_or_default();
                let mut parts = parts.splitn(3, '-');
                let mut user = || parts.next()?.parse().ok();
                let (Some(owner), Some(allowed)) = (user(), user()) else {
                    return Err(not("after the @ it should have two users' ids"));
                };
                let nonce = parts.next().unwrap_or_default();
                if ![owner, allowed].contains(&process::effective_user()) {
                    return Err(ConnectFailure::AnotherUser);
                }
                let address = SocketAddrUnix::new_abstract_name(place.as_bytes());
                (address, Some(owner), nonce, random)
            }
            None => {
                let (nonce, secret) = random.split_at_checked(RANDOM_LEN).unwrap_or_default();
                (
                    SocketAddrUnix::new(PathBuf::from(place)),
                    None,
                    nonce,
                    secret,
                )
            }
        };
        if !is_random(nonce) || !is_random(secret) {
            return Err(not("it is cut off or changed"));
        }
        Ok(Place {
            address: address.map_err(|e| ConnectFailure::Other(e.into()))?,
            nonce: nonce.into(),
            secret: secret.into(),
            owner,
        })
    }

    /// One attempt, never waiting.
    fn attempt(&self, socket: &OwnedFd) -> Attempt {
        match rustix::net::connect(socket, &self.address) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::INTR) => {
                return Attempt::Again(ConnectFailure::AnotherClient);
            }
            Err(Errno::CONNREFUSED) if self.exists() => {
                return Attempt::Failed(ConnectFailure::ServedAlready);
            }
            Err(Errno::CONNREFUSED | Errno::NOENT | Errno::NOTDIR | Errno::PROTOTYPE) => {
                return Attempt::Failed(ConnectFailure::NoSuchServer);
            }
            Err(Errno::ACCESS | Errno::PERM) => {
                return Attempt::Failed(ConnectFailure::AnotherUser);
            }
            Err(e) => return Attempt::Failed(ConnectFailure::Other(e.into())),
        }
        match self.owner {
            // An abstract name is anybody's once its owner is gone.
            Some(owner) if process::peer_of(socket.as_fd()).is_ok_and(|peer| peer.uid == owner) => {
                Attempt::Connected
            }
            None if self.is_where(socket) && is_ours(socket) => Attempt::Connected,
            _ => Attempt::Failed(ConnectFailure::NoSuchServer),
        }
    }

    /// The descriptor number may be another server's by now; the address it was bound to tells.
    fn is_where(&self, socket: &OwnedFd) -> bool {
        rustix::net::getpeername(socket)
            .ok()
            .flatten()
            .and_then(|address| SocketAddrUnix::try_from(address).ok())
            .and_then(|address| Some(address.path_bytes()?.ends_with(self.nonce.as_bytes())))
            .unwrap_or(false)
    }

    /// Whether what refused the connection is this server, which then has stopped listening.
    fn exists(&self) -> bool {
        self.address
            .path_bytes()
            .and_then(|path| std::str::from_utf8(path).ok())
            .and_then(|path| fs::read_link(path).ok())
            .is_some_and(|target| target.to_string_lossy().contains(&self.nonce))
    }
}

/// Whether this user is listening at the other side.
fn is_ours(socket: &OwnedFd) -> bool {
    process::peer_of(socket.as_fd()).is_ok_and(|peer| peer.uid == process::effective_user())
}

enum Attempt {
    Connected,
    Again(ConnectFailure),
    Failed(ConnectFailure),
}

/// A client on the way to a server.
///
/// While another one has the seat, this one is connected already and says nothing: that does no harm, and tells when
/// the server stops listening. One connection, and not one for each look at the seat: they would lie in the queue of a
/// server that does not accept yet, and fill it.
#[derive(Debug)]
pub struct Connecting {
    name: String,
    place: Place,
    connection: Lock<Option<OwnedFd>>,
}

impl Connecting {
    /// To the server with that name.
    pub fn to(name: &str) -> Result<Connecting> {
        let place = Place::parse(name).map_err(|why| Error::Connect {
            name: name.into(),
            why,
        })?;
        Ok(Connecting {
            name: name.into(),
            place,
            connection: Lock::new(None),
        })
    }

    /// Connects. [`Error::Interrupted`] after a pause while another client is in the way: the caller calls again, until
    /// the deadline.
    pub fn finish(&self, deadline: Deadline) -> Result<Sender> {
        let failed = |why| Error::Connect {
            name: self.name.clone(),
            why,
        };
        let seat = self.sit_down()?;
        // Looked at after that: the server gives a seat back when it has stopped listening.
        let (connection, attempt) = self.connection()?;
        let why = match (attempt, seat) {
            (Attempt::Connected, Some(seat)) => {
                socket::shut_for_reading(connection.as_fd())?;
                return Sender::connected(connection, seat);
            }
            (Attempt::Connected, None) => {
                *self.connection.lock() = Some(connection);
                ConnectFailure::AnotherClient
            }
            // The seat is free for others meanwhile.
            (Attempt::Again(why), _) => why,
            (Attempt::Failed(why), _) => return Err(failed(why)),
        };
        Err(if deadline.passed() {
            failed(why)
        } else {
            poll::pause(deadline)
        })
    }

    /// The seat, if nobody has it.
    fn sit_down(&self) -> Result<Option<OwnedFd>> {
        let seat = socket::new_unconnected()?;
        match bind_abstract(&seat, &format!("ipc-channel-{}", self.place.secret)) {
            Ok(()) => Ok(Some(seat)),
            Err(Errno::ADDRINUSE) => Ok(None),
            Err(e) => Err(Error::kernel("bind", e)),
        }
    }

    /// The connection of an earlier look if the server has not ended it, or an attempt to make one.
    fn connection(&self) -> Result<(OwnedFd, Attempt)> {
        let earlier = self.connection.lock().take();
        if let Some(connection) = earlier
            && !poll::is_ready(connection.as_fd(), Interest::Readable)?
        {
            return Ok((connection, Attempt::Connected));
        }
        let connection = socket::new_unconnected()?;
        let attempt = self.place.attempt(&connection);
        Ok((connection, attempt))
    }
}
