//! Ends that are used, moved and given away as by several processes, in one.

#![allow(dead_code)] // Each test program uses a part of it.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ipc_channel_transport::{
    Deadline, Error, Handle, HandleRef, Message, Outgoing, Parcel, Receiver, Result, Sender,
    channel,
};

/// Large enough to be read where it lies, and to make a sender open a lane.
pub const LARGE: usize = 100_000;

/// After that a call hangs.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// The deadline of who does not wait.
pub fn at_once() -> Deadline {
    Deadline::after(Duration::ZERO)
}

/// Runs a test on a thread of its own: it fails if that does not come to its end.
#[track_caller]
pub fn in_time(test: impl FnOnce() + Send + 'static) {
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
}

/// Sends a payload the short way if there is one, as users of this crate do.
pub fn send(sender: &Sender, payload: &[u8]) -> Result<()> {
    send_until(sender, payload, soon())
}

pub fn send_until(sender: &Sender, payload: &[u8], deadline: Deadline) -> Result<()> {
    if sender.send_plain(payload)? {
        return Ok(());
    }
    send_with(sender, payload, vec![], deadline)
}

/// Sends a payload and handles the long way.
pub fn send_with(
    sender: &Sender,
    payload: &[u8],
    handles: Vec<HandleRef<'_>>,
    deadline: Deadline,
) -> Result<()> {
    let parcel = Parcel {
        payload,
        handles: handles.into_iter().map(|handle| (handle, 0)).collect(),
        ..Parcel::default()
    };
    let outgoing = Outgoing::new(&parcel, Some(sender))?;
    sender.publish(&outgoing, deadline)?;
    outgoing.delivered();
    Ok(())
}

/// A message that carries one handle and is not sent yet.
pub fn laid_out(handle: HandleRef<'_>) -> Outgoing<'_> {
    let parcel = Parcel {
        handles: vec![(handle, 0)],
        ..Parcel::default()
    };
    Outgoing::new(&parcel, None).unwrap()
}

pub fn only_sender(mut message: Message) -> Sender {
    match message.handles.pop().map(|received| received.handle) {
        Some(Handle::Sender(sender)) => sender,
        other => panic!("a sender was sent, and {other:?} came"),
    }
}

pub fn only_receiver(mut message: Message) -> Receiver {
    match message.handles.pop().map(|received| received.handle) {
        Some(Handle::Receiver(receiver)) => receiver,
        other => panic!("a receiver was sent, and {other:?} came"),
    }
}

/// Sends a handle through a channel made for that.
fn carried(handle: HandleRef<'_>) -> Message {
    let (carrier, arrival) = channel(0).unwrap();
    send_with(&carrier, b"", vec![handle], soon()).unwrap();
    arrival.recv(soon()).unwrap()
}

/// The receiver, as the process has it that it was sent to.
pub fn moved_receiver(receiver: &Receiver) -> Receiver {
    only_receiver(carried(HandleRef::Receiver(receiver)))
}

/// The sender, as the process has it that it was sent to.
pub fn moved_sender(sender: &Sender) -> Sender {
    only_sender(carried(HandleRef::Sender(sender)))
}

/// A sender of the same channel, as another process has it that was sent a clone.
pub fn foreign_sender(sender: &Sender) -> Sender {
    moved_sender(&sender.duplicate().unwrap())
}

/// Makes the sender open a lane, and takes all that this takes.
pub fn open_lane(sender: &Sender, receiver: &Receiver) {
    let large = vec![1; LARGE];
    for _ in 0..100 {
        if sender.lane().is_some() {
            break;
        }
        send(sender, &large).unwrap();
    }
    assert!(sender.lane().is_some(), "the sender opens no lane");
    drain(receiver);
}

/// A channel whose sender has an empty lane.
pub fn laned_channel() -> (Sender, Receiver) {
    let (sender, receiver) = channel(0).unwrap();
    open_lane(&sender, &receiver);
    (sender, receiver)
}

/// Takes all there is, and returns how many that were.
pub fn drain(receiver: &Receiver) -> usize {
    let mut count = 0;
    loop {
        match receiver.try_recv() {
            Ok(_) => count += 1,
            Err(Error::Empty | Error::Disconnected) => return count,
            Err(other) => panic!("{other:?} after {count} messages"),
        }
    }
}
