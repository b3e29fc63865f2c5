//! What a peer can be told. `tests/rust/commands.py` has the same types.

use ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender, IpcSharedMemory, OpaqueIpcReceiver,
    OpaqueIpcSender,
};
use serde::{Deserialize, Serialize};

use crate::loops::Loop;

/// The first message of a peer that connects.
#[derive(Serialize, Deserialize)]
pub struct Hello {
    pub process: u32,
    pub commands: IpcSender<Command>,
}

#[derive(Serialize, Deserialize)]
pub enum Command {
    /// Says which process this is.
    Ping(IpcSender<u32>),
    /// Sends back what comes.
    Loop(Loop),
    /// Uses everything that is in a message.
    Use(Parcel, IpcSender<Uses>),
    /// Makes a message full of new ends and regions, and says what came through them.
    Make(Recipe, IpcSender<Parcel>, IpcSender<u64>),
    /// Sends numbered messages of so many bytes.
    Flood {
        to: IpcBytesSender,
        count: u64,
        size: u64,
    },
    /// Receives numbered messages, from when it may until they end.
    Hold {
        from: IpcBytesReceiver,
        permission: IpcReceiver<()>,
        tally: IpcSender<Tally>,
    },
    /// Receives from many, in one set.
    Select(Vec<IpcReceiver<u64>>, IpcSender<Event>),
    /// The same, with a router's callbacks.
    Route(Vec<IpcReceiver<u64>>, IpcSender<Event>),
    /// Sends to each that many numbers, one after the other.
    Feed(Vec<IpcSender<u64>>, u64),
}

/// A message that holds everything that can be in one.
#[derive(Default, Serialize, Deserialize)]
pub struct Parcel {
    pub number: u64,
    pub content: Vec<u8>,
    pub senders: Vec<IpcSender<u64>>,
    pub receivers: Vec<IpcReceiver<u64>>,
    pub raw_senders: Vec<IpcBytesSender>,
    pub raw_receivers: Vec<IpcBytesReceiver>,
    pub opaque_senders: Vec<OpaqueIpcSender>,
    pub opaque_receivers: Vec<OpaqueIpcReceiver>,
    pub memory: Vec<IpcSharedMemory>,
    pub inner: Vec<Parcel>,
}

/// How many of each.
#[derive(Serialize, Deserialize)]
pub struct Recipe {
    pub content: u64,
    pub senders: u32,
    pub receivers: u32,
    pub raw_senders: u32,
    pub raw_receivers: u32,
    pub opaque_senders: u32,
    pub opaque_receivers: u32,
    /// The sizes of the regions.
    pub memory: Vec<u64>,
}

/// What the ends and regions of a [`Parcel`] held.
#[derive(Default, Serialize, Deserialize)]
pub struct Uses {
    pub content: u64,
    pub received: Vec<Vec<u64>>,
    pub raw: Vec<Vec<Vec<u8>>>,
    /// Size, first and last byte.
    pub memory: Vec<(u64, u8, u8)>,
}

#[derive(Serialize, Deserialize)]
pub struct Tally {
    pub messages: u64,
    pub bytes: u64,
    /// Whether each had the right number and content.
    pub right: bool,
    pub end: String,
}

#[derive(Serialize, Deserialize)]
pub struct Event {
    pub index: u64,
    /// None: no more will come from there.
    pub value: Option<u64>,
}

impl Command {
    pub fn run(self) {
        match self {
            Command::Ping(answer) => answer.send(std::process::id()).unwrap(),
            Command::Loop(through) => through.run(),
            Command::Use(parcel, answer) => crate::using::everything(parcel, &answer),
            Command::Make(recipe, to, seen) => crate::making::parcel(&recipe, &to, &seen),
            Command::Flood { to, count, size } => crate::receiving::flood(&to, count, size),
            Command::Hold {
                from,
                permission,
                tally,
            } => crate::receiving::hold(&from, &permission, &tally),
            Command::Select(receivers, events) => crate::receiving::select(receivers, &events),
            Command::Route(receivers, events) => crate::receiving::route(receivers, &events),
            Command::Feed(senders, count) => {
                for number in 0..count {
                    for sender in &senders {
                        sender.send(number).unwrap();
                    }
                }
            }
        }
    }
}
