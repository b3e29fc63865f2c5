//! From a value to bytes.

use std::borrow::Cow;

use crate::fault::{Cause, Fault, Outcome, Step};
use crate::format::Format;
use crate::plan::{Int, Node, NodeId, Plan, Shape};

/// How deep values may be nested, for encoding and decoding alike. A level costs less than a KiB of stack when
/// optimized, and threads with little stack decode as well.
pub const MAX_DEPTH: u32 = 500;

pub(crate) const TOO_DEEP: &str = "values are nested more than 500 deep";

/// Gives the parts of values to be encoded. Every method fails if the value is not of the kind that it is asked for.
///
/// Numbers are `None` if they are numbers, but do not fit the type.
pub trait Source {
    /// A value, or any part of one.
    type Value;
    /// What the source itself fails with.
    type Error;
    /// The items of a sequence, or the entries of a map, one after the other.
    type Items;
    /// What is found out about a record once and needed for each of its fields.
    type Record: Copy;

    /// Checks that it is the unit.
    fn unit(&mut self, value: &Self::Value) -> Result<(), Cause<Self::Error>>;
    /// A truth value.
    fn bool(&mut self, value: &Self::Value) -> Result<bool, Cause<Self::Error>>;
    /// An integer.
    fn i64(&mut self, value: &Self::Value) -> Result<Option<i64>, Cause<Self::Error>>;
    /// An integer.
    fn u64(&mut self, value: &Self::Value) -> Result<Option<u64>, Cause<Self::Error>>;
    /// An integer.
    fn i128(&mut self, value: &Self::Value) -> Result<Option<i128>, Cause<Self::Error>>;
    /// An integer.
    fn u128(&mut self, value: &Self::Value) -> Result<Option<u128>, Cause<Self::Error>>;
    /// A float.
    fn f64(&mut self, value: &Self::Value) -> Result<Option<f64>, Cause<Self::Error>>;
    /// A character.
    fn char(&mut self, value: &Self::Value) -> Result<char, Cause<Self::Error>>;
    /// Lends a string.
    fn text(
        &mut self,
        shape: Shape,
        value: &Self::Value,
        take: impl FnOnce(&str),
    ) -> Result<(), Cause<Self::Error>>;
    /// Lends bytes.
    fn bytes(
        &mut self,
        shape: Shape,
        value: &Self::Value,
        take: impl FnOnce(&[u8]),
    ) -> Result<(), Cause<Self::Error>>;
    /// Whether the value is there at all.
    fn is_some(&mut self, value: &Self::Value) -> bool;
    /// The items of a sequence, and how many there are.
    fn items(
        &mut self,
        shape: Shape,
        value: &Self::Value,
    ) -> Result<(Self::Items, usize), Cause<Self::Error>>;
    /// The next item.
    fn item(&mut self, items: &mut Self::Items) -> Result<Option<Self::Value>, Cause<Self::Error>>;
    /// The entries of a map, and how many there are.
    fn entries(
        &mut self,
        shape: Shape,
        value: &Self::Value,
    ) -> Result<(Self::Items, usize), Cause<Self::Error>>;
    /// The next entry.
    #[allow(clippy::type_complexity)]
    fn entry(
        &mut self,
        entries: &mut Self::Items,
    ) -> Result<Option<(Self::Value, Self::Value)>, Cause<Self::Error>>;
    /// Checks that it is a record of that shape.
    fn record(
        &mut self,
        shape: Shape,
        value: &Self::Value,
    ) -> Result<Self::Record, Cause<Self::Error>>;
    /// The field of that number.
    fn field(
        &mut self,
        record: Self::Record,
        value: &Self::Value,
        number: usize,
    ) -> Result<Self::Value, Cause<Self::Error>>;
    /// Which of the enum's variants it is: its place among them, and not the index that is written.
    fn variant(&mut self, shape: Shape, value: &Self::Value) -> Result<usize, Cause<Self::Error>>;
    /// Which variant of an enum without data it is.
    fn choice(&mut self, shape: Shape, value: &Self::Value) -> Result<u32, Cause<Self::Error>>;
    /// Takes the end along and gives its index.
    fn end(&mut self, shape: Shape, value: &Self::Value) -> Result<usize, Cause<Self::Error>>;
    /// Takes the region along and gives its index; None if it is empty.
    fn memory(
        &mut self,
        shape: Shape,
        value: &Self::Value,
    ) -> Result<Option<usize>, Cause<Self::Error>>;

    /// How a record's field is reached, for errors.
    fn step(&self, shape: Shape, field: usize) -> Step;
    /// The value as users know it, for errors.
    fn show(&self, value: &Self::Value) -> String;
}

