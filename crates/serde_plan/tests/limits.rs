//! What a message may cost: never more than its size accounts for, and never more stack than there is.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_plan::bincode::Bincode;
use serde_plan::decode;
use serde_plan::encode::MAX_DEPTH;
use serde_plan::format::Format;
use serde_plan::plan::{FREE_VALUES, Node, NodeId, Plan};
use serde_plan::postcard::Postcard;

mod values;
use values::{Described, Plain, Tree, Value, encode, plan, push};

fn of(nodes: Vec<Node>) -> Plan {
    let root = (nodes.len() - 1) as NodeId;
    Plan::new::<Postcard>(nodes, root).unwrap()
}

/// What decoding gives, and how many values it has built.
fn built<F: Format>(plan: &Plan, bytes: &[u8]) -> (Result<(), String>, u64) {
    let mut plain = Plain::default();
    let outcome = decode::decode::<F, _>(plan, bytes, &mut plain);
    (
        outcome
            .map(drop)
            .map_err(|fault| format!("{:?}", fault.cause)),
        plain.built,
    )
}

fn varint(number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    Postcard::put_u64(&mut bytes, number);
    bytes
}

/// Units, and whatever is made of units alone, in sequences and maps.
fn weightless() -> Vec<Plan> {
    let unit = Node::Unit;
    let empty = Node::Record(0, Box::new([]));
    let many = Node::Record(0, Box::new([0; 50]));
    vec![
        of(vec![unit.clone(), Node::Seq(0, 0)]),
        of(vec![empty, Node::Seq(0, 0)]),
        of(vec![unit.clone(), Node::Map(0, 0, 0)]),
        of(vec![unit.clone(), many, Node::Seq(0, 1)]),
        of(vec![unit.clone(), Node::Array(0, 1000, 0), Node::Seq(0, 1)]),
        of(vec![unit.clone(), Node::Seq(0, 0), Node::Seq(0, 1)]),
        of(vec![
            unit,
            Node::Array(0, 1000, 0),
            Node::Record(0, Box::new([1, 1])),
            Node::Seq(0, 2),
        ]),
    ]
}

#[test]
fn items_that_take_no_bytes_are_counted() {
    let plan = &weightless()[0];
    let (outcome, count) = built::<Postcard>(plan, &varint(FREE_VALUES));
    assert_eq!(outcome, Ok(()));
    assert!(count >= FREE_VALUES);
    for plan in weightless() {
        for len in [FREE_VALUES + 100, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = varint(len);
            // The sequence of sequences has one inside.
            bytes.extend(varint(len));
            let (outcome, count) = built::<Postcard>(&plan, &bytes);
            assert!(outcome.is_err());
            assert!(count < 2 * FREE_VALUES, "{count}");
        }
    }
}

#[test]
fn a_length_beyond_the_message_is_refused_before_anything_is_built() {
    for plan in [
        plan::<Bincode, Vec<u8>>(),
        plan::<Bincode, Vec<(u8, ())>>(),
        plan::<Bincode, String>(),
        plan::<Bincode, std::collections::BTreeMap<(), u8>>(),
        plan::<Bincode, values::Bytes>(),
    ] {
        for len in [4, 1 << 32, u64::MAX] {
            let mut bytes = len.to_le_bytes().to_vec();
            bytes.extend([0; 3]);
            let (outcome, count) = built::<Bincode>(&plan, &bytes);
            assert!(outcome.is_err_and(|text| text.contains("goes on for 3 bytes only")));
            assert_eq!(count, 0);
        }
    }
    let plan = plan::<Bincode, [u64; 1000]>();
    assert_eq!(built::<Bincode>(&plan, &[0; 7999]).1, 0);
    assert!(built::<Bincode>(&plan, &[0; 8000]).0.is_ok());
}

