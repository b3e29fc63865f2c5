//! Many messages.

use ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcReceiverSet, IpcSelectionResult, IpcSender,
};
use ipc_channel::router::RouterProxy;

use crate::commands::{Event, Tally};
use crate::errors;

/// The bytes of a numbered message: its number, then always the same.
fn fill(number: u64) -> u8 {
    (number % 251) as u8
}

pub fn flood(to: &IpcBytesSender, count: u64, size: u64) {
    for number in 0..count {
        let mut message = vec![fill(number); size as usize];
        message[..8].copy_from_slice(&number.to_le_bytes());
        if let Err(error) = to.send(&message) {
            // EPIPE and ECONNRESET: the receiver has gone, which is part of some tests.
            assert!(
                matches!(error.raw_os_error(), Some(32 | 104)),
                "not sent: {error}"
            );
            return;
        }
    }
}

pub fn hold(from: &IpcBytesReceiver, permission: &IpcReceiver<()>, tally: &IpcSender<Tally>) {
    permission.recv().unwrap();
    let (mut messages, mut bytes, mut right) = (0, 0, true);
    let end = loop {
        match from.recv() {
            Ok(message) => {
                right = right
                    && message[..8] == u64::to_le_bytes(messages)
                    && message[8..].iter().all(|byte| *byte == fill(messages));
                messages += 1;
                bytes += message.len() as u64;
            }
            Err(error) => break errors::describe(&error),
        }
    };
    let result = Tally {
        messages,
        bytes,
        right,
        end,
    };
    tally.send(result).unwrap();
}

pub fn select(receivers: Vec<IpcReceiver<u64>>, events: &IpcSender<Event>) {
    let mut set = IpcReceiverSet::new().unwrap();
    let mut open = receivers.len();
    for receiver in receivers {
        set.add(receiver).unwrap();
    }
    while open > 0 {
        for result in set.select().unwrap() {
            let event = match result {
                IpcSelectionResult::MessageReceived(index, message) => Event {
                    index,
                    value: Some(message.to().unwrap()),
                },
                IpcSelectionResult::ChannelClosed(index) => {
                    open -= 1;
                    Event { index, value: None }
                }
            };
            events.send(event).unwrap();
        }
    }
}

/// Tells the end of a route by what its callback holds.
struct Ending(u64, IpcSender<Event>);

impl Drop for Ending {
    fn drop(&mut self) {
        let event = Event {
            index: self.0,
            value: None,
        };
        self.1.send(event).unwrap();
    }
}

pub fn route(receivers: Vec<IpcReceiver<u64>>, events: &IpcSender<Event>) {
    let router = RouterProxy::new();
    let (done, all_done) = std::sync::mpsc::channel();
    for (index, receiver) in receivers.into_iter().enumerate() {
        let ending = Ending(index as u64, events.clone());
        let done = done.clone();
        router.add_typed_route(
            receiver,
            Box::new(move |message| {
                let _held_until_the_end = &done;
                let event = Event {
                    index: ending.0,
                    value: Some(message.unwrap()),
                };
                ending.1.send(event).unwrap();
            }),
        );
    }
    drop(done);
    // It ends when the last callback has been dropped.
    let _ = all_done.recv() as Result<(), _>;
    router.shutdown();
}
