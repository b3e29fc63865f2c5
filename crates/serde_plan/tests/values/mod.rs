//! Plain values, and what Rust's own types look like as plans and values: what the tests run on.

#![allow(dead_code, clippy::unwrap_used)] // each of the tests uses a part of it

use std::collections::BTreeMap;

use serde_plan::decode::Build;
use serde_plan::encode::Source;
use serde_plan::fault::{Cause, Step};
use serde_plan::format::Format;
use serde_plan::plan::{Int, Node, NodeId, Plan, Shape};

/// Any value of serde's data model, apart from its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Unit,
    Bool(bool),
    Number(i128),
    /// One that no `i128` holds.
    Huge(u128),
    /// As its bits.
    Float(u64),
    Char(char),
    Text(String),
    Bytes(Vec<u8>),
    None,
    Seq(Vec<Value>),
    Map(Entries),
    Record(Vec<Value>),
    Variant(usize, Box<Value>),
    Choice(u32),
    End(u64),
    Memory(Option<u64>),
}

impl Value {
    /// A number of any width.
    fn unsigned(number: u128) -> Value {
        i128::try_from(number).map_or(Value::Huge(number), Value::Number)
    }

    /// The content if it is an enum's.
    fn content(&self) -> &Value {
        match self {
            Value::Variant(_, content) => content.content(),
            other => other,
        }
    }
}

/// A map's entries in the order of the bytes.
#[derive(Clone, Debug)]
pub struct Entries(pub Vec<(Value, Value)>);

impl Entries {
    /// As a map has them: the last one of each key, in an order that does not depend on theirs.
    fn normal(&self) -> BTreeMap<String, &Value> {
        let entries = self.0.iter();
        entries.map(|(k, v)| (format!("{k:?}"), v)).collect()
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Entries) -> bool {
        self.normal() == other.normal()
    }
}

/// Takes values apart and puts them together.
#[derive(Default)]
pub struct Plain {
    fields: Vec<Value>,
    /// How many values were built.
    pub built: u64,
}

/// What `Plain` itself fails with: never.
pub type Never = std::convert::Infallible;

type Part<T> = Result<T, Cause<Never>>;

fn wrong<T>(value: &Value, expected: &str) -> Part<T> {
    Err(format!("{value:?} is no {expected}").into())
}

impl Plain {
    fn number<T: TryFrom<i128> + TryFrom<u128>>(&self, value: &Value) -> Part<Option<T>> {
        match value.content() {
            Value::Number(number) => Ok(T::try_from(*number).ok()),
            Value::Huge(number) => Ok(T::try_from(*number).ok()),
            other => wrong(other, "number"),
        }
    }
}

impl Source for Plain {
    type Value = Value;
    type Error = Never;
    type Items = std::vec::IntoIter<(Value, Value)>;
    type Record = ();

    fn unit(&mut self, value: &Value) -> Part<()> {
        match value.content() {
            Value::Unit => Ok(()),
            other => wrong(other, "unit"),
        }
    }

    fn bool(&mut self, value: &Value) -> Part<bool> {
        match value.content() {
            Value::Bool(value) => Ok(*value),
            other => wrong(other, "bool"),
        }
    }

    fn i64(&mut self, value: &Value) -> Part<Option<i64>> {
        self.number(value)
    }

    fn u64(&mut self, value: &Value) -> Part<Option<u64>> {
        self.number(value)
    }

    fn i128(&mut self, value: &Value) -> Part<Option<i128>> {
        self.number(value)
    }

    fn u128(&mut self, value: &Value) -> Part<Option<u128>> {
        self.number(value)
    }

    fn f64(&mut self, value: &Value) -> Part<Option<f64>> {
        match value.content() {
            Value::Float(bits) => Ok(Some(f64::from_bits(*bits))),
            other => wrong(other, "float"),
        }
    }

    fn char(&mut self, value: &Value) -> Part<char> {
        match value.content() {
            Value::Char(value) => Ok(*value),
            other => wrong(other, "char"),
        }
    }

    fn text(&mut self, _: Shape, value: &Value, take: impl FnOnce(&str)) -> Part<()> {
        match value.content() {
            Value::Text(text) => {
                take(text);
                Ok(())
            }
            other => wrong(other, "text"),
        }
    }

    fn bytes(&mut self, _: Shape, value: &Value, take: impl FnOnce(&[u8])) -> Part<()> {
        match value.content() {
            Value::Bytes(bytes) => {
                take(bytes);
                Ok(())
            }
            other => wrong(other, "bytes"),
        }
    }

