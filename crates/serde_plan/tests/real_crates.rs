//! The same bytes as the crates postcard and bincode, in both directions, for valid and for hostile input.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Debug;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_plan::bincode::Bincode;
use serde_plan::postcard::Postcard;

mod values;
use values::{Bytes, Color, Described, Digest, Tree, decode, encode, plan};

trait Real: Serialize + DeserializeOwned + Described + Debug {}
impl<T: Serialize + DeserializeOwned + Described + Debug> Real for T {}

/// What the crates write, we write; what they wrote, we read.
fn agrees<T: Real>(value: &T) {
    let bytes = postcard::to_stdvec(value).unwrap();
    let plan_ = plan::<Postcard, T>();
    assert_eq!(
        encode::<Postcard>(&plan_, &value.value()),
        Ok(bytes.clone())
    );
    assert_eq!(decode::<Postcard>(&plan_, &bytes), Ok(value.value()));

    let bytes = bincode::serialize(value).unwrap();
    let plan_ = plan::<Bincode, T>();
    assert_eq!(encode::<Bincode>(&plan_, &value.value()), Ok(bytes.clone()));
    assert_eq!(decode::<Bincode>(&plan_, &bytes), Ok(value.value()));
}

/// What the crates read, we read as the same value; what they refuse, we refuse.
fn agrees_on_bytes<T: Real>(bytes: &[u8]) {
    let theirs = postcard::from_bytes::<T>(bytes).map(|value| value.value());
    let ours = decode::<Postcard>(&plan::<Postcard, T>(), bytes);
    assert_eq!(
        ours.clone().ok(),
        theirs.clone().ok(),
        "postcard: {ours:?}, {theirs:?}"
    );

    let theirs = bincode::deserialize::<T>(bytes).map(|value| value.value());
    let ours = decode::<Bincode>(&plan::<Bincode, T>(), bytes);
    assert_eq!(
        ours.clone().ok(),
        theirs.as_ref().ok().cloned(),
        "bincode: {ours:?}, {theirs:?}"
    );
}

/// A valid encoding, damaged.
fn agrees_on_damage<T: Real>(
    value: &T,
    damage: &[(prop::sample::Index, u8)],
    cut: &prop::sample::Index,
) {
    for mut bytes in [
        postcard::to_stdvec(value).unwrap(),
        bincode::serialize(value).unwrap(),
    ] {
        bytes.truncate(cut.index(bytes.len() + 1));
        agrees_on_bytes::<T>(&bytes);
        if !bytes.is_empty() {
            for (place, byte) in damage {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            agrees_on_bytes::<T>(&bytes);
        }
    }
}

macro_rules! extremes {
    ($($number:ty)*) => {$(
        for shift in 0..<$number>::BITS {
            let power = (1 as $number) << shift;
            for value in [power, power.wrapping_sub(1), power.wrapping_neg(), !power] {
                agrees(&value);
            }
        }
        agrees(&<$number>::MIN);
        agrees(&<$number>::MAX);
    )*};
}

#[test]
fn integers_at_every_width() {
    extremes!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);
}

#[test]
fn floats_keep_every_bit() {
    for bits in [
        0,
        1,
        1 << 31,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x7f7f_ffff,
        0x3f80_0000,
    ] {
        agrees(&f32::from_bits(bits));
    }
    for bits in [
        0,
        1,
        1 << 63,
        0x7ff0_0000_0000_0000,
        0x7ff8_0000_0000_0001,
        0x3ff0_0000_0000_0000,
    ] {
        agrees(&f64::from_bits(bits));
    }
}

#[test]
fn characters_of_every_length() {
    for value in [
        '\0', 'a', '\x7f', '\u{80}', 'ß', '\u{7ff}', '\u{800}', '\u{d7ff}', '\u{e000}', '\u{ffff}',
    ] {
        agrees(&value);
    }
    for value in ['\u{10000}', '🦀', char::MAX] {
        agrees(&value);
    }
    // Every first byte, with every second one that matters.
    for first in 0..=u8::MAX {
        for second in [0, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff] {
            agrees_on_bytes::<char>(&[first, second, 0x80, 0x80]);
            for len in 0..6 {
                agrees_on_bytes::<char>(&[len, first, second, 0x80, 0x80]);
            }
        }
    }
}

