//! Small messages that are there are taken the short way, without a look at everything else for each.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ends;

use ends::{foreign_sender, in_time, send};
use ipc_channel_transport::{Receiver, Sender, channel};

const COUNT: u32 = 50_000;

/// Sends that many messages, takes them, the short way where that is possible, and says how many had to be taken the
/// long way.
fn taken_the_long_way(sender: &Sender, receiver: &Receiver) -> u32 {
    for number in 0..COUNT {
        send(sender, &number.to_le_bytes()).unwrap();
    }
    let mut long = 0;
    for next in 0..COUNT {
        // One at a time, as `recv` does.
        let short = receiver.take_plain(1, |plain| {
            assert_eq!(plain.len(), 4);
            true
        });
        if short == 0 {
            let payload = receiver.try_recv().unwrap().payload();
            assert_eq!(payload, next.to_le_bytes());
            long += 1;
        }
    }
    long
}

/// Breaks when a lane that gives its messages without a look at the others, and must be told from them now and then,
/// is not believed again after that.
#[test]
fn of_a_lane_that_is_alone() {
    in_time(|| {
        let (sender, receiver) = channel(0).unwrap();
        let long = taken_the_long_way(&sender, &receiver);
        assert!(long < COUNT / 1000, "{long}");
        // The first messages were packets, and now there are none.
        let long = taken_the_long_way(&sender, &receiver);
        assert!(long < COUNT / 1000, "{long}");
    });
}

#[test]
fn of_a_lane_beside_others() {
    in_time(|| {
        let (sender, receiver) = channel(0).unwrap();
        let other = foreign_sender(&sender);
        send(&other, b"other").unwrap();
        assert_eq!(receiver.try_recv().unwrap().payload(), b"other");
        let long = taken_the_long_way(&sender, &receiver);
        assert!(long < COUNT / 1000, "{long}");
    });
}
