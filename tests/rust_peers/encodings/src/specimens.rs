//! Values whose bytes are compared one by one. The names are those in `tests/unit/test_rust_encodings.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use crate::types::{Color, Id, Marker, Numbers, Page, Shape, Tree};

fn specimen<T: Serialize>(name: &str, value: T) {
    let postcard = crate::hex(&postcard::to_stdvec(&value).unwrap());
    let bincode = crate::hex(&bincode::serialize(&value).unwrap());
    println!("{name} [{postcard}] [{bincode}]");
}

macro_rules! extremes {
    ($($number:ident)*) => {$(
        specimen(concat!(stringify!($number), "-min"), $number::MIN);
        specimen(concat!(stringify!($number), "-max"), $number::MAX);
        specimen(concat!(stringify!($number), "-one"), 1 as $number);
        specimen(concat!(stringify!($number), "-127"), 127 as $number);
        specimen(concat!(stringify!($number), "-minus-two"), (0 as $number).wrapping_sub(2));
    )*};
}

pub fn print() {
    extremes!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);
    specimen("true", true);
    specimen("false", false);
    specimen("unit", ());
    specimen("f32-pi", std::f32::consts::PI);
    specimen("f32-max", f32::MAX);
    specimen("f32-least", f32::from_bits(1));
    specimen("f32-infinite", f32::NEG_INFINITY);
    specimen("f64-pi", std::f64::consts::PI);
    specimen("f64-max", f64::MAX);
    specimen("f64-least", f64::from_bits(1));
    specimen("f64-infinite", f64::INFINITY);
    specimen("f64-minus-zero", -0.0);
    for (name, letter) in [
        ("a", 'a'),
        ("umlaut", 'ü'),
        ("euro", '€'),
        ("crab", '🦀'),
        ("last", char::MAX),
        ("zero", '\0'),
    ] {
        specimen(&format!("char-{name}"), letter);
    }

    specimen("str-empty", "");
    specimen("str-mixed", "aü€🦀\0");
    specimen("str-megabyte", "x".repeat(1 << 20));
    specimen("bytes-empty", Vec::<u8>::new());
    specimen("bytes-all", (0..=255).collect::<Vec<u8>>());
    specimen("array-of-bytes", [1_u8, 2, 255]);
    specimen("array", [1_u32, 2, u32::MAX]);
    specimen("array-empty", [0_u32; 0]);
    specimen("path", PathBuf::from("/tmp/ü"));
    specimen("os-string", OsString::from_vec(vec![b'a', 0xff]));

    specimen("option-none", None::<u8>);
    specimen("option-some", Some(5_u8));
    specimen("option-none-in-some", Some(None::<u8>));
    specimen("option-some-in-some", Some(Some(5_u8)));
    specimen("option-of-unit", Some(()));
    specimen("list", vec![1_i64, -1, 300]);
    specimen("list-empty", Vec::<String>::new());
    specimen("list-of-units", vec![(); 300]);
    specimen("tuple", (1_u8, "a", 2.5_f64));
    specimen("set", BTreeSet::from([7_u16]));
    specimen("map", BTreeMap::from([("a", 1_i64), ("b", -1)]));
    specimen("map-empty", BTreeMap::<u8, u8>::new());

    specimen("color", [Color::Red, Color::Green, Color::Blue]);
    specimen("shape-nothing", Shape::Nothing);
    specimen("shape-circle", Shape::Circle(1.5));
    specimen("shape-rectangle", Shape::Rectangle(3, 400));
    specimen(
        "shape-polygon",
        Shape::Polygon {
            points: vec![(0, -1), (100_000, 2)],
            closed: true,
        },
    );
    specimen("shape-maybe", Some(Shape::Rectangle(1, 2)));
    specimen("result-ok", Ok::<u16, String>(500));
    specimen("result-err", Err::<u16, String>("no".into()));
    specimen("newtype", Id(300));
    specimen("unit-struct", Marker);
    specimen(
        "page",
        Page {
            id: Id(1),
            items: vec![Some(Color::Blue), None],
            next: Some(Id(2)),
            marker: Marker,
        },
    );
    specimen("tree", tree(5));
    specimen(
        "numbers",
        Numbers {
            flag: true,
            tiny: (1, -1),
            small: (2, -2),
            medium: (3, -3),
            large: (4, -4),
            huge: (5, -5),
            size: (6, -6),
            single: 7.5,
            double: -7.5,
            letter: 'z',
        },
    );

    specimen("duration", Duration::new(u64::MAX, 999_999_999));
    specimen("duration-zero", Duration::ZERO);
    specimen("system-time", UNIX_EPOCH + Duration::new(1_000_000_000, 1));
    specimen("ipv4", Ipv4Addr::new(192, 168, 0, 1));
    specimen("ipv6", Ipv6Addr::LOCALHOST);
    specimen("ip-4", IpAddr::V4(Ipv4Addr::BROADCAST));
    specimen("ip-6", IpAddr::V6(Ipv6Addr::LOCALHOST));
    specimen(
        "socket-4",
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080)),
    );
    specimen(
        "socket-6",
        SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 443, 5, 6)),
    );
    specimen(
        "socket-4-alone",
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, 65535),
    );
}

/// Each node has a left child, up to that depth, and the last one has others.
fn tree(depth: i32) -> Tree {
    Tree {
        value: depth,
        left: (depth > 0).then(|| Box::new(tree(depth - 1))),
        right: None,
        more: if depth == 0 {
            vec![tree_leaf(-1), tree_leaf(-2)]
        } else {
            vec![]
        },
    }
}

fn tree_leaf(value: i32) -> Tree {
    Tree {
        value,
        left: None,
        right: None,
        more: vec![],
    }
}
