//! Making what goes into a message.

use ipc_channel::ipc::{self, IpcSender, IpcSharedMemory};

use crate::commands::{Parcel, Recipe};
use crate::using::all;

/// What every receiver in a parcel has in its queue before it is sent; one more number comes after.
const QUEUED: [u64; 2] = [7, 8];
const LATER: u64 = 9;

/// Sends a new parcel, then says everything that has come through its senders.
pub fn parcel(recipe: &Recipe, to: &IpcSender<Parcel>, seen: &IpcSender<u64>) {
    let mut parcel = Parcel {
        number: u64::MAX,
        content: (0..recipe.content)
            .map(|index| (index % 251) as u8)
            .collect(),
        ..Parcel::default()
    };
    let mut inboxes = Vec::new();
    let mut raw_inboxes = Vec::new();
    let mut outlets = Vec::new();
    let mut raw_outlets = Vec::new();
    for _ in 0..recipe.senders {
        let (sender, receiver) = ipc::channel().unwrap();
        parcel.senders.push(sender);
        inboxes.push(receiver);
    }
    for _ in 0..recipe.opaque_senders {
        let (sender, receiver) = ipc::channel::<u64>().unwrap();
        parcel.opaque_senders.push(sender.to_opaque());
        inboxes.push(receiver);
    }
    for _ in 0..recipe.raw_senders {
        let (sender, receiver) = ipc::bytes_channel().unwrap();
        parcel.raw_senders.push(sender);
        raw_inboxes.push(receiver);
    }
    for _ in 0..recipe.receivers {
        let (sender, receiver) = ipc::channel().unwrap();
        parcel.receivers.push(receiver);
        outlets.push(sender);
    }
    for _ in 0..recipe.opaque_receivers {
        let (sender, receiver) = ipc::channel().unwrap();
        parcel.opaque_receivers.push(receiver.to_opaque());
        outlets.push(sender);
    }
    for _ in 0..recipe.raw_receivers {
        let (sender, receiver) = ipc::bytes_channel().unwrap();
        parcel.raw_receivers.push(receiver);
        raw_outlets.push(sender);
    }
    for (index, size) in recipe.memory.iter().enumerate() {
        parcel
            .memory
            .push(IpcSharedMemory::from_byte(index as u8 + 1, *size as usize));
    }
    for outlet in &outlets {
        for number in QUEUED {
            outlet.send(number).unwrap();
        }
    }
    for outlet in &raw_outlets {
        for number in QUEUED {
            outlet.send(&[number as u8; 3]).unwrap();
        }
    }
    to.send(parcel).unwrap();
    for outlet in outlets {
        outlet.send(LATER).unwrap();
    }
    for outlet in raw_outlets {
        outlet.send(&[LATER as u8; 3]).unwrap();
    }
    for inbox in inboxes {
        all(|| inbox.recv())
            .into_iter()
            .for_each(|number| seen.send(number).unwrap());
    }
    for inbox in raw_inboxes {
        for bytes in all(|| inbox.recv()) {
            seen.send(bytes.len() as u64).unwrap();
        }
    }
}