/// Appends to `out` what the plan's format makes of `value`. After an error `out` holds a part of that.
pub fn encode<F: Format, S: Source>(
    plan: &Plan,
    value: &S::Value,
    source: &mut S,
    out: &mut Vec<u8>,
) -> Outcome<(), S::Error> {
    let mut encoder = Encoder::<F, S> {
        plan,
        source,
        out,
        format: std::marker::PhantomData,
    };
    encoder.node(plan.root(), value, MAX_DEPTH)
}

struct Encoder<'a, F, S> {
    plan: &'a Plan,
    source: &'a mut S,
    out: &'a mut Vec<u8>,
    format: std::marker::PhantomData<F>,
}

const CHANGED: &str = "it was changed while it was encoded";

impl<F: Format, S: Source> Encoder<'_, F, S> {
    /// Numbers and strings, of which most fields are, without another call; everything else in one.
    #[inline(always)]
    fn node(&mut self, id: NodeId, value: &S::Value, depth: u32) -> Outcome<(), S::Error> {
        match self.plan.node(id) {
            Node::Int(int) => self.int(*int, value),
            Node::Bool => {
                let value = self.source.bool(value)?;
                self.out.push(value.into());
                Ok(())
            }
            Node::F64 => match self.source.f64(value)? {
                Some(number) => {
                    self.out.extend_from_slice(&number.to_le_bytes());
                    Ok(())
                }
                None => Err(self.unfit(value, "f64").into()),
            },
            Node::Text(shape) => {
                let out = &mut *self.out;
                let mut written = Ok(());
                self.source.text(*shape, value, |text| {
                    written = put_bytes::<F>(out, text.as_bytes());
                })?;
                Ok(written?)
            }
            _ => self.compound(id, value, depth),
        }
    }

    #[inline(never)]
    fn compound(&mut self, id: NodeId, value: &S::Value, depth: u32) -> Outcome<(), S::Error> {
        let plan = self.plan;
        match plan.node(id) {
            Node::Unit => self.source.unit(value)?,
            // Those that `node` has kept for itself.
            Node::Int(_) | Node::Bool | Node::F64 | Node::Text(_) => {
                return self.node(id, value, depth);
            }
            Node::F32 => match self.source.f64(value)?.and_then(narrowed) {
                Some(number) => self.out.extend_from_slice(&number.to_le_bytes()),
                None => return Err(self.unfit(value, "f32").into()),
            },
            Node::Char => {
                let value = self.source.char(value)?;
                F::put_char(self.out, value);
            }
            Node::Bytes(shape) => {
                let out = &mut *self.out;
                let mut written = Ok(());
                self.source
                    .bytes(*shape, value, |bytes| written = put_bytes::<F>(out, bytes))?;
                written?;
            }
            Node::FixedBytes(shape, len) => {
                let out = &mut *self.out;
                let mut written = Ok(());
                let mut given = 0;
                self.source.bytes(*shape, value, |bytes| {
                    given = bytes.len();
                    written = put(out, bytes);
                })?;
                written?;
                if given != *len {
                    return Err(not_always(given, "bytes", *len).into());
                }
            }
            Node::Option(inner) => {
                let there = self.source.is_some(value);
                self.out.push(there.into());
                if there {
                    return self.node(*inner, value, deeper(depth)?);
                }
            }
            Node::Seq(shape, item) => {
                let (items, len) = self.source.items(*shape, value)?;
                F::put_u64(self.out, len as u64);
                self.items(items, len, *item, deeper(depth)?)?;
            }
            Node::Array(shape, len, item) => {
                let (items, given) = self.source.items(*shape, value)?;
                if given != *len {
                    return Err(not_always(given, "items", *len).into());
                }
                self.items(items, *len, *item, deeper(depth)?)?;
            }
            Node::Record(shape, fields) => {
                let record = self.source.record(*shape, value)?;
                let depth = deeper(depth)?;
                for (number, field) in fields.iter().enumerate() {
                    let part = match self.source.field(record, value, number) {
                        Ok(part) => part,
                        Err(cause) => return Err(self.in_field(cause.into(), *shape, number)),
                    };
                    if let Err(fault) = self.node(*field, &part, depth) {
                        return Err(self.in_field(fault, *shape, number));
                    }
                }
            }
            Node::Map(shape, key, value_node) => {
                let (entries, len) = self.source.entries(*shape, value)?;
                F::put_u64(self.out, len as u64);
                self.entries(entries, len, (*key, *value_node), deeper(depth)?)?;
            }
            Node::Enum(shape, variants) => {
                let place = self.source.variant(*shape, value)?;
                let Some((index, content)) = variants.get(place) else {
                    return Err("it is none of the enum's variants".into());
                };
                F::put_u32(self.out, *index);
                return self.node(*content, value, deeper(depth)?);
            }
            Node::Choice(shape, _) => {
                let index = self.source.choice(*shape, value)?;
                F::put_u32(self.out, index);
            }
            Node::End(shape) => {
                let index = self.source.end(*shape, value)?;
                F::put_u64(self.out, index as u64);
            }
            Node::Memory(shape) => {
                let index = self.source.memory(*shape, value)?;
                F::put_u64(self.out, index.map_or(u64::MAX, |index| index as u64));
            }
        }
        Ok(())
    }

    #[inline]
    fn int(&mut self, int: Int, value: &S::Value) -> Outcome<(), S::Error> {
        macro_rules! small {
            ($number:ty, $put:expr) => {
                match self.source.i64(value)?.map(<$number>::try_from) {
                    Some(Ok(number)) => $put(self.out, number),
                    _ => return Err(self.unfit(value, int.name()).into()),
                }
            };
        }
        macro_rules! wide {
            ($method:ident, $put:expr) => {
                match self.source.$method(value)? {
                    Some(number) => $put(self.out, number),
                    None => return Err(self.unfit(value, int.name()).into()),
                }
            };
        }
        match int {
            Int::U8 => small!(u8, |out: &mut Vec<u8>, number| out.push(number)),
            Int::U16 => small!(u16, F::put_u16),
            Int::U32 => small!(u32, F::put_u32),
            Int::I8 => small!(i8, |out: &mut Vec<u8>, number| out.push(number as u8)),
            Int::I16 => small!(i16, F::put_i16),
            Int::I32 => small!(i32, F::put_i32),
            Int::I64 => wide!(i64, F::put_i64),
            Int::U64 => wide!(u64, F::put_u64),
            Int::I128 => wide!(i128, F::put_i128),
            Int::U128 => wide!(u128, F::put_u128),
        }
        Ok(())
    }

    fn items(
        &mut self,
        mut items: S::Items,
        len: usize,
        node: NodeId,
        depth: u32,
    ) -> Outcome<(), S::Error> {
        for index in 0..len {
            let item = self.source.item(&mut items)?.ok_or(CHANGED)?;
            self.node(node, &item, depth)
                .map_err(|fault| fault.under(Step::Index(index)))?;
        }
        match self.source.item(&mut items)? {
            None => Ok(()),
            Some(_) => Err(CHANGED.into()),
        }
    }

    fn entries(
        &mut self,
        mut entries: S::Items,
        len: usize,
        (key_node, value_node): (NodeId, NodeId),
        depth: u32,
    ) -> Outcome<(), S::Error> {
        for index in 0..len {
            let (key, value) = self.source.entry(&mut entries)?.ok_or(CHANGED)?;
            self.node(key_node, &key, depth)
                .map_err(|fault| fault.under(Step::Key(index)))?;
            if let Err(fault) = self.node(value_node, &value, depth) {
                return Err(fault.under(Step::Entry(self.source.show(&key))));
            }
        }
        match self.source.entry(&mut entries)? {
            None => Ok(()),
            Some(_) => Err(CHANGED.into()),
        }
    }

    #[cold]
    fn unfit(&self, value: &S::Value, name: &str) -> String {
        format!("{} does not fit {name}", self.source.show(value))
    }

    #[cold]
    fn in_field(
        &self,
        fault: Box<Fault<S::Error>>,
        shape: Shape,
        number: usize,
    ) -> Box<Fault<S::Error>> {
        fault.under(self.source.step(shape, number))
    }
}

#[inline]
pub(crate) fn deeper<E>(depth: u32) -> Result<u32, Cause<E>> {
    depth
        .checked_sub(1)
        .ok_or(Cause::Unfit(Cow::Borrowed(TOO_DEEP)))
}

#[cold]
fn not_always(given: usize, what: &str, len: usize) -> String {
    format!("{given} {what} where there are always {len}")
}

/// Bytes behind their length.
#[inline]
fn put_bytes<F: Format>(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), &'static str> {
    F::put_u64(out, bytes.len() as u64);
    put(out, bytes)
}

/// Bytes, which may be very many: the lack of memory for them is no reason to abort the program.
#[inline]
fn put(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), &'static str> {
    if out.try_reserve(bytes.len()).is_err() {
        return Err("there is not enough memory to encode it");
    }
    out.extend_from_slice(bytes);
    Ok(())
}

/// The nearest `f32`, unless a finite number would become infinite.
fn narrowed(number: f64) -> Option<f32> {
    let narrow = number as f32;
    (narrow.is_finite() || !number.is_finite()).then_some(narrow)
}