    fn is_some(&mut self, value: &Value) -> bool {
        !matches!(value.content(), Value::None)
    }

    fn items(&mut self, _: Shape, value: &Value) -> Part<(Self::Items, usize)> {
        match value.content() {
            Value::Seq(items) => {
                let items: Vec<_> = items.iter().map(|v| (v.clone(), Value::Unit)).collect();
                let len = items.len();
                Ok((items.into_iter(), len))
            }
            other => wrong(other, "sequence"),
        }
    }

    fn item(&mut self, items: &mut Self::Items) -> Part<Option<Value>> {
        Ok(items.next().map(|(item, _)| item))
    }

    fn entries(&mut self, _: Shape, value: &Value) -> Part<(Self::Items, usize)> {
        match value.content() {
            Value::Map(Entries(entries)) => Ok((entries.clone().into_iter(), entries.len())),
            other => wrong(other, "map"),
        }
    }

    fn entry(&mut self, entries: &mut Self::Items) -> Part<Option<(Value, Value)>> {
        Ok(entries.next())
    }

    fn record(&mut self, _: Shape, value: &Value) -> Part<()> {
        match value.content() {
            Value::Record(_) => Ok(()),
            other => wrong(other, "record"),
        }
    }

    fn field(&mut self, (): (), value: &Value, number: usize) -> Part<Value> {
        match value.content() {
            Value::Record(fields) if number < fields.len() => Ok(fields[number].clone()),
            other => wrong(other, "record with enough fields"),
        }
    }

    fn variant(&mut self, _: Shape, value: &Value) -> Part<usize> {
        match value {
            Value::Variant(place, _) => Ok(*place),
            other => wrong(other, "variant"),
        }
    }

    fn choice(&mut self, _: Shape, value: &Value) -> Part<u32> {
        match value.content() {
            Value::Choice(index) => Ok(*index),
            other => wrong(other, "choice"),
        }
    }

    fn end(&mut self, _: Shape, value: &Value) -> Part<usize> {
        match value.content() {
            Value::End(index) => Ok(*index as usize),
            other => wrong(other, "end"),
        }
    }

    fn memory(&mut self, _: Shape, value: &Value) -> Part<Option<usize>> {
        match value.content() {
            Value::Memory(index) => Ok(index.map(|index| index as usize)),
            other => wrong(other, "memory"),
        }
    }

    fn step(&self, _: Shape, field: usize) -> Step {
        Step::Field(field.to_string())
    }

    fn show(&self, value: &Value) -> String {
        format!("{value:?}")
    }
}

impl Build for Plain {
    type Value = Value;
    type Error = Never;
    type Items = Vec<(Value, Value)>;

    fn unit(&mut self) -> Value {
        self.built += 1;
        Value::Unit
    }

    fn bool(&mut self, value: bool) -> Value {
        Value::Bool(value)
    }

    fn i64(&mut self, value: i64) -> Part<Value> {
        Ok(Value::Number(value.into()))
    }

    fn u64(&mut self, value: u64) -> Part<Value> {
        Ok(Value::unsigned(value.into()))
    }

    fn i128(&mut self, value: i128) -> Part<Value> {
        Ok(Value::Number(value))
    }

    fn u128(&mut self, value: u128) -> Part<Value> {
        Ok(Value::unsigned(value))
    }

    fn f64(&mut self, value: f64) -> Part<Value> {
        Ok(Value::Float(value.to_bits()))
    }

    fn char(&mut self, value: char) -> Part<Value> {
        Ok(Value::Char(value))
    }

    fn text(&mut self, _: Shape, bytes: &[u8]) -> Part<Value> {
        match str::from_utf8(bytes) {
            Ok(text) => Ok(Value::Text(text.to_owned())),
            Err(_) => Err("no UTF-8".into()),
        }
    }