/// A chain of `Pair`s, each level of which is two levels of the plan: the enum and its content.
fn chain(levels: u32) -> (Value, Vec<u8>) {
    let mut value = Tree::Empty.value();
    for _ in 0..levels {
        value = Value::Variant(2, Box::new(Value::Record(vec![value, Tree::Empty.value()])));
    }
    let mut bytes = vec![2; levels as usize];
    bytes.resize(levels as usize * 2 + 1, 0);
    (value, bytes)
}

/// Not optimized, a level takes several KiB of stack.
fn with_stack(test: fn()) {
    let thread = std::thread::Builder::new().stack_size(32 << 20);
    thread.spawn(test).unwrap().join().unwrap();
}

#[test]
fn depth_is_limited() {
    with_stack(|| {
        let plan = plan::<Postcard, Tree>();
        let deepest = MAX_DEPTH / 2 - 1;
        let (value, bytes) = chain(deepest);
        assert_eq!(encode::<Postcard>(&plan, &value), Ok(bytes.clone()));
        assert_eq!(built::<Postcard>(&plan, &bytes).0, Ok(()));
        let too_deep = |text: String| text.contains("500 deep");
        let (value, bytes) = chain(deepest + 1);
        assert!(encode::<Postcard>(&plan, &value).is_err_and(too_deep));
        assert!(built::<Postcard>(&plan, &bytes).0.is_err_and(too_deep));
        // However deep the peer says that it is.
        let (outcome, count) = built::<Postcard>(&plan, &vec![2; 1 << 20]);
        assert!(outcome.is_err_and(too_deep));
        assert!(count < u64::from(MAX_DEPTH));
    });
}

/// Plans of any shape, whose nodes refer to one another in any way that a plan may.
fn plans() -> impl Strategy<Value = Plan> {
    let node = |id: NodeId| {
        let part = 0..8_u32;
        prop_oneof![
            Just(Node::Unit),
            Just(Node::Bool),
            Just(Node::Text(id)),
            Just(Node::Bytes(id)),
            Just(Node::Choice(id, 3)),
            Just(Node::Memory(id)),
            (0_usize..5).prop_map(move |len| Node::FixedBytes(id, len)),
            part.clone().prop_map(Node::Option),
            part.clone().prop_map(move |item| Node::Seq(id, item)),
            (0_usize..300, part.clone()).prop_map(move |(len, item)| Node::Array(id, len, item)),
            (part.clone(), part.clone()).prop_map(move |(key, value)| Node::Map(id, key, value)),
            prop::collection::vec(part.clone(), 0..4)
                .prop_map(move |fields| Node::Record(id, fields.into())),
            prop::collection::vec(part, 1..4)
                .prop_map(move |parts| Node::Enum(id, (0..).zip(parts).collect())),
        ]
    };
    (0..8_u32)
        .map(node)
        .collect::<Vec<_>>()
        .prop_filter_map("no plan", |nodes| {
            let mut nodes = nodes;
            push(&mut nodes, Node::Unit);
            Plan::new::<Postcard>(nodes, 0).ok()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..ProptestConfig::default() })]

    /// Whatever the type and whatever the bytes: no panic, and work in proportion to the message.
    #[test]
    fn any_plan_and_any_bytes(plan in plans(), bytes in prop::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..80)) {
        let (_, count) = built::<Postcard>(&plan, &bytes);
        // A byte may stand for an item, and that for as many free values as its type holds.
        let most = (bytes.len() as u64 + 1) * 100_000 + FREE_VALUES;
        prop_assert!(count <= most, "{count} values from {} bytes", bytes.len());
    }

    /// What was decoded is encoded to bytes that decode to the same.
    #[test]
    fn decoded_values_can_be_encoded(plan in plans(), bytes in prop::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..80)) {
        if let Ok(value) = values::decode::<Postcard>(&plan, &bytes) {
            let again = encode::<Postcard>(&plan, &value);
            prop_assert!(again.is_ok(), "{value:?}: {again:?}");
            let again = again.unwrap();
            prop_assert_eq!(values::decode::<Postcard>(&plan, &again), Ok(value));
        }
    }
}
