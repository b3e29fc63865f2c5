//! What a closed end keeps.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod hostile;

use std::time::Duration;

use hostile::{Lane, Victim, contained};
use ipc_channel_transport::Deadline;
use ipc_channel_transport::lane::layout::Kind;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_closed_receiver_that_had_lanes_holds_no_descriptor() {
    contained(|| {
        // The alarm that a thread waits with stays until the thread ends.
        let waiting = Victim::new();
        let moment = Deadline::after(Duration::from_millis(1));
        assert!(waiting.receiver.recv(moment).is_err());
        let before = descriptors();
        let victim = Victim::new();
        let mut lane = Lane::new();
        lane.announce(&victim, &lane.place());
        lane.record(Kind::Plain, 0, b"message");
        lane.publish();
        victim.drain();
        let Victim { socket, receiver } = victim;
        drop((socket, lane));
        receiver.end().close();
        assert_eq!(descriptors(), before);
        drop(receiver);
    });
}
