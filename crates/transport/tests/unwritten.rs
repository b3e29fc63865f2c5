//! What the process holds for Rust programs when it comes to its end. All of it counts: one test at a time.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(unsafe_code)]

mod ends;

use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ends::{at_once, in_time, moved_receiver, send, send_with, soon};
use ipc_channel_transport::frames::{Unwritten, held};
use ipc_channel_transport::os::descriptor;
use ipc_channel_transport::wire::rust::Version;
use ipc_channel_transport::{Error, Gone, HandleRef, Receiver, Sender, channel, channel_of_frames};

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // That the receivers of the test before are gone is noticed by another thread.
    Unwritten::now().wait(soon()).unwrap();
    alone
}

const COUNT: usize = 1000;

/// A channel of which this process holds messages.
fn holding() -> (Sender, Receiver) {
    let (sender, receiver) = channel_of_frames(Version::Current).unwrap();
    hold(&sender);
    (sender, receiver)
}

fn hold(sender: &Sender) {
    for _ in 0..COUNT {
        send(sender, &[0; 100]).unwrap();
    }
    assert!(sender.lane().is_some());
}

fn is_waited_for() -> bool {
    let waited = Unwritten::now().wait(at_once());
    let waits = match waited {
        Ok(()) => false,
        Err(Error::TimedOut) => true,
        Err(error) => panic!("{error:?}"),
    };
    assert_eq!(waits, !held().is_empty());
    waits
}

/// Runs `check` in a forked child, and returns what it says.
fn in_child(check: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child uses only this library, whose locks are free in it, and the allocator, which libc makes
    // usable in forked children; it leaves by _exit.
    match unsafe { libc::fork() } {
        -1 => panic!("fork failed"),
        0 => {
            // SAFETY: sets a timer that kills this process, should it hang.
            unsafe { libc::alarm(20) };
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
            let code = outcome.map_or(2, i32::from);
            // SAFETY: ends this process without running the parent's destructors.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for our own child.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) < 2);
            libc::WEXITSTATUS(status) == 1
        }
    }
}

#[test]
fn what_only_this_process_could_receive_is_not_waited_for() {
    let _alone = alone();
    let (sender, receiver) = holding();
    assert!(!is_waited_for());
    let twin = sender.duplicate().unwrap();
    drop(sender);
    assert!(!is_waited_for());
    drop(receiver.take(Gone::Converted).unwrap());
    // Nobody can receive it, which another thread notices.
    Unwritten::now().wait(soon()).unwrap();
    assert!(!is_waited_for());
    drop(twin);
}

#[test]
fn what_a_receiver_that_has_moved_can_receive_is_waited_for() {
    let _alone = alone();
    in_time(|| {
        let (_sender, receiver) = holding();
        let receiver = receiver.take(Gone::Converted).unwrap();
        assert!(!is_waited_for());
        let moved = moved_receiver(&receiver);
        assert!(is_waited_for());
        for _ in 0..COUNT {
            moved.recv(soon()).unwrap();
        }
        Unwritten::now().wait(soon()).unwrap();
    });
}

#[test]
fn a_receiver_that_was_closed_says_nothing_of_who_else_has_its_socket() {
    let _alone = alone();
    let (_sender, receiver) = holding();
    let socket = receiver.end().socket().unwrap();
    let _elsewhere = descriptor::duplicate(socket.as_fd()).unwrap();
    drop(socket);
    receiver.end().close();
    assert!(is_waited_for());
}

#[test]
fn a_move_that_fails_changes_nothing() {
    let _alone = alone();
    let (_sender, receiver) = holding();
    let (carrier, gone) = channel(0).unwrap();
    drop(gone);
    let refused = send_with(&carrier, b"", vec![HandleRef::Receiver(&receiver)], soon());
    assert!(matches!(refused, Err(Error::ReceiverGone)), "{refused:?}");
    assert!(!is_waited_for());
}

#[test]
fn a_receiver_that_a_fork_has_shared_may_be_the_childs() {
    let _alone = alone();
    let (_sender, receiver) = holding();
    assert!(!is_waited_for());
    in_child(|| true);
    assert!(is_waited_for(), "the child might have received");
    assert!(receiver.try_recv().is_ok());
    assert!(!is_waited_for(), "the receiver is this process's");
}

#[test]
fn a_receiver_that_the_child_uses_is_not_the_parents() {
    let _alone = alone();
    let (_sender, receiver) = holding();
    assert!(in_child(|| receiver.try_recv().is_ok()));
    assert!(is_waited_for());
}

#[test]
fn a_child_that_sends_waits_for_its_parent() {
    let _alone = alone();
    let (sender, receiver) = channel_of_frames(Version::Current).unwrap();
    assert!(in_child(|| {
        hold(&sender);
        is_waited_for()
    }));
    assert!(receiver.try_recv().is_ok());
    assert!(in_child(|| {
        hold(&sender);
        is_waited_for()
    }));
}

#[test]
fn what_is_sent_meanwhile_is_not_waited_for() {
    let _alone = alone();
    in_time(|| {
        let (sender, receiver) = holding();
        let receiver = moved_receiver(&receiver);
        let unwritten = Unwritten::now();
        for _ in 0..5 {
            hold(&sender);
        }
        for _ in 0..COUNT {
            receiver.recv(soon()).unwrap();
        }
        unwritten.wait(soon()).unwrap();
        assert!(sender.lane().unwrap().backlog > 0);
    });
}
