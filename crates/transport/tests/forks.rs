//! Forks while other threads are in the middle of things.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ipc_channel_transport::os::fork::generation;
use ipc_channel_transport::os::poll::{Interest, is_ready};
use ipc_channel_transport::{
    Deadline, Error, Outgoing, Parcel, Receiver, ReceiverSet, Sender, channel, close_inherited,
};

fn send(sender: &Sender, payload: &[u8]) -> Result<(), Error> {
    let outgoing = Outgoing::new(
        &Parcel {
            payload,
            ..Parcel::default()
        },
        None,
    )?;
    sender.publish(&outgoing, soon())?;
    outgoing.delivered();
    Ok(())
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn exchange(sender: &Sender, receiver: &Receiver) {
    send(sender, b"x").unwrap();
    assert_eq!(receiver.recv(soon()).unwrap().payload(), b"x");
}

/// Runs `action` in a forked child and returns whether it succeeded within its time.
fn in_child(action: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child uses only this library, whose locks are free in it, and the allocator, which libc
    // makes usable in forked children; it leaves by _exit.
    match unsafe { libc::fork() } {
        -1 => panic!("fork failed"),
        0 => {
            // SAFETY: sets a timer that kills this process, should it hang.
            unsafe { libc::alarm(20) };
            // A panic's message would wait for the test harness's locks, which other threads may have held.
            std::panic::set_hook(Box::new(|info| {
                let text = format!("in the child: {info}\n");
                // SAFETY: writes bytes of ours.
                unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
            }));
            let succeeded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(action));
            let code = i32::from(!succeeded.unwrap_or(false));
            // SAFETY: ends this process without running the parent's destructors.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for our own child.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
        }
    }
}

#[test]
fn no_lock_is_left_locked_in_a_child() {
    let stop = Arc::new(AtomicBool::new(false));
    let (shared_sender, shared_receiver) = channel(0).unwrap();
    exchange(&shared_sender, &shared_receiver);
    let shared = Arc::new((shared_sender, shared_receiver));
    let busy: Vec<_> = (0..3)
        .map(|_| {
            let (stop, shared) = (stop.clone(), shared.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let (sender, receiver) = channel(0).unwrap();
                    exchange(&sender, &receiver);
                    drop(send(&shared.0, b"shared"));
                    drop(shared.1.try_recv());
                }
            })
        })
        .collect();
    for _ in 0..200 {
        assert!(in_child(|| {
            // Another's receiver: its lock must be free, and it is not ours.
            let foreign = matches!(shared.1.try_recv(), Err(Error::Forked { .. }));
            let (sender, receiver) = channel(0).unwrap();
            send(&sender, b"in the child").unwrap();
            foreign && receiver.recv(soon()).unwrap().payload() == b"in the child"
        }));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in busy {
        thread.join().unwrap();
    }
}

#[test]
fn a_receiver_belongs_to_the_process_that_first_receives() {
    let (sender, receiver) = channel(0).unwrap();
    send(&sender, b"one").unwrap();
    assert!(in_child(
        || receiver.recv(soon()).unwrap().payload() == b"one"
    ));
    send(&sender, b"two").unwrap();
    assert!(matches!(receiver.try_recv(), Err(Error::Forked { .. })));
    assert!(matches!(receiver.poll(soon()), Err(Error::Forked { .. })));
    assert!(matches!(receiver.begin_move(), Err(Error::Forked { .. })));
    assert_eq!(receiver.end().gone(), None);
}

#[test]
fn a_moved_receiver_is_not_the_childs_either() {
    let (sender, receiver) = channel(0).unwrap();
    let moving = receiver.begin_move().unwrap();
    // A child forked in the middle of a move finds it moving; one forked before it, claimed.
    drop(moving);
    exchange(&sender, &receiver);
    assert!(in_child(|| matches!(
        receiver.try_recv(),
        Err(Error::Forked { .. })
    )));
    exchange(&sender, &receiver);
}

#[test]
fn a_child_has_another_generation() {
    let ours = generation();
    assert!(in_child(|| generation() != ours));
    assert_eq!(generation(), ours);
}

