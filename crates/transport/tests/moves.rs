//! Ends that are given away while something is in their lanes, or while others use them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ends;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ends::{
    LARGE, drain, foreign_sender, in_time, laid_out, laned_channel, moved_receiver, only_receiver,
    only_sender, open_lane, send, send_until, send_with, soon,
};
use ipc_channel_transport::{
    Body, Error, Event, Gone, HandleRef, Receiver, ReceiverSet, Result, Taken, channel,
};

/// Breaks when what is held of a lane is forgotten with the move: its memory is written to again.
#[test]
fn a_view_stays_as_it_is_when_the_receiver_has_left() {
    in_time(|| {
        let (sender, receiver) = laned_channel();
        let content: Vec<u8> = (0..2 * LARGE).map(|i| (i % 251) as u8).collect();
        send(&sender, &content).unwrap();
        let view = receiver.recv(soon()).unwrap();
        assert!(matches!(view.body, Body::Placed(_)));
        let receiver = moved_receiver(&receiver);
        let other = vec![0xff; LARGE];
        for round in 0..200 {
            send(&sender, &other).unwrap();
            if round % 3 == 2 {
                drain(&receiver);
            }
            assert!(
                view.payload() == content,
                "after {round} more it is another"
            );
        }
        drain(&receiver);
        send(&sender, &vec![7; 5_000_000]).unwrap();
        drain(&receiver);
        assert!(view.payload() == content);
    });
}

/// Breaks when a receiver's lanes are looked at only after the first event: none comes.
#[test]
fn a_set_sees_what_is_in_the_lanes_of_a_receiver_that_came_in_a_message() {
    in_time(|| {
        let (sender, receiver) = laned_channel();
        send(&sender, b"in the lane").unwrap();
        let receiver = moved_receiver(&receiver);
        let set = ReceiverSet::new().unwrap();
        let token = set.add(&receiver).unwrap();
        let events = set.select(soon()).unwrap();
        assert!(
            matches!(&events[..], [(of, Event::Message(message))]
                if *of == token && message.payload() == b"in the lane"),
            "{events:?}"
        );
    });
}

/// Takes messages until the receiver is gone or has no more.
fn numbers(receiver: &Receiver, pause: Duration) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let taken = receiver.try_take(&mut |taken| {
            let begun = Instant::now();
            while begun.elapsed() < pause {
                std::hint::spin_loop();
            }
            Ok(match taken {
                Taken::Plain(plain) => plain.into_message(),
                Taken::Bytes(bytes) => unreachable!("{bytes:?} in a channel of our own"),
                Taken::Message(message) => message,
            })
        });
        match taken {
            Ok(message) => {
                all.push(u64::from_le_bytes(
                    message.payload()[..].try_into().unwrap(),
                ));
            }
            Err(Error::Empty | Error::Disconnected | Error::Gone(_)) => return all,
            Err(other) => panic!("{other:?} after {} messages", all.len()),
        }
    }
}

/// Moves a receiver from under threads that take `count` messages, `pause` long each.
fn move_from_under_threads(count: u64, pause: Duration, before: Duration) {
    let (sender, receiver) = laned_channel();
    for number in 0..count {
        send(&sender, &number.to_le_bytes()).unwrap();
    }
    drop(sender);
    let receiver = Arc::new(receiver);
    let taking: Vec<_> = (0..3)
        .map(|_| {
            let receiver = receiver.clone();
            thread::spawn(move || numbers(&receiver, pause))
        })
        .collect();
    thread::sleep(before);
    let heir = moved_receiver(&receiver);
    let mut all = numbers(&heir, Duration::ZERO);
    assert!(matches!(heir.try_recv(), Err(Error::Disconnected)));
    for thread in taking {
        all.extend(thread.join().unwrap());
    }
    all.sort_unstable();
    assert!(
        all.iter().copied().eq(0..count),
        "{} messages came of {count}",
        all.len()
    );
}

fn moved_or_refused(receiver: &Receiver) -> Result<Receiver> {
    let (carrier, arrival) = channel(0)?;
    send_with(&carrier, b"", vec![HandleRef::Receiver(receiver)], soon())?;
    Ok(only_receiver(arrival.recv(soon())?))
}

/// Breaks when a thread takes a message after the lane's place has been packed: the heir has it again.
#[test]
fn a_message_goes_to_a_thread_here_or_with_the_receiver() {
    in_time(|| {
        for round in 0..40 {
            move_from_under_threads(4_000, Duration::ZERO, Duration::from_micros(round * 20));
        }
    });
}

/// Breaks when a move does not wait for a message that is being delivered.
#[test]
fn a_message_that_is_being_delivered_does_not_go_with_the_receiver() {
    in_time(|| {
        for round in 0..100 {
            let before = Duration::from_micros(round * 53 % 500);
            move_from_under_threads(200, Duration::from_micros(20), before);
        }
    });
}

/// Breaks when the loser of the two takes back, or takes along, what belongs to the winner.
#[test]
fn of_a_move_and_a_conversion_at_once_one_has_the_whole_receiver() {
    in_time(|| {
        for round in 0..1000 {
            let (sender, receiver) = laned_channel();
            send(&sender, b"x").unwrap();
            let receiver = Arc::new(receiver);
            let converting = thread::spawn({
                let receiver = receiver.clone();
                move || receiver.take(Gone::Converted)
            });
            for _ in 0..round % 300 {
                std::hint::spin_loop();
            }
            let moved = moved_or_refused(&receiver);
            let owner = match (moved, converting.join().unwrap()) {
                (Ok(heir), Err(_)) | (Err(_), Ok(heir)) => heir,
                both => panic!("round {round}: {both:?}"),
            };
            assert_eq!(owner.recv(soon()).unwrap().payload(), b"x", "round {round}");
            send(&sender, b"y").unwrap();
            assert_eq!(owner.recv(soon()).unwrap().payload(), b"y", "round {round}");
        }
    });
}

