//! The order of messages that come by different ways.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ends;
mod hostile;

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

use hostile::{Lane, Victim, contained, honest, soon};
use ipc_channel_transport::lane::layout::Kind;
use ipc_channel_transport::os::{clock, socket};
use ipc_channel_transport::wire::control;
use ipc_channel_transport::wire::native::PacketKind;
use ipc_channel_transport::{channel, door};

fn send(socket: &OwnedFd, payload: &[u8]) {
    let mut packet = honest(payload);
    packet[40..48].copy_from_slice(&clock::now().to_le_bytes());
    socket::send(socket.as_fd(), &[IoSlice::new(&packet)], &[]).unwrap();
}

fn expect(victim: &Victim, messages: &[&[u8]]) {
    for expected in messages {
        assert_eq!(victim.receiver.recv(soon()).unwrap().payload(), *expected);
    }
}

#[test]
fn what_came_by_a_door_goes_before_what_was_sent_later_behind_the_doors_announcement() {
    contained(|| {
        let victim = Victim::new();
        let (listening, place) = door::make().unwrap();
        victim.send_control(PacketKind::Door, &[listening.as_fd()]);
        let connection = door::connect(place.as_fd()).unwrap();
        send(&connection, b"first");
        send(&victim.socket, b"second");
        expect(&victim, &[b"first", b"second"]);
    });
}

#[test]
fn what_is_in_a_lane_goes_before_what_was_sent_later_behind_the_lanes_announcement() {
    contained(|| {
        let victim = Victim::new();
        let mut lane = Lane::new();
        lane.announce(&victim, &lane.place());
        lane.record(Kind::Plain, clock::now(), b"first");
        lane.publish();
        send(&victim.socket, b"second");
        expect(&victim, &[b"first", b"second"]);
    });
}

#[test]
fn what_is_in_a_lane_announced_behind_a_door_goes_before_what_was_sent_later() {
    contained(|| {
        let victim = Victim::new();
        let (listening, place) = door::make().unwrap();
        victim.send_control(PacketKind::Door, &[listening.as_fd()]);
        victim.drain();
        let connection = door::connect(place.as_fd()).unwrap();
        let mut lane = Lane::new();
        control::send_place(
            connection.as_fd(),
            PacketKind::Lane,
            &lane.place(),
            &[lane.file.as_fd()],
        )
        .unwrap();
        lane.record(Kind::Plain, clock::now(), b"first");
        lane.publish();
        control::ring(connection.as_fd()).unwrap();
        send(&victim.socket, b"second");
        expect(&victim, &[b"first", b"second"]);
    });
}

/// Breaks when a lane in which something unread is known of is not asked how far it is by now.
#[test]
fn what_is_in_a_lane_behind_a_record_known_of_goes_before_what_was_sent_later_elsewhere() {
    contained(|| {
        let victim = Victim::new();
        let mut lanes = [Lane::new(), Lane::new()];
        for lane in &mut lanes {
            lane.announce(&victim, &lane.place());
        }
        let [first, other] = &mut lanes;
        first.record(Kind::Plain, clock::now(), b"1");
        first.publish();
        other.record(Kind::Plain, clock::now(), b"2");
        other.publish();
        expect(&victim, &[b"1", b"2"]);
        first.record(Kind::Plain, clock::now(), b"3");
        first.publish();
        assert!(victim.receiver.has_news());
        first.record(Kind::Plain, clock::now(), b"4");
        first.publish();
        other.record(Kind::Plain, clock::now(), b"5");
        other.publish();
        expect(&victim, &[b"3", b"4", b"5"]);
    });
}

/// Breaks when the lane that gives one message after the other is not stopped by what is first elsewhere.
#[test]
fn lanes_whose_messages_alternate_give_them_by_turns() {
    contained(|| {
        let victim = Victim::new();
        let mut lanes = [Lane::new(), Lane::new(), Lane::new()];
        for lane in &mut lanes {
            lane.announce(&victim, &lane.place());
        }
        for round in 0..4 {
            // How many of each lane come one after the other.
            let rows = [[1, 1, 1], [3, 1, 2], [1, 0, 5], [0, 4, 1]][round];
            // Each is as long as its number says.
            let mut sent = 0;
            for _ in 0..20 {
                for (lane, count) in lanes.iter_mut().zip(rows) {
                    for _ in 0..count {
                        lane.record(Kind::Plain, clock::now(), &vec![0; sent]);
                        sent += 1;
                    }
                }
            }
            for lane in &lanes {
                lane.publish();
            }
            let mut taken = Vec::new();
            while taken.len() < sent {
                let most = 1 + taken.len() as u32 % 7;
                let count = victim.receiver.take_plain(most, |plain| {
                    taken.push(plain.len());
                    true
                });
                assert!(count <= most);
                if count == 0 {
                    taken.push(victim.receiver.recv(soon()).unwrap().payload().len());
                }
            }
            assert_eq!(taken, (0..sent).collect::<Vec<_>>());
        }
    });
}

/// Breaks when a lane is read on because it alone had news at the last look.
#[test]
fn what_is_in_the_socket_goes_before_what_was_sent_later_by_a_lane() {
    contained(|| {
        let (by_socket, receiver) = channel(0).unwrap();
        let by_lane = ends::foreign_sender(&by_socket);
        ends::open_lane(&by_lane, &receiver);
        for payload in [b"1", b"2", b"3"] {
            ends::send(&by_socket, payload).unwrap();
        }
        ends::send(&by_lane, b"4").unwrap();
        for expected in [b"1", b"2", b"3", b"4"] {
            assert_eq!(receiver.recv(soon()).unwrap().payload(), expected);
        }
    });
}