    fn bytes(&mut self, _: Shape, bytes: &[u8]) -> Part<Value> {
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn none(&mut self) -> Value {
        Value::None
    }

    fn items(&mut self, _: Shape, len: usize) -> Part<Self::Items> {
        Ok(Vec::with_capacity(len))
    }

    fn item(&mut self, items: &mut Self::Items, item: Value) -> Part<()> {
        self.built += 1;
        items.push((item, Value::Unit));
        Ok(())
    }

    fn sequence(&mut self, _: Shape, items: Self::Items) -> Part<Value> {
        Ok(Value::Seq(
            items.into_iter().map(|(item, _)| item).collect(),
        ))
    }

    fn entries(&mut self, _: Shape) -> Part<Self::Items> {
        Ok(Vec::new())
    }

    fn entry(&mut self, entries: &mut Self::Items, key: Value, value: Value) -> Part<()> {
        self.built += 1;
        entries.push((key, value));
        Ok(())
    }

    fn map(&mut self, _: Shape, entries: Self::Items) -> Part<Value> {
        Ok(Value::Map(Entries(entries)))
    }

    fn field(&mut self, field: Value) {
        self.fields.push(field);
    }

    fn record(&mut self, _: Shape, len: usize) -> Part<Value> {
        self.built += 1;
        Ok(Value::Record(
            self.fields.split_off(self.fields.len() - len),
        ))
    }

    fn variant(&mut self, _: Shape, place: usize, content: Value) -> Part<Value> {
        Ok(Value::Variant(place, Box::new(content)))
    }

    fn choice(&mut self, _: Shape, index: u32) -> Part<Value> {
        Ok(Value::Choice(index))
    }

    fn end(&mut self, _: Shape, index: u64) -> Part<Value> {
        Ok(Value::End(index))
    }

    fn memory(&mut self, _: Shape, index: Option<u64>) -> Part<Value> {
        Ok(Value::Memory(index))
    }

    fn step(&self, shape: Shape, field: usize) -> Step {
        Source::step(self, shape, field)
    }

    fn show(&self, value: &Value) -> String {
        Source::show(self, value)
    }

    fn name(&self, shape: Shape) -> String {
        format!("enum {shape}")
    }
}

/// The bytes of a value, or the text of the error.
pub fn encode<F: Format>(plan: &Plan, value: &Value) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match serde_plan::encode::encode::<F, _>(plan, value, &mut Plain::default(), &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(fault) => Err(text(&fault)),
    }
}

/// The value of bytes, or the text of the error.
pub fn decode<F: Format>(plan: &Plan, bytes: &[u8]) -> Result<Value, String> {
    let mut plain = Plain::default();
    let decoded = serde_plan::decode::decode::<F, _>(plan, bytes, &mut plain);
    decoded.map_err(|fault| text(&fault))
}

fn text(fault: &serde_plan::fault::Fault<Never>) -> String {
    match &fault.cause {
        Cause::Unfit(text) => format!("{}: {text}", fault.path("value")),
        Cause::Foreign(never) => match *never {},
    }
}

/// A Rust type whose plan and values are known.
pub trait Described {
    /// Adds the type to a plan. `seen` knows the types that may contain themselves.
    fn node(nodes: &mut Vec<Node>) -> NodeId;
    /// The value as plain data.
    fn value(&self) -> Value;
}

/// The plan of a type.
pub fn plan<F: Format, T: Described>() -> Plan {
    let mut nodes = Vec::new();
    let root = T::node(&mut nodes);
    Plan::new::<F>(nodes, root).unwrap()
}

/// Appends a node to a plan.
pub fn push(nodes: &mut Vec<Node>, node: Node) -> NodeId {
    nodes.push(node);
    (nodes.len() - 1) as NodeId
}

macro_rules! simple {
    ($($rust:ty, $node:expr, $value:expr;)*) => {$(
        impl Described for $rust {
            fn node(nodes: &mut Vec<Node>) -> NodeId {
                push(nodes, $node)
            }
            fn value(&self) -> Value {
                let value: fn(&$rust) -> Value = $value;
                value(self)
            }
        }
    )*};
}

simple! {
    (), Node::Unit, |()| Value::Unit;
    bool, Node::Bool, |v| Value::Bool(*v);
    u8, Node::Int(Int::U8), |v| Value::unsigned((*v).into());
    u16, Node::Int(Int::U16), |v| Value::unsigned((*v).into());
    u32, Node::Int(Int::U32), |v| Value::unsigned((*v).into());
    u64, Node::Int(Int::U64), |v| Value::unsigned((*v).into());
    u128, Node::Int(Int::U128), |v| Value::unsigned(*v);
    usize, Node::Int(Int::U64), |v| Value::unsigned(*v as u128);
    i8, Node::Int(Int::I8), |v| Value::Number((*v).into());
    i16, Node::Int(Int::I16), |v| Value::Number((*v).into());
    i32, Node::Int(Int::I32), |v| Value::Number((*v).into());
    i64, Node::Int(Int::I64), |v| Value::Number((*v).into());
    i128, Node::Int(Int::I128), |v| Value::Number(*v);
    isize, Node::Int(Int::I64), |v| Value::Number(*v as i128);
    f32, Node::F32, |v| Value::Float(f64::from(*v).to_bits());
    f64, Node::F64, |v| Value::Float(v.to_bits());
    char, Node::Char, |v| Value::Char(*v);
    String, Node::Text(0), |v| Value::Text(v.clone());
}

