//! From bytes to a value. Whoever wrote the bytes is not trusted: memory and time are bounded by their number.

use crate::encode::{MAX_DEPTH, deeper};
use crate::fault::{Cause, Fault, Outcome, Step};
use crate::format::{Format, Input};
use crate::plan::{FREE_VALUES, Int, Node, NodeId, Plan, Shape};

/// Puts values together.
pub trait Build {
    /// A value, or any part of one.
    type Value;
    /// What the builder itself fails with.
    type Error;
    /// A sequence or map in the making.
    type Items;

    /// The unit.
    fn unit(&mut self) -> Self::Value;
    /// A truth value.
    fn bool(&mut self, value: bool) -> Self::Value;
    /// An integer.
    fn i64(&mut self, value: i64) -> Result<Self::Value, Cause<Self::Error>>;
    /// An integer.
    fn u64(&mut self, value: u64) -> Result<Self::Value, Cause<Self::Error>>;
    /// An integer.
    fn i128(&mut self, value: i128) -> Result<Self::Value, Cause<Self::Error>>;
    /// An integer.
    fn u128(&mut self, value: u128) -> Result<Self::Value, Cause<Self::Error>>;
    /// A float.
    fn f64(&mut self, value: f64) -> Result<Self::Value, Cause<Self::Error>>;
    /// A character.
    fn char(&mut self, value: char) -> Result<Self::Value, Cause<Self::Error>>;
    /// A string; fails if the bytes are not UTF-8.
    fn text(&mut self, shape: Shape, bytes: &[u8]) -> Result<Self::Value, Cause<Self::Error>>;
    /// Bytes, of variable or fixed number.
    fn bytes(&mut self, shape: Shape, bytes: &[u8]) -> Result<Self::Value, Cause<Self::Error>>;
    /// What stands for no value.
    fn none(&mut self) -> Self::Value;
    /// A sequence of `len` items to come.
    fn items(&mut self, shape: Shape, len: usize) -> Result<Self::Items, Cause<Self::Error>>;
    /// The next item.
    fn item(
        &mut self,
        items: &mut Self::Items,
        item: Self::Value,
    ) -> Result<(), Cause<Self::Error>>;
    /// All items are there.
    fn sequence(
        &mut self,
        shape: Shape,
        items: Self::Items,
    ) -> Result<Self::Value, Cause<Self::Error>>;
    /// A map of entries to come.
    fn entries(&mut self, shape: Shape) -> Result<Self::Items, Cause<Self::Error>>;
    /// The next entry.
    fn entry(
        &mut self,
        entries: &mut Self::Items,
        key: Self::Value,
        value: Self::Value,
    ) -> Result<(), Cause<Self::Error>>;
    /// All entries are there.
    fn map(
        &mut self,
        shape: Shape,
        entries: Self::Items,
    ) -> Result<Self::Value, Cause<Self::Error>>;
    /// Keeps a field until its record is complete.
    fn field(&mut self, field: Self::Value);
    /// A record of the last `len` fields that are kept.
    fn record(&mut self, shape: Shape, len: usize) -> Result<Self::Value, Cause<Self::Error>>;
    /// The enum's variant at that place, which is less than the plan's number of variants.
    fn variant(
        &mut self,
        shape: Shape,
        place: usize,
        content: Self::Value,
    ) -> Result<Self::Value, Cause<Self::Error>>;
    /// The variant of an enum without data; the index is less than the plan's number of variants.
    fn choice(&mut self, shape: Shape, index: u32) -> Result<Self::Value, Cause<Self::Error>>;
    /// The end of that index among those that came beside the bytes. The index is whatever the peer wrote.
    fn end(&mut self, shape: Shape, index: u64) -> Result<Self::Value, Cause<Self::Error>>;
    /// The region of that index, likewise; None is an empty one.
    fn memory(
        &mut self,
        shape: Shape,
        index: Option<u64>,
    ) -> Result<Self::Value, Cause<Self::Error>>;

    /// How a record's field is reached, for errors.
    fn step(&self, shape: Shape, field: usize) -> Step;
    /// The value as users know it, for errors.
    fn show(&self, value: &Self::Value) -> String;
    /// The name of an enum, for errors.
    fn name(&self, shape: Shape) -> String;
}