/// Breaks when the close tells the lanes' senders that nobody reads any more.
#[test]
fn a_receiver_that_is_closed_on_its_way_arrives() {
    in_time(|| {
        let (sender, receiver) = laned_channel();
        let (carrier, arrival) = channel(0).unwrap();
        let outgoing = laid_out(HandleRef::Receiver(&receiver));
        receiver.end().close();
        carrier.publish(&outgoing, soon()).unwrap();
        outgoing.delivered();
        let heir = only_receiver(arrival.recv(soon()).unwrap());
        send(&sender, b"x").unwrap();
        assert_eq!(heir.recv(soon()).unwrap().payload(), b"x");
    });
}

#[track_caller]
fn is_on_its_way<T: std::fmt::Debug>(outcome: Result<T>) {
    assert!(
        matches!(outcome, Err(Error::Gone(Gone::Sent))),
        "{outcome:?}"
    );
}

/// Breaks when only the sent message takes the sender away: what its new owner is told of it is not true then.
#[test]
fn the_only_sender_cannot_be_used_while_it_is_on_its_way() {
    let (sender, receiver) = channel(0).unwrap();
    let outgoing = laid_out(HandleRef::Sender(&sender));
    is_on_its_way(sender.send_plain(b"x"));
    is_on_its_way(send_until(&sender, b"x", soon()));
    is_on_its_way(sender.duplicate());
    is_on_its_way(sender.take(Gone::Converted));
    let (carrier, arrival) = channel(0).unwrap();
    carrier.publish(&outgoing, soon()).unwrap();
    outgoing.delivered();
    is_on_its_way(send(&sender, b"x"));
    let heir = only_sender(arrival.recv(soon()).unwrap());
    send(&heir, b"by the heir").unwrap();
    assert_eq!(receiver.recv(soon()).unwrap().payload(), b"by the heir");
    drop(heir);
    assert!(matches!(receiver.recv(soon()), Err(Error::Disconnected)));
}

/// Breaks when a failed send forgets the senders that it had set aside.
#[test]
fn a_sender_whose_message_is_not_sent_is_usable_again() {
    let (sender, receiver) = channel(0).unwrap();
    let (carrier, arrival) = channel(0).unwrap();
    drop(arrival);
    let outcome = send_with(&carrier, b"", vec![HandleRef::Sender(&sender)], soon());
    assert!(matches!(outcome, Err(Error::ReceiverGone)), "{outcome:?}");
    assert_eq!(sender.end().gone(), None);
    let clone = sender.duplicate().unwrap();
    open_lane(&clone, &receiver);
    send(&sender, b"1").unwrap();
    send(&clone, b"2").unwrap();
    assert_eq!(receiver.recv(soon()).unwrap().payload(), b"1");
    assert_eq!(receiver.recv(soon()).unwrap().payload(), b"2");
}

/// Breaks when the lane of the clone that stays is read ahead of what the one that left has sent.
#[test]
fn a_clone_that_stays_and_the_sender_that_leaves_keep_their_order() {
    in_time(|| {
        let (sender, receiver) = channel(0).unwrap();
        let stays = sender.duplicate().unwrap();
        let outgoing = laid_out(HandleRef::Sender(&sender));
        open_lane(&stays, &receiver);
        let (carrier, arrival) = channel(0).unwrap();
        carrier.publish(&outgoing, soon()).unwrap();
        outgoing.delivered();
        let heir = only_sender(arrival.recv(soon()).unwrap());
        for number in 0..10u8 {
            let by = if number % 2 == 0 { &heir } else { &stays };
            send(by, &[number]).unwrap();
        }
        for number in 0..10u8 {
            assert_eq!(receiver.recv(soon()).unwrap().payload(), [number]);
        }
    });
}

/// Breaks when the new owner believes in room that the clone has filled since the message was laid out.
#[test]
fn a_sender_that_leaves_behind_a_full_socket_never_waits() {
    in_time(|| {
        let (sender, receiver) = channel(0).unwrap();
        let stays = sender.duplicate().unwrap();
        let outgoing = laid_out(HandleRef::Sender(&sender));
        let slowly = |by: &_| {
            // A burst would be sent by a lane.
            thread::sleep(Duration::from_micros(150));
            send_with(by, b"x", vec![], ends::at_once()).unwrap();
        };
        for _ in 0..180 {
            slowly(&stays);
        }
        let (carrier, arrival) = channel(0).unwrap();
        carrier.publish(&outgoing, soon()).unwrap();
        outgoing.delivered();
        let heir = only_sender(arrival.recv(soon()).unwrap());
        for _ in 0..500 {
            slowly(&heir);
        }
        assert_eq!(drain(&receiver), 680);
    });
}

/// Breaks when a lane's place goes with only one of several moves.
#[test]
fn lanes_follow_a_receiver_however_often_it_moves() {
    in_time(|| {
        let (sender, mut receiver) = laned_channel();
        let other = foreign_sender(&sender);
        open_lane(&other, &receiver);
        for number in 0..50u64 {
            for by in [&sender, &other] {
                send(by, &number.to_le_bytes()).unwrap();
            }
            // In transit twice, and not used between.
            receiver = moved_receiver(&moved_receiver(&receiver));
            if number % 2 == 1 {
                for expected in [number - 1, number - 1, number, number] {
                    let message = receiver.recv(soon()).unwrap();
                    assert_eq!(message.payload(), expected.to_le_bytes());
                }
            }
        }
    });
}
