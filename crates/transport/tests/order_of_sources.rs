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
