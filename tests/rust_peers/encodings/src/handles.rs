//! What the crate ipc-channel writes where an end or shared memory stands, in its newest and its oldest format.

macro_rules! handles {
    ($module:ident, $crate_:ident, $encode:expr) => {
        mod $module {
            use std::collections::BTreeMap;

            use serde::{Deserialize, Serialize};
            use $crate_::ipc::{
                self, IpcBytesSender, IpcReceiver, IpcSender, IpcSharedMemory, OpaqueIpcReceiver,
            };

            #[derive(Serialize, Deserialize)]
            struct Message {
                number: u16,
                reply: IpcSender<u8>,
                memory: IpcSharedMemory,
                inbox: IpcReceiver<String>,
                empty: IpcSharedMemory,
                maybe: Option<IpcSender<u8>>,
                nothing: Option<IpcSender<u8>>,
                many: Vec<(IpcSharedMemory, IpcBytesSender)>,
                named: BTreeMap<u8, OpaqueIpcReceiver>,
                choice: Choice,
            }

            #[derive(Serialize, Deserialize)]
            enum Choice {
                #[allow(dead_code)]
                Nothing,
                Sender(IpcSender<u8>),
            }

            pub fn bytes() -> Vec<u8> {
                let (reply, _receiver) = ipc::channel().unwrap();
                let (_sender, inbox) = ipc::channel().unwrap();
                let (_other, opaque) = ipc::channel::<u8>().unwrap();
                let (raw, _raw_receiver) = ipc::bytes_channel().unwrap();
                let memory = || IpcSharedMemory::from_bytes(b"memory");
                let message = Message {
                    number: 300,
                    maybe: Some(reply.clone()),
                    choice: Choice::Sender(reply.clone()),
                    reply,
                    memory: memory(),
                    inbox,
                    empty: IpcSharedMemory::from_bytes(b""),
                    nothing: None,
                    many: vec![(memory(), raw.clone()), (memory(), raw)],
                    named: BTreeMap::from([(9, opaque.to_opaque())]),
                };
                let encode: fn(&Message) -> Vec<u8> = $encode;
                encode(&message)
            }
        }
    };
}

handles!(newest, ipc_channel, |message| postcard::to_stdvec(message)
    .unwrap());
// As the crate does it: `serialize` would go through the value twice, and so count every handle twice.
handles!(oldest, ipc_channel_0_20, |message| {
    let mut bytes = Vec::new();
    bincode::serialize_into(&mut bytes, message).unwrap();
    bytes
});

pub fn print() {
    println!("{}", crate::hex(&newest::bytes()));
    println!("{}", crate::hex(&oldest::bytes()));
}