#[test]
fn units_and_enums() {
    agrees(&());
    agrees(&((), 5_u8, ()));
    for color in [Color::Red, Color::Green, Color::Blue] {
        agrees(&color);
    }
    agrees(&Tree::Empty);
    agrees(&vec![
        Tree::Leaf(u32::MAX),
        Tree::Pair(Box::new(Tree::Empty), Box::new(Tree::Leaf(0))),
    ]);
    agrees(&Some(Some(None::<u8>)));
    agrees(&[None, Some(None), Some(Some(5_u8))]);
}

#[test]
fn long_strings_and_sequences() {
    for len in [0, 1, 127, 128, 16383, 16384, 1 << 20] {
        agrees(&"ä".repeat(len));
        agrees(&Bytes(vec![7; len]));
    }
    agrees(&(0..3000).collect::<Vec<i32>>());
    agrees(&Digest([1, 2, 3, 4, 5, 6, 255]));
}

#[test]
fn varints_longer_than_necessary() {
    for len in 0..20 {
        for last in [0, 1, 2, 3, 4, 15, 16, 127] {
            let mut bytes = vec![0x80; len];
            bytes.push(last);
            agrees_on_bytes::<u16>(&bytes);
            agrees_on_bytes::<u32>(&bytes);
            agrees_on_bytes::<u64>(&bytes);
            agrees_on_bytes::<u128>(&bytes);
            agrees_on_bytes::<i64>(&bytes);
            agrees_on_bytes::<String>(&bytes);
            agrees_on_bytes::<Color>(&bytes);
            let bytes = vec![0xff; len];
            agrees_on_bytes::<(u64, i128)>(&bytes);
        }
    }
}

type Wide = (bool, i16, u64, f32, char, (u128, i128));
type Deep = (
    Vec<Option<String>>,
    BTreeMap<u8, Vec<i64>>,
    [Option<u16>; 3],
    Bytes,
    Digest,
    Color,
);

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![Just(Tree::Empty), any::<u32>().prop_map(Tree::Leaf)];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone())
                .prop_map(|(one, other)| Tree::Pair(Box::new(one), Box::new(other))),
            (any::<String>(), prop::collection::vec(inner, 0..4))
                .prop_map(|(name, children)| Tree::Branch { name, children }),
        ]
    })
}

fn deep() -> impl Strategy<Value = Deep> {
    (
        any::<Vec<Option<String>>>(),
        prop::collection::btree_map(any::<u8>(), any::<Vec<i64>>(), 0..6),
        any::<[Option<u16>; 3]>(),
        any::<Vec<u8>>().prop_map(Bytes),
        any::<[u8; 7]>().prop_map(Digest),
        prop_oneof![Just(Color::Red), Just(Color::Green), Just(Color::Blue)],
    )
}

/// Bytes as a peer might choose them: small numbers are lengths, tags and continued varints more often than not.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => 0_u8..4, 2 => Just(0_u8), 1 => Just(0x80_u8), 1 => Just(0xff_u8), 2 => any::<u8>()];
    prop::collection::vec(byte, 0..120)
}

fn damage() -> impl Strategy<Value = (Vec<(prop::sample::Index, u8)>, prop::sample::Index)> {
    (
        prop::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4),
        any::<prop::sample::Index>(),
    )
}

proptest! {
    #[test]
    fn wide_values(value in any::<Wide>(), (damage, cut) in damage()) {
        agrees(&value);
        agrees_on_damage(&value, &damage, &cut);
    }

    #[test]
    fn deep_values(value in deep(), (damage, cut) in damage()) {
        agrees(&value);
        agrees_on_damage(&value, &damage, &cut);
    }

    #[test]
    fn recursive_values(value in trees(), (damage, cut) in damage()) {
        agrees(&value);
        agrees_on_damage(&value, &damage, &cut);
    }

    #[test]
    fn any_bytes(bytes in hostile()) {
        agrees_on_bytes::<Wide>(&bytes);
        agrees_on_bytes::<Deep>(&bytes);
        agrees_on_bytes::<Tree>(&bytes);
        agrees_on_bytes::<Vec<Tree>>(&bytes);
        agrees_on_bytes::<BTreeMap<String, Option<i8>>>(&bytes);
    }
}
