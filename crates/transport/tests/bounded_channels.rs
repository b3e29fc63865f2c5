//! Many threads on a bounded channel.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ends;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ends::{at_once, in_time, send, send_until, send_with, soon};
use ipc_channel_transport::{Error, channel};

/// Breaks when the last end of a route is dropped under the route's lock, which its closing takes.
#[test]
fn clones_come_and_go_while_others_send() {
    in_time(|| {
        let (sender, receiver) = channel(4).unwrap();
        send(&sender, b"x").unwrap();
        receiver.recv(soon()).unwrap();
        let (sender, stop) = (Arc::new(sender), Arc::new(AtomicBool::new(false)));
        let until_stopped = |mut action: Box<dyn FnMut() + Send>| {
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    action();
                }
            })
        };
        // Here until all have stopped.
        let receiver = Arc::new(receiver);
        let (cloned, sending, receiving) = (sender.clone(), sender.clone(), receiver.clone());
        let threads = [
            until_stopped(Box::new(move || drop(cloned.duplicate().unwrap()))),
            until_stopped(Box::new(move || {
                match send_until(&sending, b"x", at_once()) {
                    Ok(()) | Err(Error::Full) => {}
                    Err(other) => panic!("{other:?}"),
                }
            })),
            until_stopped(Box::new(move || match receiving.try_recv() {
                Ok(_) | Err(Error::Empty) => {}
                Err(other) => panic!("{other:?}"),
            })),
        ];
        thread::sleep(Duration::from_secs(1));
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// Breaks when room is told to one who waits and has use for it no more, or a bell is heard on behalf of nobody.
#[test]
fn all_who_wait_for_room_get_it() {
    const SENDERS: usize = 4;
    const EACH: usize = 1000;
    in_time(|| {
        let (sender, receiver) = channel(1).unwrap();
        let clone = Arc::new(sender.duplicate().unwrap());
        let (sender, receiver) = (Arc::new(sender), Arc::new(receiver));
        let sending: Vec<_> = (0..SENDERS)
            .map(|nth| {
                let sender = if nth == 0 { &clone } else { &sender }.clone();
                thread::spawn(move || {
                    for _ in 0..EACH {
                        send_with(&sender, b"x", vec![], soon()).unwrap();
                    }
                })
            })
            .collect();
        drop((sender, clone));
        let receiving: Vec<_> = (0..2)
            .map(|_| {
                let receiver = receiver.clone();
                thread::spawn(move || {
                    let mut count = 0;
                    loop {
                        match receiver.recv(soon()) {
                            Ok(_) => count += 1,
                            Err(Error::Disconnected) => return count,
                            Err(other) => panic!("{other:?} after {count} messages"),
                        }
                    }
                })
            })
            .collect();
        for thread in sending {
            thread.join().unwrap();
        }
        let received: Vec<usize> = receiving
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(received.iter().sum::<usize>(), SENDERS * EACH);
    });
}
