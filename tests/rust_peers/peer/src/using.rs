//! Using what came in a message.

use ipc_channel::ipc::IpcSender;

use crate::commands::{Parcel, Uses};
use crate::errors;

/// Sends a number through each sender, from 0 on, drops them all, receives all that is in the receivers, and answers.
pub fn everything(parcel: Parcel, answer: &IpcSender<Uses>) {
    let mut uses = Uses::default();
    let mut inboxes = Vec::new();
    let mut raw_inboxes = Vec::new();
    let mut number = 0;
    let mut parcels = vec![parcel];
    while let Some(parcel) = parcels.pop() {
        uses.content += parcel.content.len() as u64;
        let opaque = parcel.opaque_senders.into_iter().map(|sender| sender.to());
        for sender in parcel.senders.into_iter().chain(opaque) {
            sender.send(number).unwrap();
            number += 1;
        }
        for sender in parcel.raw_senders {
            sender.send(&[number as u8; 3]).unwrap();
            number += 1;
        }
        let opaque = parcel
            .opaque_receivers
            .into_iter()
            .map(|receiver| receiver.to());
        inboxes.extend(parcel.receivers.into_iter().chain(opaque));
        raw_inboxes.extend(parcel.raw_receivers);
        for memory in parcel.memory {
            let ends = memory.first().copied().zip(memory.last().copied());
            let (first, last) = ends.unwrap_or((0, 0));
            uses.memory.push((memory.len() as u64, first, last));
        }
        parcels.extend(parcel.inner);
    }
    for inbox in inboxes {
        uses.received.push(all(|| inbox.recv()));
    }
    for inbox in raw_inboxes {
        uses.raw.push(all(|| inbox.recv()));
    }
    answer.send(uses).unwrap();
}

/// What comes until no sender is left.
pub fn all<T>(receive: impl Fn() -> Result<T, errors::IpcError>) -> Vec<T> {
    let mut found = Vec::new();
    loop {
        match receive() {
            Ok(message) => found.push(message),
            Err(error) if errors::is_the_end(&error) => return found,
            Err(error) => panic!("not received: {error:?}"),
        }
    }
}
