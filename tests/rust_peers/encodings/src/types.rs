//! The types that `tests/support/rust_types.py` describes by annotations.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub struct Numbers {
    pub flag: bool,
    pub tiny: (u8, i8),
    pub small: (u16, i16),
    pub medium: (u32, i32),
    pub large: (u64, i64),
    pub huge: (u128, i128),
    pub size: (usize, isize),
    pub single: f32,
    pub double: f64,
    pub letter: char,
}

#[derive(Serialize, Deserialize)]
pub struct Texts {
    pub text: String,
    pub boxed: Box<str>,
    pub raw: Vec<u8>,
    pub digest: [u8; 4],
    pub path: PathBuf,
    pub name: OsString,
}

#[derive(Serialize, Deserialize)]
pub struct Containers {
    pub items: Vec<u16>,
    pub maybe: Option<u8>,
    pub nested: Option<Option<bool>>,
    pub table: BTreeMap<String, Vec<i32>>,
    pub members: BTreeSet<u8>,
    pub array: [f32; 3],
    pub unit: (),
    pub single: (u8,),
    pub pairs: Vec<(i64, String)>,
    pub keyed: BTreeMap<(u8, bool), Option<String>>,
}

#[derive(Serialize, Deserialize)]
pub enum Shape {
    Nothing,
    Circle(f32),
    Rectangle(u16, u16),
    Polygon {
        points: Vec<(i32, i32)>,
        closed: bool,
    },
}

#[derive(Serialize, Deserialize)]
pub struct Tree {
    pub value: i32,
    pub left: Option<Box<Tree>>,
    pub right: Option<Box<Tree>>,
    pub more: Vec<Tree>,
}

#[derive(Serialize, Deserialize)]
pub struct Standard {
    pub span: Duration,
    pub time: SystemTime,
    pub four: Ipv4Addr,
    pub six: Ipv6Addr,
    pub any: IpAddr,
    pub socket_four: SocketAddrV4,
    pub socket: SocketAddr,
    pub outcome: Result<u16, String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub enum Color {
    Red,
    Green = 7,
    Blue = 3,
}

#[derive(Serialize, Deserialize)]
pub struct Id(pub u64);

#[derive(Serialize, Deserialize)]
pub struct Marker;

#[derive(Serialize, Deserialize)]
pub struct Page<T> {
    pub id: Id,
    pub items: Vec<T>,
    pub next: Option<Id>,
    pub marker: Marker,
}
