//! A peer that speaks the native wire protocol wrongly on purpose.

#![allow(dead_code)] // Each test program uses a part of it.

use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ipc_channel_transport::lane::consumer::Place;
use ipc_channel_transport::lane::layout::{self, Kind};
use ipc_channel_transport::os::shared::Region;
use ipc_channel_transport::os::socket::{self, Peeked};
use ipc_channel_transport::os::{clock, descriptor, memory};
use ipc_channel_transport::wire::control;
use ipc_channel_transport::wire::native::{HEADER_LEN, Header, PacketKind, header};
use ipc_channel_transport::{Deadline, Error, Message, Outgoing, Parcel, Receiver, Sender};

/// After that a call hangs.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(10))
}

/// Runs a test on a thread of its own, one at a time. It must come to its end, and leave neither descriptors nor
/// mappings of memory files behind.
#[track_caller]
pub fn contained(test: impl FnOnce() + Send + 'static) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let before = Held::now();
    let (over, wait) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        test();
        drop(over);
    });
    let outcome = wait.recv_timeout(PATIENCE);
    assert!(
        outcome != Err(mpsc::RecvTimeoutError::Timeout),
        "a call hangs"
    );
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        let now = Held::now();
        if now.descriptors.len() <= before.descriptors.len() && now.mappings <= before.mappings {
            return;
        }
        if Instant::now() > until {
            let new = now
                .descriptors
                .iter()
                .filter(|name| !before.descriptors.contains(name));
            let some: Vec<_> = new.take(10).collect();
            panic!(
                "left behind: {} descriptors and then {}, {} mappings and then {}; {some:?}",
                before.descriptors.len(),
                now.descriptors.len(),
                before.mappings,
                now.mappings,
            );
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Debug)]
struct Held {
    descriptors: Vec<String>,
    mappings: usize,
}

impl Held {
    fn now() -> Held {
        let name = |entry: fs::DirEntry| {
            let target = fs::read_link(entry.path()).ok()?;
            Some(format!("{:?} {}", entry.file_name(), target.display()))
        };
        let entries = fs::read_dir("/proc/self/fd").unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        Held {
            descriptors: entries.filter_map(|entry| name(entry.ok()?)).collect(),
            mappings: maps.lines().filter(|line| line.contains("memfd:")).count(),
        }
    }
}

/// Something that is done again and again, as fast as can be, until this is dropped.
pub struct Storm {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Storm {
    pub fn new(mut gust: impl FnMut() + Send + 'static) -> Storm {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // Ends by itself should the test that hangs never stop it.
        let until = Instant::now() + PATIENCE * 2;
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) && Instant::now() < until {
                gust();
            }
        });
        Storm {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(thread::JoinHandle::join);
    }
}

/// A receiver, and the peer's way past every rule.
pub struct Victim {
    pub socket: OwnedFd,
    pub receiver: Receiver,
}

/// What a receiver gave before it had nothing more.
#[derive(Debug, Default)]
pub struct Drained {
    pub messages: Vec<Vec<u8>>,
    pub protocol_errors: usize,
    pub disconnected: bool,
}

impl Victim {
    pub fn new() -> Victim {
        let (socket, receiver) = socket::pair().unwrap();
        Victim {
            socket,
            receiver: Receiver::from_socket(receiver).unwrap(),
        }
    }

    pub fn send(&self, packet: &[u8], fds: &[RawFd]) {
        socket::send(self.socket.as_fd(), &[IoSlice::new(packet)], fds).unwrap();
    }