#[test]
fn a_child_that_closes_what_it_inherited_lets_streams_end() {
    let (sender, receiver) = channel(0).unwrap();
    let (kept, reply) = channel(0).unwrap();
    assert!(in_child(|| {
        let closed = close_inherited(&[kept.end().id(), receiver.end().id()]);
        let gone = sender.end().gone().is_some() && reply.end().gone().is_some();
        closed >= 2 && gone && kept.end().gone().is_none() && send(&kept, b"kept").is_ok()
    }));
    assert_eq!(reply.recv(soon()).unwrap().payload(), b"kept");
    assert_eq!(sender.end().gone(), None);
}

#[test]
fn a_set_is_not_the_childs() {
    let set = ReceiverSet::new().unwrap();
    let (sender, receiver) = channel(0).unwrap();
    set.add(&receiver).unwrap();
    assert!(in_child(|| {
        let refused = matches!(set.select(soon()), Err(Error::Forked { .. }));
        set.close();
        refused
    }));
    send(&sender, b"x").unwrap();
    assert_eq!(set.select(soon()).unwrap().len(), 1);
}

/// Runs `during` while another thread waits on `receiver`.
fn while_waiting(receiver: Receiver, timeout: Duration, during: impl FnOnce(&Receiver)) -> Error {
    let receiver = Arc::new(receiver);
    let waiting = thread::spawn({
        let receiver = receiver.clone();
        move || receiver.recv(Deadline::after(timeout))
    });
    thread::sleep(Duration::from_millis(100));
    during(&receiver);
    match waiting.join().unwrap() {
        Ok(message) => panic!("nothing was sent, and {message:?} came"),
        Err(error) => error,
    }
}

#[test]
fn a_child_that_closes_its_copy_does_not_wake_the_parent() {
    let (_sender, receiver) = channel(0).unwrap();
    let fileno = receiver.end().fileno(Interest::Readable).unwrap();
    let outcome = while_waiting(receiver, Duration::from_millis(300), |receiver| {
        assert!(in_child(|| {
            receiver.end().close();
            true
        }));
        // SAFETY: the end is open, and so is its descriptor.
        let readiness = unsafe { BorrowedFd::borrow_raw(fileno) };
        assert!(!is_ready(readiness, Interest::Readable).unwrap());
    });
    // A counter that went on ringing would never let the deadline be looked at.
    assert!(matches!(outcome, Error::TimedOut), "{outcome:?}");
}

#[test]
fn close_inherited_closes_what_the_parents_threads_were_using() {
    let (sender, receiver) = channel(0).unwrap();
    let (report, reported) = channel(0).unwrap();
    let (hold, held) = channel(0).unwrap();
    while_waiting(receiver, Duration::from_millis(300), |_| {
        // SAFETY: as in `in_child`; this child outlives the closure, so it is made by hand.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: kills this process, should it hang.
            unsafe { libc::alarm(20) };
            close_inherited(&[report.end().id(), held.end().id()]);
            let closed = send(&report, b"closed").is_ok();
            let released = matches!(held.recv(soon()), Err(Error::Disconnected));
            // SAFETY: ends this process without running the parent's destructors.
            unsafe { libc::_exit(i32::from(!(closed && released))) };
        }
        assert_eq!(reported.recv(soon()).unwrap().payload(), b"closed");
    });
    // Only the child could still hold the receiver, through the socket its parent's thread was using.
    assert!(matches!(send(&sender, b"x"), Err(Error::ReceiverGone)));
    drop(hold);
}

#[test]
fn closing_a_set_wakes_every_thread_that_selects() {
    for _ in 0..50 {
        let set = Arc::new(ReceiverSet::new().unwrap());
        let (_sender, receiver) = channel(0).unwrap();
        set.add(&receiver).unwrap();
        let selecting: Vec<_> = (0..3)
            .map(|_| {
                let set = set.clone();
                thread::spawn(move || set.select(soon()))
            })
            .collect();
        thread::sleep(Duration::from_millis(2));
        set.close();
        for thread in selecting {
            let outcome = thread.join().unwrap();
            assert!(matches!(outcome, Err(Error::Gone(_))), "{outcome:?}");
        }
    }
}
