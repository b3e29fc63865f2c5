//! Messages that come back as they came: decoded and encoded by the crate.

use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender, IpcSharedMemory};
use serde::{Deserialize, Serialize};

use crate::commands::Parcel;
use crate::errors;
use crate::types::{Color, Containers, Numbers, Page, Shape, Standard, Texts, Tree};
use crate::upstream::{Fractured, Medium, Nested, Small};

#[derive(Serialize, Deserialize)]
pub enum Loop {
    Numbers(IpcReceiver<Numbers>, IpcSender<Numbers>),
    Texts(IpcReceiver<Texts>, IpcSender<Texts>),
    Containers(IpcReceiver<Containers>, IpcSender<Containers>),
    Shapes(IpcReceiver<Vec<Shape>>, IpcSender<Vec<Shape>>),
    Tree(IpcReceiver<Tree>, IpcSender<Tree>),
    Standard(IpcReceiver<Standard>, IpcSender<Standard>),
    Page(
        IpcReceiver<Page<Option<Color>>>,
        IpcSender<Page<Option<Color>>>,
    ),
    Parcel(IpcReceiver<Parcel>, IpcSender<Parcel>),
    Bytes(IpcBytesReceiver, IpcBytesSender),
    Small(IpcReceiver<Small>, IpcSender<Small>),
    Medium(IpcReceiver<Medium>, IpcSender<Medium>),
    Fractured(IpcReceiver<Fractured>, IpcSender<Fractured>),
    Nested(IpcReceiver<Nested>, IpcSender<Nested>),
    /// Each byte is one more when it comes back, in the same memory or in a new one.
    Memory {
        from: IpcReceiver<IpcSharedMemory>,
        to: IpcSender<IpcSharedMemory>,
        in_place: bool,
    },
    Unit(IpcReceiver<()>, IpcSender<()>),
}

impl Loop {
    pub fn run(self) {
        match self {
            Loop::Numbers(from, to) => through(&from, &to),
            Loop::Texts(from, to) => through(&from, &to),
            Loop::Containers(from, to) => through(&from, &to),
            Loop::Shapes(from, to) => through(&from, &to),
            Loop::Tree(from, to) => through(&from, &to),
            Loop::Standard(from, to) => through(&from, &to),
            Loop::Page(from, to) => through(&from, &to),
            Loop::Parcel(from, to) => through(&from, &to),
            Loop::Small(from, to) => through(&from, &to),
            Loop::Medium(from, to) => through(&from, &to),
            Loop::Fractured(from, to) => through(&from, &to),
            Loop::Nested(from, to) => through(&from, &to),
            Loop::Unit(from, to) => through(&from, &to),
            Loop::Bytes(from, to) => {
                until_the_end(|| from.recv(), |bytes| to.send(&bytes).unwrap())
            }
            Loop::Memory { from, to, in_place } => {
                until_the_end(
                    || from.recv(),
                    |memory| to.send(one_more(memory, in_place)).unwrap(),
                );
            }
        }
    }
}

fn through<T: Serialize + for<'de> Deserialize<'de>>(from: &IpcReceiver<T>, to: &IpcSender<T>) {
    until_the_end(|| from.recv(), |message| to.send(message).unwrap());
}

fn until_the_end<T>(receive: impl Fn() -> Result<T, errors::IpcError>, mut then: impl FnMut(T)) {
    loop {
        match receive() {
            Ok(message) => then(message),
            Err(error) if errors::is_the_end(&error) => return,
            Err(error) => panic!("not received: {error:?}"),
        }
    }
}

fn one_more(mut memory: IpcSharedMemory, in_place: bool) -> IpcSharedMemory {
    if in_place {
        // SAFETY: whoever sent this memory waits for it to come back.
        for byte in unsafe { memory.deref_mut() } {
            *byte = byte.wrapping_add(1);
        }
        return memory;
    }
    let mut content = memory.to_vec();
    for byte in &mut content {
        *byte = byte.wrapping_add(1);
    }
    IpcSharedMemory::from_bytes(&content)
}