    pub fn send_control(&self, kind: PacketKind, fds: &[BorrowedFd<'_>]) {
        control::send(self.socket.as_fd(), kind, fds).unwrap();
    }

    /// Everything there is, an honest packet last. No error but the protocol's.
    pub fn drain(&self) -> Drained {
        let mut last = honest(b"honest");
        last[40..48].copy_from_slice(&clock::now().to_le_bytes());
        self.send(&last, &[]);
        let mut drained = Drained::default();
        for _ in 0..100_000 {
            match self.receiver.recv(soon()) {
                Ok(message) if message.payload() == b"honest" => return drained,
                Ok(message) => drained.messages.push(read(&message)),
                Err(Error::Protocol(_)) => drained.protocol_errors += 1,
                Err(Error::Disconnected) => panic!("disconnected while the socket is open"),
                Err(other) => panic!("{other:?} after {drained:?}"),
            }
        }
        panic!("the honest packet never comes");
    }

    /// The next call is refused, and the channel goes on.
    #[track_caller]
    pub fn refuses(&self, why: &str) {
        let drained = self.drain();
        assert!(
            drained.protocol_errors == 1 && drained.messages.is_empty(),
            "{why}: {drained:?}"
        );
    }
}

/// A message, read whole.
pub fn read(message: &Message) -> Vec<u8> {
    for (place, _) in &message.buffers {
        message
            .body
            .copy_out(place.start, &mut vec![0; place.len()]);
    }
    message.payload()
}

/// A packet or framed record with nothing but a payload.
pub fn honest(payload: &[u8]) -> Vec<u8> {
    framed(0, payload.len(), 0, payload)
}

/// A header with these counts, and a body.
pub fn framed(handles: u32, payload: usize, ticket: u64, body: &[u8]) -> Vec<u8> {
    let mut packet = header(PacketKind::Message).to_vec();
    packet[8..12].copy_from_slice(&handles.to_le_bytes());
    packet[24..32].copy_from_slice(&(payload as u64).to_le_bytes());
    packet[32..40].copy_from_slice(&(body.len() as u64).to_le_bytes());
    packet[48..56].copy_from_slice(&ticket.to_le_bytes());
    packet.extend(body);
    packet
}

/// One handle of that kind in a table.
pub fn entry(kind: u8, extra: u8) -> [u8; 8] {
    [kind, 0, extra, 0, 0, 0, 0, 0]
}

pub const RING: usize = 64 << 10;

/// A lane whose every word is ours to write.
pub struct Lane {
    pub file: OwnedFd,
    pub memory: Region,
    /// Ours, and the one that the receiver gets.
    pub connection: OwnedFd,
    pub theirs: OwnedFd,
    pub written: u64,
}

impl Lane {
    /// One ring of [`RING`] bytes.
    pub fn new() -> Lane {
        Lane::with_rings(1)
    }

    /// Several, one behind the other.
    pub fn with_rings(count: usize) -> Lane {
        let file = memory::create_growing("hostile-lane").unwrap();
        let size = layout::HEADER_LEN + count * RING;
        memory::grow(file.as_fd(), size as u64).unwrap();
        memory::allocate(file.as_fd(), 0, size as u64).unwrap();
        let memory = Region::map(file.as_fd(), 0, size).unwrap();
        let (connection, theirs) = socket::duplex_pair().unwrap();
        Lane {
            file,
            memory,
            connection,
            theirs,
            written: 0,
        }
    }

    /// Where an honest peer would let the receiver begin.
    pub fn place(&self) -> Place {
        Place {
            offset: layout::HEADER_LEN as u64,
            len: RING as u64,
            start: 0,
            read: 0,
            taken: 0,
            base: 0,
            bounded: false,
            pinned: false,
            once: false,
        }
    }

    pub fn announce(&self, victim: &Victim, place: &Place) {
        let fds = [self.theirs.as_fd(), self.file.as_fd()];
        control::send_place(victim.socket.as_fd(), PacketKind::Lane, place, &fds).unwrap();
    }

    /// A word of the header page.
    pub fn set(&self, word: usize, value: u64) {
        self.memory.word(word).store(value, Ordering::SeqCst);
    }

