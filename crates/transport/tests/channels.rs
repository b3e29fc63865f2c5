//! A channel within one process: bytes, buffers, handles, ends of the stream.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use ipc_channel_transport::{
    Deadline, Error, Gone, Handle, HandleRef, Message, Outgoing, Parcel, Receiver, RegionView,
    Sender, SharedMemory, channel, wire,
};
use proptest::prelude::*;

fn send(sender: &Sender, parcel: &Parcel<'_>) -> Result<(), Error> {
    let outgoing = Outgoing::new(parcel, None)?;
    sender.publish(&outgoing, soon())?;
    outgoing.delivered();
    Ok(())
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn bytes(payload: &[u8]) -> Parcel<'_> {
    Parcel {
        payload,
        ..Parcel::default()
    }
}

fn take_senders(message: &mut Message) -> Vec<Sender> {
    std::mem::take(&mut message.handles)
        .into_iter()
        .map(|received| match received.handle {
            Handle::Sender(sender) => sender,
            other => panic!("a sender was sent, and {other:?} came"),
        })
        .collect()
}

fn only_receiver(message: &mut Message) -> Receiver {
    match message.handles.pop().map(|received| received.handle) {
        Some(Handle::Receiver(receiver)) => receiver,
        other => panic!("a receiver was sent, and {other:?} came"),
    }
}

#[test]
fn what_was_sent_precedes_the_end_of_the_stream() {
    let (sender, receiver) = channel(0).unwrap();
    send(&sender, &bytes(b"one")).unwrap();
    send(&sender, &bytes(b"")).unwrap();
    sender.end().close();
    assert_eq!(receiver.recv(soon()).unwrap().payload(), b"one");
    assert_eq!(receiver.recv(soon()).unwrap().payload(), b"");
    assert!(matches!(receiver.recv(soon()), Err(Error::Disconnected)));
    assert!(matches!(receiver.try_recv(), Err(Error::Disconnected)));
    assert!(receiver.poll(soon()).unwrap());
}

#[test]
fn every_size_around_a_packets_limit_arrives() {
    let (sender, receiver) = channel(0).unwrap();
    let limit = wire::native::MAX_INLINE;
    let content: Vec<u8> = (0..limit + 4096).map(|i| (i % 251) as u8).collect();
    for len in [0, 1, limit - 1, limit, limit + 1, limit + 4096] {
        send(&sender, &bytes(&content[..len])).unwrap();
        assert_eq!(receiver.recv(soon()).unwrap().payload(), &content[..len]);
    }
}

#[test]
fn a_full_socket_waits_and_loses_nothing() {
    let (sender, receiver) = channel(0).unwrap();
    let count = 2000u32;
    let reading = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        (0..count)
            .map(|_| receiver.recv(soon()).unwrap().payload().to_vec())
            .collect::<Vec<_>>()
    });
    for number in 0..count {
        send(&sender, &bytes(&number.to_le_bytes())).unwrap();
    }
    let numbers: Vec<u32> = reading
        .join()
        .unwrap()
        .iter()
        .map(|payload| u32::from_le_bytes(payload[..].try_into().unwrap()))
        .collect();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
}

#[test]
fn a_send_that_fails_leaves_its_handles_untouched() {
    let (sender, receiver) = channel(0).unwrap();
    let (inner_sender, inner_receiver) = channel(0).unwrap();
    receiver.end().close();
    let parcel = Parcel {
        handles: vec![
            (HandleRef::Sender(&inner_sender), 0),
            (HandleRef::Receiver(&inner_receiver), 0),
        ],
        ..Parcel::default()
    };
    assert!(matches!(send(&sender, &parcel), Err(Error::ReceiverGone)));
    send(&inner_sender, &bytes(b"still here")).unwrap();
    assert_eq!(
        inner_receiver.recv(soon()).unwrap().payload(),
        b"still here"
    );
}

#[test]
fn ends_move_with_what_is_queued() {
    let (sender, receiver) = channel(0).unwrap();
    let (inner_sender, inner_receiver) = channel(0).unwrap();
    send(&inner_sender, &bytes(b"queued")).unwrap();
    let parcel = Parcel {
        handles: vec![(HandleRef::Receiver(&inner_receiver), 7)],
        ..Parcel::default()
    };
    send(&sender, &parcel).unwrap();
    assert_eq!(inner_receiver.end().gone(), Some(Gone::Sent));
    let mut message = receiver.recv(soon()).unwrap();
    assert_eq!(message.handles[0].label, 7);
    let moved = only_receiver(&mut message);
    assert_eq!(moved.recv(soon()).unwrap().payload(), b"queued");
    drop(inner_sender);
    assert!(matches!(moved.recv(soon()), Err(Error::Disconnected)));
}

#[test]
fn one_sender_may_occur_several_times_and_one_receiver_may_not() {
    let (sender, receiver) = channel(0).unwrap();
    let (inner_sender, inner_receiver) = channel(0).unwrap();
    let parcel = Parcel {
        handles: vec![(HandleRef::Sender(&inner_sender), 0); 3],
        ..Parcel::default()
    };
    send(&sender, &parcel).unwrap();
    let senders = take_senders(&mut receiver.recv(soon()).unwrap());
    for (index, sender) in senders.iter().enumerate() {
        send(sender, &bytes(&[index as u8])).unwrap();
        assert_eq!(
            inner_receiver.recv(soon()).unwrap().payload(),
            [index as u8]
        );
    }
    let parcel = Parcel {
        handles: vec![(HandleRef::Receiver(&inner_receiver), 0); 2],
        ..Parcel::default()
    };
    assert!(matches!(send(&sender, &parcel), Err(Error::ReceiverTwice)));
    assert_eq!(inner_receiver.end().gone(), None);
}