impl<T: Described> Described for Option<T> {
    fn node(nodes: &mut Vec<Node>) -> NodeId {
        // In a record of its own, so that options in options can be told apart.
        let inner = T::node(nodes);
        let some = push(nodes, Node::Record(0, Box::new([inner])));
        push(nodes, Node::Option(some))
    }
    fn value(&self) -> Value {
        match self {
            None => Value::None,
            Some(value) => Value::Record(vec![value.value()]),
        }
    }
}

impl<T: Described> Described for Vec<T> {
    fn node(nodes: &mut Vec<Node>) -> NodeId {
        let item = T::node(nodes);
        push(nodes, Node::Seq(0, item))
    }
    fn value(&self) -> Value {
        Value::Seq(self.iter().map(T::value).collect())
    }
}

impl<T: Described, const N: usize> Described for [T; N] {
    fn node(nodes: &mut Vec<Node>) -> NodeId {
        let item = T::node(nodes);
        push(nodes, Node::Array(0, N, item))
    }
    fn value(&self) -> Value {
        Value::Seq(self.iter().map(T::value).collect())
    }
}

impl<K: Described, V: Described> Described for BTreeMap<K, V> {
    fn node(nodes: &mut Vec<Node>) -> NodeId {
        let key = K::node(nodes);
        let value = V::node(nodes);
        push(nodes, Node::Map(0, key, value))
    }
    fn value(&self) -> Value {
        let entries = self.iter().map(|(k, v)| (k.value(), v.value()));
        Value::Map(Entries(entries.collect()))
    }
}

macro_rules! tuples {
    ($($name:ident $number:tt),*) => {
        impl<$($name: Described),*> Described for ($($name,)*) {
            fn node(nodes: &mut Vec<Node>) -> NodeId {
                let fields = Box::new([$($name::node(nodes)),*]);
                push(nodes, Node::Record(0, fields))
            }
            fn value(&self) -> Value {
                Value::Record(vec![$(self.$number.value()),*])
            }
        }
    };
}

tuples!(A 0);
tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);
tuples!(A 0, B 1, C 2, D 3, E 4);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5);

/// Bytes, which serde writes as a sequence of `u8`.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Bytes(pub Vec<u8>);

impl Described for Bytes {
    fn node(nodes: &mut Vec<Node>) -> NodeId {
        push(nodes, Node::Bytes(0))
    }
    fn value(&self) -> Value {
        Value::Bytes(self.0.clone())
    }
}

/// An array of bytes.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Digest(pub [u8; 7]);

impl Described for Digest {
    fn node(nodes: &mut Vec<Node>) -> NodeId {
        push(nodes, Node::FixedBytes(0, 7))
    }
    fn value(&self) -> Value {
        Value::Bytes(self.0.to_vec())
    }
}

/// An enum without data.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub enum Color {
    Red,
    Green,
    Blue,
}

impl Described for Color {
    fn node(nodes: &mut Vec<Node>) -> NodeId {
        push(nodes, Node::Choice(0, 3))
    }
    fn value(&self) -> Value {
        Value::Choice(*self as u32)
    }
}

/// An enum of all four shapes of variants, which contains itself.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
pub enum Tree {
    Empty,
    Leaf(u32),
    Pair(Box<Tree>, Box<Tree>),
    Branch { name: String, children: Vec<Tree> },
}

impl Described for Tree {
    fn node(nodes: &mut Vec<Node>) -> NodeId {
        let tree = push(nodes, Node::Unit);
        let empty = push(nodes, Node::Record(0, Box::new([])));
        let number = u32::node(nodes);
        let leaf = push(nodes, Node::Record(0, Box::new([number])));
        let pair = push(nodes, Node::Record(0, Box::new([tree, tree])));
        let name = String::node(nodes);
        let children = push(nodes, Node::Seq(0, tree));
        let branch = push(nodes, Node::Record(0, Box::new([name, children])));
        let variants = [(0, empty), (1, leaf), (2, pair), (3, branch)];
        nodes[tree as usize] = Node::Enum(0, Box::new(variants));
        tree
    }
    fn value(&self) -> Value {
        let (place, fields) = match self {
            Tree::Empty => (0, vec![]),
            Tree::Leaf(number) => (1, vec![number.value()]),
            Tree::Pair(one, other) => (2, vec![one.value(), other.value()]),
            Tree::Branch { name, children } => (3, vec![name.value(), children.value()]),
        };
        Value::Variant(place, Box::new(Value::Record(fields)))
    }
}