    /// Writes a record's first word and stamp at a place in the rings, and the body behind them.
    pub fn put(&self, at: usize, word: u64, stamp: u64, body: &[u8]) {
        let at = layout::HEADER_LEN + at;
        self.memory.word(at).store(word, Ordering::SeqCst);
        self.memory.word(at + 8).store(stamp, Ordering::SeqCst);
        self.memory.copy_in(at + layout::RECORD_HEADER, body);
    }

    /// Writes an honest record behind the last one.
    pub fn record(&mut self, kind: Kind, stamp: u64, body: &[u8]) {
        self.put(
            self.written as usize % RING,
            layout::pack(kind, 0, body.len()),
            stamp,
            body,
        );
        self.written += layout::record_len(0, body.len()) as u64;
    }

    /// A SWITCH behind the last record.
    pub fn switch(&mut self, offset: u64, len: u64, flags: u64) {
        let body = [offset, len, flags, 0].map(u64::to_le_bytes).concat();
        self.record(Kind::Switch, 0, &body);
    }

    /// Publishes everything that was written, and rings.
    pub fn publish(&self) {
        self.set(layout::TAIL, self.written);
        self.ring();
    }

    pub fn ring(&self) {
        let _ = control::ring(self.connection.as_fd());
    }
}

/// A receiver that has got a sender's lane, and does with it as it likes.
pub struct HostileReceiver {
    pub header: Region,
    pub file: OwnedFd,
    pub connection: OwnedFd,
    // Open as long as this lives.
    _receiver: Receiver,
}

impl HostileReceiver {
    /// Makes the sender open a lane, and takes it.
    pub fn of(sender: &Sender, receiver: Receiver) -> HostileReceiver {
        for _ in 0..3 {
            send(sender, &vec![1; 100_000], soon()).unwrap();
        }
        let socket = receiver.end().socket().unwrap();
        loop {
            let mut packet = [0; 256];
            let Peeked::Packet { fds, .. } = socket::peek(socket.as_fd(), &mut packet).unwrap()
            else {
                panic!("the sender has no lane");
            };
            socket::discard(socket.as_fd()).unwrap();
            if Header::read(&packet[..HEADER_LEN]).unwrap().kind == PacketKind::Lane {
                let [connection, file] = <[OwnedFd; 2]>::try_from(fds).unwrap();
                let header = Region::map(file.as_fd(), 0, layout::HEADER_LEN).unwrap();
                return HostileReceiver {
                    header,
                    file,
                    connection,
                    _receiver: receiver,
                };
            }
        }
    }

    pub fn set(&self, word: usize, value: u64) {
        self.header.word(word).store(value, Ordering::SeqCst);
    }
}

pub fn send(sender: &Sender, payload: &[u8], deadline: Deadline) -> Result<(), Error> {
    let outgoing = Outgoing::new(
        &Parcel {
            payload,
            ..Parcel::default()
        },
        None,
    )?;
    sender.publish(&outgoing, deadline)?;
    outgoing.delivered();
    Ok(())
}

/// A descriptor of each kind that no lane, door or link is.
pub fn strangers() -> Vec<(&'static str, OwnedFd)> {
    let file = fs::File::open("/proc/self/exe").unwrap();
    let directory = fs::File::open("/proc").unwrap();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let (stream, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let unsealed = memory::create("unsealed", 1 << 20).unwrap();
    let path = rustix::fs::open("/", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let epoll = ipc_channel_transport::os::poll::Epoll::new().unwrap();
    vec![
        ("file", file.into()),
        ("directory", directory.into()),
        ("pipe", reader),
        ("pipe for writing", writer),
        ("stream socket", stream.into()),
        ("other stream socket", other.into()),
        ("tcp listener", tcp.into()),
        ("unsealed memory", unsealed),
        ("path", path),
        ("epoll", descriptor::duplicate(epoll.as_fd()).unwrap()),
    ]
}

pub fn raw(fds: &[&OwnedFd]) -> Vec<RawFd> {
    fds.iter().map(|fd| fd.as_raw_fd()).collect()
}