#[test]
fn handles_beyond_a_packets_limit_arrive_in_order() {
    let (sender, receiver) = channel(0).unwrap();
    for count in [249, 250, 251, 253, 254, 506, 600] {
        let pairs: Vec<_> = (0..count).map(|_| channel(0).unwrap()).collect();
        let parcel = Parcel {
            handles: pairs
                .iter()
                .map(|(s, _)| (HandleRef::Sender(s), 0))
                .collect(),
            ..Parcel::default()
        };
        send(&sender, &parcel).unwrap();
        let senders = take_senders(&mut receiver.recv(soon()).unwrap());
        assert_eq!(senders.len(), count);
        for (index, sender) in senders.iter().enumerate() {
            send(sender, &bytes(&(index as u32).to_le_bytes())).unwrap();
        }
        for (index, (_, receiver)) in pairs.iter().enumerate() {
            let message = receiver.recv(soon()).unwrap();
            assert_eq!(message.payload(), (index as u32).to_le_bytes());
        }
    }
}

#[test]
fn memory_is_frozen_by_its_first_send() {
    let (sender, receiver) = channel(0).unwrap();
    let region = Arc::new(SharedMemory::create(10, false).unwrap());
    let parcel = Parcel {
        handles: vec![(HandleRef::Memory(&region), 0)],
        ..Parcel::default()
    };
    region.view().unwrap();
    assert!(matches!(send(&sender, &parcel), Err(Error::ViewsExist(_))));
    assert!(matches!(receiver.try_recv(), Err(Error::Empty)));
    region.release();
    send(&sender, &parcel).unwrap();
    let mut message = receiver.recv(soon()).unwrap();
    let Some(Handle::Memory(received)) = message.handles.pop().map(|r| r.handle) else {
        panic!("shared memory was sent")
    };
    assert!(region.is_frozen() && received.is_frozen() && !received.is_mutable());
    assert!(rustix::io::pwrite(received.file().as_fd(), b"x", 0).is_err());
    assert!(rustix::fs::ftruncate(received.file().as_fd(), 0).is_err());
}

#[test]
fn closing_wakes_who_waits_and_leaves_no_alarm_behind() {
    let (_sender, receiver) = channel(0).unwrap();
    let receiver = Arc::new(receiver);
    let (report, reports) = mpsc::channel();
    thread::spawn({
        let receiver = receiver.clone();
        move || {
            let outcome = receiver.recv(Deadline::NEVER);
            // The same thread's next wait must last until its own deadline.
            let (_other_sender, other) = channel(0).unwrap();
            let next = other.recv(Deadline::after(Duration::from_millis(30)));
            // Nobody listens any more once the test has given up.
            let _ = report.send((outcome, next));
        }
    });
    thread::sleep(Duration::from_millis(50));
    receiver.end().close();
    let woken = reports.recv_timeout(Duration::from_secs(20));
    let (outcome, next) = woken.expect("the thread should have been woken");
    assert!(
        matches!(outcome, Err(Error::Gone(Gone::Closed))),
        "{outcome:?}"
    );
    assert!(matches!(next, Err(Error::TimedOut)), "{next:?}");
}

#[test]
fn threads_that_share_a_receiver_get_every_message_once() {
    let (sender, receiver) = channel(0).unwrap();
    let receiver = Arc::new(receiver);
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let receiver = receiver.clone();
            thread::spawn(move || {
                let mut got = Vec::new();
                while let Ok(message) = receiver.recv(soon()) {
                    got.push(u32::from_le_bytes(message.payload().try_into().unwrap()));
                }
                got
            })
        })
        .collect();
    for number in 0..4000u32 {
        send(&sender, &bytes(&number.to_le_bytes())).unwrap();
    }
    drop(sender);
    let mut all: Vec<u32> = readers
        .into_iter()
        .flat_map(|r| r.join().unwrap())
        .collect();
    all.sort_unstable();
    assert_eq!(all, (0..4000).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn payloads_and_buffers_arrive_as_they_were(
        payload in prop::collection::vec(any::<u8>(), 0..200_000),
        buffers in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..70_000), any::<bool>()), 0..6),
    ) {
        let (sender, receiver) = channel(0).unwrap();
        let parcel = Parcel {
            payload: &payload,
            buffers: buffers
                .iter()
                .map(|(bytes, readonly)| RegionView { bytes, readonly: *readonly })
                .collect(),
            handles: Vec::new(),
        };
        send(&sender, &parcel).unwrap();
        let message = receiver.recv(soon()).unwrap();
        prop_assert_eq!(message.payload(), &payload[..]);
        prop_assert_eq!(message.buffers.len(), buffers.len());
        for ((place, readonly), (bytes, sent_readonly)) in message.buffers.iter().zip(&buffers) {
            let mut got = vec![0; place.len()];
            message.body.copy_out(place.start, &mut got);
            prop_assert_eq!(&got[..], &bytes[..]);
            prop_assert_eq!(readonly, sent_readonly);
            prop_assert_eq!(place.start % 64, 0);
        }
    }
}