/// Builds the value that `bytes` stand for. What follows it in `bytes` is ignored, as the real crates do.
pub fn decode<F: Format, B: Build>(
    plan: &Plan,
    bytes: &[u8],
    build: &mut B,
) -> Outcome<B::Value, B::Error> {
    let mut decoder = Decoder::<F, B> {
        plan,
        input: Input::new(bytes),
        free: FREE_VALUES.saturating_add(bytes.len() as u64),
        build,
        format: std::marker::PhantomData,
    };
    decoder.node(plan.root(), MAX_DEPTH)
}

struct Decoder<'a, F, B> {
    plan: &'a Plan,
    input: Input<'a>,
    /// How many more values this message may have that take no bytes.
    free: u64,
    build: &'a mut B,
    format: std::marker::PhantomData<F>,
}

impl<F: Format, B: Build> Decoder<'_, F, B> {
    /// Numbers and strings, of which most fields are, without another call; everything else in one.
    #[inline(always)]
    fn node(&mut self, id: NodeId, depth: u32) -> Outcome<B::Value, B::Error> {
        match self.plan.node(id) {
            Node::Int(int) => self.int(*int),
            Node::Bool => match self.input.byte()? {
                0 => Ok(self.build.bool(false)),
                1 => Ok(self.build.bool(true)),
                other => Err(format!("{other} is no bool").into()),
            },
            Node::F64 => {
                let number = f64::from_le_bytes(self.input.array()?);
                Ok(self.build.f64(number)?)
            }
            Node::Text(shape) => {
                let len = self.len(1)?;
                let bytes = self.input.take(len)?;
                Ok(self.build.text(*shape, bytes)?)
            }
            _ => self.compound(id, depth),
        }
    }

    #[inline(never)]
    fn compound(&mut self, id: NodeId, depth: u32) -> Outcome<B::Value, B::Error> {
        let plan = self.plan;
        Ok(match plan.node(id) {
            Node::Unit => self.build.unit(),
            // Those that `node` has kept for itself.
            Node::Int(_) | Node::Bool | Node::F64 | Node::Text(_) => return self.node(id, depth),
            Node::F32 => {
                let number = f32::from_le_bytes(self.input.array()?);
                self.build.f64(number.into())?
            }
            Node::Char => {
                let value = F::char(&mut self.input)?;
                self.build.char(value)?
            }
            Node::Bytes(shape) => {
                let len = self.len(1)?;
                let bytes = self.input.take(len)?;
                self.build.bytes(*shape, bytes)?
            }
            Node::FixedBytes(shape, len) => {
                let bytes = self.input.take(*len)?;
                self.build.bytes(*shape, bytes)?
            }
            Node::Option(inner) => match self.input.byte()? {
                0 => self.build.none(),
                1 => return self.node(*inner, deeper(depth)?),
                other => return Err(format!("{other} is neither None (0) nor Some (1)").into()),
            },
            Node::Seq(shape, item) => {
                let len = self.len(plan.least(*item))?;
                return self.items(*shape, len, *item, deeper(depth)?);
            }
            Node::Array(shape, len, item) => {
                self.afford(*len, plan.least(*item))?;
                return self.items(*shape, *len, *item, deeper(depth)?);
            }
            Node::Record(shape, fields) => {
                let depth = deeper(depth)?;
                for (number, field) in fields.iter().enumerate() {
                    match self.node(*field, depth) {
                        Ok(part) => self.build.field(part),
                        Err(fault) => return Err(fault.under(self.build.step(*shape, number))),
                    }
                }
                self.build.record(*shape, fields.len())?
            }
            Node::Map(shape, key, value) => {
                return self.entries(*shape, *key, *value, deeper(depth)?);
            }
            Node::Enum(shape, variants) => {
                let index = F::u32(&mut self.input)?;
                // Mostly an enum's variants are all there, so that the index is the place.
                let place = match variants.get(index as usize) {
                    Some((found, _)) if *found == index => index as usize,
                    _ => match variants.binary_search_by_key(&index, |(index, _)| *index) {
                        Ok(place) => place,
                        Err(_) => return Err(self.no_variant(*shape, index).into()),
                    },
                };
                let content = self.node(variants[place].1, deeper(depth)?)?;
                self.build.variant(*shape, place, content)?
            }
            Node::Choice(shape, variants) => {
                let index = F::u32(&mut self.input)?;
                if index >= *variants {
                    return Err(self.no_variant(*shape, index).into());
                }
                self.build.choice(*shape, index)?
            }
            Node::End(shape) => {
                let index = F::u64(&mut self.input)?;
                self.build.end(*shape, index)?
            }
            Node::Memory(shape) => {
                let index = F::u64(&mut self.input)?;
                self.build
                    .memory(*shape, (index != u64::MAX).then_some(index))?
            }
        })
    }

    #[inline]
    fn int(&mut self, int: Int) -> Outcome<B::Value, B::Error> {
        let input = &mut self.input;
        Ok(match int {
            Int::U8 => self.build.i64(input.byte()?.into())?,
            Int::U16 => self.build.i64(F::u16(input)?.into())?,
            Int::U32 => self.build.i64(F::u32(input)?.into())?,
            Int::U64 => self.build.u64(F::u64(input)?)?,
            Int::U128 => self.build.u128(F::u128(input)?)?,
            Int::I8 => self.build.i64((input.byte()? as i8).into())?,
            Int::I16 => self.build.i64(F::i16(input)?.into())?,
            Int::I32 => self.build.i64(F::i32(input)?.into())?,
            Int::I64 => self.build.i64(F::i64(input)?)?,
            Int::I128 => self.build.i128(F::i128(input)?)?,
        })
    }

    /// A length that the rest of the message has room for, if each item takes `least` bytes or more.
    fn len(&mut self, least: usize) -> Outcome<usize, B::Error> {
        let len = F::u64(&mut self.input)?;
        match usize::try_from(len) {
            Ok(len) if least == 0 => Ok(len),
            Ok(len) if self.has_room(len, least) => Ok(len),
            _ => Err(self.no_room(len).into()),
        }
    }

    fn has_room(&self, len: usize, least: usize) -> bool {
        len.checked_mul(least)
            .is_some_and(|bytes| bytes <= self.input.left())
    }

    #[cold]
    fn no_room(&self, len: u64) -> String {
        let left = self.input.left();
        format!("it would have {len} items or bytes, and the message goes on for {left} bytes only")
    }

    /// Checks that an array of `len` items can be there.
    fn afford(&self, len: usize, least: usize) -> Outcome<(), B::Error> {
        if least > 0 && !self.has_room(len, least) {
            return Err(self.no_room(len as u64).into());
        }
        Ok(())
    }

    /// Counts `len` values of that node if the peer has them for nothing.
    fn charge(&mut self, len: usize, node: NodeId) -> Outcome<(), B::Error> {
        if self.plan.least(node) == 0 {
            let values = self.plan.weight(node).saturating_mul(len as u64);
            match self.free.checked_sub(values) {
                Some(left) => self.free = left,
                None => {
                    return Err(format!(
                        "{len} items that take no bytes are more than a message of this size may have"
                    )
                    .into());
                }
            }
        }
        Ok(())
    }

    fn items(
        &mut self,
        shape: Shape,
        len: usize,
        node: NodeId,
        depth: u32,
    ) -> Outcome<B::Value, B::Error> {
        self.charge(len, node)?;
        let mut items = self.build.items(shape, len)?;
        for index in 0..len {
            let item = self
                .node(node, depth)
                .map_err(|fault| fault.under(Step::Index(index)))?;
            if let Err(cause) = self.build.item(&mut items, item) {
                return Err(Box::<Fault<_>>::from(cause).under(Step::Index(index)));
            }
        }
        Ok(self.build.sequence(shape, items)?)
    }

    fn entries(
        &mut self,
        shape: Shape,
        key_node: NodeId,
        value_node: NodeId,
        depth: u32,
    ) -> Outcome<B::Value, B::Error> {
        let least = self
            .plan
            .least(key_node)
            .saturating_add(self.plan.least(value_node));
        let len = self.len(least)?;
        if least == 0 {
            self.charge(len, key_node)?;
            self.charge(len, value_node)?;
        }
        let mut entries = self.build.entries(shape)?;
        for index in 0..len {
            let key = self
                .node(key_node, depth)
                .map_err(|fault| fault.under(Step::Key(index)))?;
            let value = match self.node(value_node, depth) {
                Ok(value) => value,
                Err(fault) => return Err(fault.under(Step::Entry(self.build.show(&key)))),
            };
            if let Err(cause) = self.build.entry(&mut entries, key, value) {
                return Err(Box::<Fault<_>>::from(cause).under(Step::Key(index)));
            }
        }
        Ok(self.build.map(shape, entries)?)
    }

    #[cold]
    fn no_variant(&self, shape: Shape, index: u32) -> String {
        format!("{} has no variant {index}", self.build.name(shape))
    }
}
