//! Any type and any bytes: no panic, no more values than the bytes account for, and what was decoded can be
//! encoded and decoded again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_plan::bincode::Bincode;
use serde_plan::decode;
use serde_plan::format::Format;
use serde_plan::plan::{FREE_VALUES, Int, Node, Plan};
use serde_plan::postcard::Postcard;

#[path = "../../tests/values/mod.rs"]
mod values;

use values::Plain;

/// As many nodes as a plan of the fuzzer's has; each is made of four bytes.
const NODES: usize = 8;

/// Arrays are short, so that a byte of a message cannot stand for very many values.
const LONGEST: usize = 64;

fn node(id: u32, [kind, a, b, c]: [u8; 4]) -> Node {
    let part = |byte: u8| u32::from(byte) % NODES as u32;
    let len = usize::from(b) % LONGEST;
    match kind % 24 {
        0 => Node::Unit,
        1 => Node::Bool,
        2 => Node::Int(Int::U8),
        3 => Node::Int(Int::U16),
        4 => Node::Int(Int::U32),
        5 => Node::Int(Int::U64),
        6 => Node::Int(Int::U128),
        7 => Node::Int(Int::I8),
        8 => Node::Int(Int::I16),
        9 => Node::Int(Int::I32),
        10 => Node::Int(Int::I64),
        11 => Node::Int(Int::I128),
        12 => Node::F64,
        13 => Node::Char,
        14 => Node::Text(id),
        15 => Node::Bytes(id),
        16 => Node::FixedBytes(id, len),
        17 => Node::Option(part(a)),
        18 => Node::Seq(id, part(a)),
        19 => Node::Array(id, len, part(a)),
        20 => Node::Record(id, [a, b, c].map(part)[..usize::from(c) % 4].into()),
        21 => Node::Map(id, part(a), part(b)),
        22 => Node::Enum(id, [(0, part(a)), (u32::from(c) + 1, part(b))].into()),
        _ => Node::Choice(id, u32::from(a) + 1),
    }
}

fn check<F: Format>(nodes: &[Node], payload: &[u8]) {
    let Ok(plan) = Plan::new::<F>(nodes.to_vec(), 0) else {
        return;
    };
    let mut plain = Plain::default();
    let decoded = decode::decode::<F, _>(&plan, payload, &mut plain);
    let most = (payload.len() as u64 + 1) * (LONGEST as u64).pow(3) + 2 * FREE_VALUES;
    assert!(plain.built <= most, "{} values", plain.built);
    let Ok(value) = decoded else {
        return;
    };
    // The keys of a map may have come twice, and a float may be a NaN that is equal to itself by its bits.
    let again = values::encode::<F>(&plan, &value);
    let again = again.unwrap_or_else(|error| panic!("{value:?}: {error}"));
    assert_eq!(values::decode::<F>(&plan, &again), Ok(value));
}

fuzz_target!(|data: &[u8]| {
    let Some((description, payload)) = data.split_at_checked(NODES * 4) else {
        return;
    };
    let (bytes, _) = description.as_chunks::<4>();
    let nodes: Vec<Node> = (0..)
        .zip(bytes)
        .map(|(id, bytes)| node(id, *bytes))
        .collect();
    check::<Postcard>(&nodes, payload);
    check::<Bincode>(&nodes, payload);
});
