//! Forks of processes that have lanes. A child inherits all ends of the process: one test at a time.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(unsafe_code)]

mod ends;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ends::{LARGE, drain, in_time, laned_channel, moved_receiver, send, soon};
use ipc_channel_transport::os::{descriptor, socket};
use ipc_channel_transport::{Body, End, Error, channel, close_inherited};

fn alone(test: impl FnOnce() + Send + 'static) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    in_time(test);
}

/// A forked child.
struct Child(libc::pid_t);

impl Child {
    /// Its action uses this library and the allocator, and must not panic: that would wait for the locks of the
    /// test harness.
    fn run(action: impl FnOnce() -> bool) -> Child {
        // SAFETY: the locks of this library are free in the child, and libc makes the allocator usable there;
        // it leaves by _exit.
        match unsafe { libc::fork() } {
            -1 => panic!("fork failed"),
            0 => {
                // SAFETY: sets a timer that kills this process, should it hang.
                unsafe { libc::alarm(20) };
                let code = i32::from(!action());
                // SAFETY: ends this process without running the parent's destructors.
                unsafe { libc::_exit(code) }
            }
            pid => Child(pid),
        }
    }

    /// Waits for its end, and tells whether it succeeded.
    fn succeeds(self) -> bool {
        let mut status = 0;
        // SAFETY: waits for our own child.
        assert_eq!(unsafe { libc::waitpid(self.0, &mut status, 0) }, self.0);
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
    }
}

/// Breaks when the route's way to its receiver goes with the first of its ends.
#[test]
fn a_clone_sends_in_a_child_that_has_closed_all_else() {
    alone(|| {
        let (sender, receiver) = channel(0).unwrap();
        let clone = sender.duplicate().unwrap();
        let child = Child::run(|| {
            // All but the clone; and the receiver, which the parent keeps in any case.
            close_inherited(&[clone.end().id()]);
            sender.end().gone().is_some() && send(&clone, b"by the child").is_ok()
        });
        assert!(child.succeeds());
        assert_eq!(receiver.recv(soon()).unwrap().payload(), b"by the child");
    });
}

/// Breaks when the child shares the parent's lane, or when either is read ahead of the other.
#[test]
fn parent_and_child_send_in_turn() {
    const ROUNDS: u8 = 100;
    alone(|| {
        let (sender, receiver) = laned_channel();
        let (to_child, turn) = channel(0).unwrap();
        let (to_parent, answer) = channel(0).unwrap();
        let child = Child::run(|| {
            (0..ROUNDS).all(|round| {
                turn.recv(soon()).is_ok()
                    && send(&sender, &[round, 1]).is_ok()
                    && send(&to_parent, b"").is_ok()
            })
        });
        for round in 0..ROUNDS {
            send(&sender, &[round, 0]).unwrap();
            send(&to_child, b"").unwrap();
            answer.recv(soon()).unwrap();
        }
        assert!(child.succeeds());
        for round in 0..ROUNDS {
            for by in 0..2 {
                assert_eq!(receiver.recv(soon()).unwrap().payload(), [round, by]);
            }
        }
    });
}

/// Breaks when what came with a receiver is dropped in the child like what the parent uses.
#[test]
fn a_receiver_that_came_with_lanes_is_whoevers_receives_first() {
    alone(|| {
        let (sender, receiver) = laned_channel();
        send(&sender, b"in the lane").unwrap();
        let receiver = moved_receiver(&receiver);
        let child = Child::run(|| {
            receiver
                .recv(soon())
                .is_ok_and(|message| message.payload() == b"in the lane")
        });
        assert!(child.succeeds());
        assert!(matches!(receiver.try_recv(), Err(Error::Forked { .. })));
    });
}

/// Breaks when the parent tells the sender that memory is free which the child still reads.
#[test]
fn a_view_that_a_child_has_inherited_stays_as_it_is() {
    alone(|| {
        let (sender, receiver) = laned_channel();
        let (done, finished) = channel(0).unwrap();
        let content = vec![5; LARGE];
        send(&sender, &content).unwrap();
        let view = receiver.recv(soon()).unwrap();
        assert!(matches!(view.body, Body::Placed(_)));
        let child = Child::run(|| finished.recv(soon()).is_ok() && view.payload() == content);
        drop(view);
        for _ in 0..50 {
            send(&sender, &vec![9; LARGE]).unwrap();
            drain(&receiver);
        }
        send(&done, b"").unwrap();
        assert!(child.succeeds());
    });
}

/// Breaks when only a consumer that is there at the fork sees to it that its rings are not given back.
#[test]
fn views_that_outlive_their_consumer_stay_as_they_are_in_a_child() {
    const MANY: usize = 60;
    for closed in [false, true] {
        alone(move || {
            let (sender, receiver) = laned_channel();
            let (done, finished) = channel(0).unwrap();
            let content = |number: usize| vec![number as u8 + 1; LARGE];
            for number in 0..MANY {
                send(&sender, &content(number)).unwrap();
            }
            let views: Vec<_> = (0..MANY).map(|_| receiver.recv(soon()).unwrap()).collect();
            if closed {
                drop(receiver);
            } else {
                drop(sender);
                assert!(matches!(receiver.try_recv(), Err(Error::Disconnected)));
            }
            let child = Child::run(|| {
                let mut numbered = views.iter().enumerate();
                finished.recv(soon()).is_ok()
                    && numbered.all(|(number, view)| view.payload() == content(number))
            });
            drop(views);
            send(&done, b"").unwrap();
            assert!(child.succeeds(), "receiver closed: {closed}");
        });
    }
}

/// Breaks when a fork's preparations for one channel fail, or stop at the first of many.
#[test]
fn hundreds_of_idle_channels_work_in_parent_and_child() {
    alone(|| {
        let channels: Vec<_> = (0..200).map(|_| channel(0).unwrap()).collect();
        let child = Child::run(|| {
            let mut all = channels.iter();
            all.all(|(sender, _)| send(sender, b"by the child").is_ok())
        });
        assert!(child.succeeds());
        for (sender, receiver) in &channels {
            send(sender, b"by the parent").unwrap();
            assert_eq!(receiver.try_recv().unwrap().payload(), b"by the child");
            assert_eq!(receiver.try_recv().unwrap().payload(), b"by the parent");
            assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
        }
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        let count = channels.len();
        drop(channels);
        assert!(before - descriptors() >= 2 * count);
    });
}

/// Breaks when the last end is dropped under the registry's lock, or the fork waits for one who waits for it.
#[test]
fn forks_and_the_ends_of_ends_do_not_wait_for_each_other() {
    alone(|| {
        let stop = Arc::new(AtomicBool::new(false));
        let making = thread::spawn({
            let stop = stop.clone();
            move || {
                let (socket, _other) = socket::pair().unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let twin = descriptor::duplicate(socket.as_fd()).unwrap();
                    drop(End::new(Arc::new(twin), None));
                }
            }
        });
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            assert!(Child::run(|| true).succeeds());
        }
        stop.store(true, Ordering::Relaxed);
        making.join().unwrap();
    });
}
