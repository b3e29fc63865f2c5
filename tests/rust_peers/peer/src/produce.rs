//! One message of each kind, whose packets are compared with ours. `tests/rust/produced.py` sends the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use ipc_channel::ipc::{self, IpcSender, IpcSharedMemory};
use serde::{Deserialize, Serialize};

use crate::commands::Parcel;
use crate::types::{Color, Containers, Id, Marker, Numbers, Page, Shape, Standard, Texts, Tree};

/// The sizes of the messages of bytes.
const SIZES: [usize; 12] = [
    0, 1, 7, 8, 9, 4096, 212_440, 212_448, 212_449, 212_952, 212_953, 1_000_000,
];

pub fn everything(name: &str) {
    let outer = IpcSender::<()>::connect(name.to_owned()).unwrap();
    // Bytes go through a channel of their own, whose receiver is the first message.
    let (sender, receiver) = ipc::bytes_channel().unwrap();
    send(&outer, receiver);
    for size in SIZES {
        let bytes: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        sender.send(&bytes).unwrap();
    }
    drop(sender);
    numbers(&outer);
    texts(&outer);
    containers(&outer);
    standard(&outer);
    send(&outer, parcel(b"small".to_vec(), 2));
    send(&outer, parcel(vec![0xa5; 700_000], 1));
}

fn send<T: Serialize + for<'de> Deserialize<'de>>(outer: &IpcSender<()>, message: T) {
    outer.clone().to_opaque().to::<T>().send(message).unwrap();
}

fn numbers(outer: &IpcSender<()>) {
    send(
        outer,
        Numbers {
            flag: false,
            tiny: (u8::MIN, i8::MIN),
            small: (u16::MIN, i16::MIN),
            medium: (u32::MIN, i32::MIN),
            large: (u64::MIN, i64::MIN),
            huge: (u128::MIN, i128::MIN),
            size: (usize::MIN, isize::MIN),
            single: f32::MIN,
            double: f64::MIN,
            letter: '\0',
        },
    );
    send(
        outer,
        Numbers {
            flag: true,
            tiny: (u8::MAX, i8::MAX),
            small: (u16::MAX, i16::MAX),
            medium: (u32::MAX, i32::MAX),
            large: (u64::MAX, i64::MAX),
            huge: (u128::MAX, i128::MAX),
            size: (usize::MAX, isize::MAX),
            single: f32::MAX,
            double: f64::MAX,
            letter: char::MAX,
        },
    );
}

fn texts(outer: &IpcSender<()>) {
    send(
        outer,
        Texts {
            text: String::new(),
            boxed: "".into(),
            raw: vec![],
            digest: [0, 1, 254, 255],
            path: PathBuf::from("."),
            name: OsString::new(),
        },
    );
    send(
        outer,
        Texts {
            text: "ü".repeat(1 << 19),
            boxed: "aü€🦀\0".into(),
            raw: (0..=255).collect(),
            digest: [255; 4],
            path: PathBuf::from("/tmp/ü"),
            name: OsString::from_vec(vec![b'a', 0xff]),
        },
    );
}

fn containers(outer: &IpcSender<()>) {
    send(
        outer,
        Containers {
            items: vec![],
            maybe: None,
            nested: None,
            table: BTreeMap::new(),
            members: BTreeSet::new(),
            array: [0.0; 3],
            unit: (),
            single: (0,),
            pairs: vec![],
            keyed: BTreeMap::new(),
        },
    );
    send(
        outer,
        Containers {
            items: (0..300).collect(),
            maybe: Some(255),
            nested: Some(None),
            table: BTreeMap::from([("one".into(), vec![i32::MIN, i32::MAX])]),
            members: BTreeSet::from([200]),
            array: [1.5, -1.5, f32::INFINITY],
            unit: (),
            single: (1,),
            pairs: vec![(i64::MIN, "least".into()), (i64::MAX, "most".into())],
            keyed: BTreeMap::from([((9, true), Some("nine".into()))]),
        },
    );
    let shapes = vec![
        Shape::Nothing,
        Shape::Circle(1.5),
        Shape::Rectangle(u16::MAX, 0),
        Shape::Polygon {
            points: vec![(i32::MIN, i32::MAX)],
            closed: true,
        },
    ];
    send(outer, shapes);
    send(
        outer,
        Tree {
            value: 1,
            left: Some(Box::new(leaf(2))),
            right: None,
            more: vec![leaf(3), leaf(4)],
        },
    );
    send(
        outer,
        Page {
            id: Id(u64::MAX),
            items: vec![Some(Color::Blue), None, Some(Color::Red)],
            next: Some(Id(0)),
            marker: Marker,
        },
    );
}

fn leaf(value: i32) -> Tree {
    Tree {
        value,
        left: None,
        right: None,
        more: vec![],
    }
}

fn standard(outer: &IpcSender<()>) {
    send(
        outer,
        Standard {
            span: Duration::new(u64::MAX, 999_999_999),
            time: UNIX_EPOCH + Duration::new(1_000_000_000, 1),
            four: Ipv4Addr::BROADCAST,
            six: Ipv6Addr::LOCALHOST,
            any: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            socket_four: SocketAddrV4::new(Ipv4Addr::LOCALHOST, u16::MAX),
            socket: SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 443, 0, 0)),
            outcome: Err("no".into()),
        },
    );
}

/// With ends and regions of each kind, and others inside.
fn parcel(content: Vec<u8>, depth: u32) -> Parcel {
    let (sender, receiver) = ipc::channel().unwrap();
    let (opaque_sender, opaque_receiver) = ipc::channel::<u64>().unwrap();
    let (raw_sender, raw_receiver) = ipc::bytes_channel().unwrap();
    Parcel {
        number: u64::from(depth),
        content,
        senders: vec![sender.clone(), sender],
        receivers: vec![receiver],
        raw_senders: vec![raw_sender],
        raw_receivers: vec![raw_receiver],
        opaque_senders: vec![opaque_sender.to_opaque()],
        opaque_receivers: vec![opaque_receiver.to_opaque()],
        memory: vec![
            IpcSharedMemory::from_bytes(b"memory"),
            IpcSharedMemory::from_bytes(b""),
            IpcSharedMemory::from_byte(depth as u8, 5000),
        ],
        inner: (0..depth)
            .map(|depth| parcel(b"inner".to_vec(), depth))
            .collect(),
    }
}
