//! What a type looks like to serde: the plan that encoding and decoding follow.

use crate::format::Format;

/// The place of a node in its plan.
pub type NodeId = u32;

/// What the owner of the values needs to know about a node: a number of its own, which is handed back as it is.
pub type Shape = u32;

/// An integer type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)] // they are Rust's own
pub enum Int {
    U8,
    U16,
    U32,
    U64,
    U128,
    I8,
    I16,
    I32,
    I64,
    I128,
}

impl Int {
    /// Its name in Rust.
    pub fn name(self) -> &'static str {
        match self {
            Int::U8 => "u8",
            Int::U16 => "u16",
            Int::U32 => "u32",
            Int::U64 => "u64",
            Int::U128 => "u128",
            Int::I8 => "i8",
            Int::I16 => "i16",
            Int::I32 => "i32",
            Int::I64 => "i64",
            Int::I128 => "i128",
        }
    }

    /// How many bits it has.
    pub fn bits(self) -> u32 {
        match self {
            Int::U8 | Int::I8 => 8,
            Int::U16 | Int::I16 => 16,
            Int::U32 | Int::I32 => 32,
            Int::U64 | Int::I64 => 64,
            Int::U128 | Int::I128 => 128,
        }
    }
}

/// One type in a plan. Parts are other nodes of the same plan, so that a type may contain itself.
#[derive(Clone, Debug)]
pub enum Node {
    /// `()`, a unit struct: no bytes.
    Unit,
    /// `bool`.
    Bool,
    /// Any integer.
    Int(Int),
    /// `f32`.
    F32,
    /// `f64`.
    F64,
    /// `char`.
    Char,
    /// A string.
    Text(Shape),
    /// A sequence of bytes.
    Bytes(Shape),
    /// An array of that many bytes, without a length in front.
    FixedBytes(Shape, usize),
    /// `Option`.
    Option(NodeId),
    /// A sequence: its length, and the items.
    Seq(Shape, NodeId),
    /// An array of that many items, without a length in front.
    Array(Shape, usize, NodeId),
    /// A struct or tuple: its fields, one after the other.
    Record(Shape, Box<[NodeId]>),
    /// A map: its length, and keys and values in turn.
    Map(Shape, NodeId, NodeId),
    /// An enum with data: the index of a variant, and its content. Indices ascend. The value of the enum is also
    /// that of its variant's content, so this is nothing that would ask the value once more which it is.
    Enum(Shape, Box<[(u32, NodeId)]>),
    /// An enum without data, of that many variants: the index alone.
    Choice(Shape, u32),
    /// A channel's end: its index among the ends that travel beside the bytes.
    End(Shape),
    /// Shared memory: its index among the regions that travel beside the bytes, `usize::MAX` for an empty one.
    Memory(Shape),
}

impl Node {
    fn parts(&self) -> Vec<NodeId> {
        match self {
            Node::Option(part) | Node::Seq(_, part) | Node::Array(_, _, part) => vec![*part],
            Node::Record(_, parts) => parts.to_vec(),
            Node::Map(_, key, value) => vec![*key, *value],
            Node::Enum(_, variants) => variants.iter().map(|(_, part)| *part).collect(),
            _ => Vec::new(),
        }
    }
}

/// Why nodes are no plan.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlanError {
    /// This node refers to one that does not exist.
    Missing(NodeId),
    /// The indices of this enum's variants do not ascend, or it has none, or one is an enum or option itself.
    Variants(NodeId),
    /// Every value of this node would contain another one of the same node.
    Endless(NodeId),
    /// This array has more items without any bytes than a message may have.
    Free(NodeId),
}

/// A plan of one type for one format.
#[derive(Clone, Debug)]
pub struct Plan {
    nodes: Box<[Node]>,
    root: NodeId,
    /// For each node, how many bytes a value takes at least.
    least: Box<[usize]>,
    /// For each node whose values may take no bytes at all: how many values such a one is made of.
    weight: Box<[u64]>,
}

/// How many values that take no bytes a message may hold, above one for each of its bytes.
pub const FREE_VALUES: u64 = 1 << 16;

/// Stands for a size that no value has.
const NONE: usize = usize::MAX;

impl Plan {
    /// Checks the nodes, and computes what the limits need to know.
    pub fn new<F: Format>(nodes: Vec<Node>, root: NodeId) -> Result<Plan, PlanError> {
        let exists = |id: &NodeId| (*id as usize) < nodes.len();
        for (id, node) in (0..).zip(&nodes) {
            if !node.parts().iter().all(exists) {
                return Err(PlanError::Missing(id));
            }
            let is_content = |(_, id): &(u32, NodeId)| {
                !matches!(nodes[*id as usize], Node::Enum(..) | Node::Option(_))
            };
            let sound = match node {
                Node::Enum(_, variants) => {
                    !variants.is_empty()
                        && variants.is_sorted_by(|a, b| a.0 < b.0)
                        && variants.iter().all(is_content)
                }
                Node::Choice(_, variants) => *variants > 0,
                _ => true,
            };
            if !sound {
                return Err(PlanError::Variants(id));
            }
        }
        if !exists(&root) {
            return Err(PlanError::Missing(root));
        }
        let least = least::<F>(&nodes);
        if let Some(endless) = least.iter().position(|size| *size == NONE) {
            return Err(PlanError::Endless(endless as NodeId));
        }
        let weight = weights(&nodes, &least);
        if let Some(free) = weight.iter().position(|values| *values > FREE_VALUES) {
            return Err(PlanError::Free(free as NodeId));
        }
        Ok(Plan {
            nodes: nodes.into(),
            root,
            least,
            weight,
        })
    }

    /// The node of the whole value.
    pub fn root(&self) -> NodeId {
        self.root
    }

    #[inline]
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    /// How many bytes a value of that node takes at least.
    #[inline]
    pub(crate) fn least(&self, id: NodeId) -> usize {
        self.least[id as usize]
    }

    /// How many values one of that node is made of, if it may be had for no bytes.
    #[inline]
    pub(crate) fn weight(&self, id: NodeId) -> u64 {
        self.weight[id as usize]
    }
}

/// Least sizes; `NONE` where every value would have to contain itself.
fn least<F: Format>(nodes: &[Node]) -> Box<[usize]> {
    let mut least = vec![NONE; nodes.len()].into_boxed_slice();
    // Sizes only fall, and a node's is settled one round after those of its parts.
    for _ in 0..=nodes.len() {
        let mut changed = false;
        for (id, node) in nodes.iter().enumerate() {
            let part = |id: &NodeId| least[*id as usize];
            let size = match node {
                Node::Unit => 0,
                Node::Bool | Node::Int(Int::U8 | Int::I8) | Node::Option(_) => 1,
                Node::Int(int) => F::least(int.bits()),
                Node::F32 => 4,
                Node::F64 => 8,
                Node::Char => F::LEAST_CHAR,
                Node::Text(_) | Node::Bytes(_) | Node::Seq(..) | Node::Map(..) => F::least(64),
                Node::End(_) | Node::Memory(_) => F::least(64),
                Node::FixedBytes(_, len) => *len,
                Node::Array(_, 0, _) => 0,
                Node::Array(_, len, item) => match part(item) {
                    NONE => NONE,
                    size => size.saturating_mul(*len).min(NONE - 1),
                },
                Node::Record(_, fields) => {
                    fields.iter().map(part).fold(0, |sum, size| match size {
                        NONE => NONE,
                        _ if sum == NONE => NONE,
                        size => sum.saturating_add(size).min(NONE - 1),
                    })
                }
                Node::Enum(_, variants) => match variants.iter().map(|(_, id)| part(id)).min() {
                    None | Some(NONE) => NONE,
                    Some(size) => size.saturating_add(F::least(32)).min(NONE - 1),
                },
                Node::Choice(..) => F::least(32),
            };
            changed |= size != least[id];
            least[id] = size;
        }
        if !changed {
            break;
        }
    }
    least
}

fn weights(nodes: &[Node], least: &[usize]) -> Box<[u64]> {
    let mut weight = vec![1_u64; nodes.len()].into_boxed_slice();
    // What takes no bytes does not contain itself, so this settles as well.
    for _ in 0..=nodes.len() {
        let mut changed = false;
        for (id, node) in nodes.iter().enumerate() {
            let part = |id: &NodeId| weight[*id as usize];
            let sum = match node {
                _ if least[id] > 0 => 1,
                Node::Array(_, len, item) if *len > 0 => part(item).saturating_mul(*len as u64),
                Node::Record(_, fields) => fields.iter().map(part).fold(1, u64::saturating_add),
                _ => 1,
            };
            changed |= sum != weight[id];
            weight[id] = sum;
        }
        if !changed {
            break;
        }
    }
    weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bincode::Bincode;
    use crate::postcard::Postcard;

    fn record(fields: &[NodeId]) -> Node {
        Node::Record(0, fields.into())
    }

    #[test]
    fn sizes_depend_on_the_format() {
        let nodes = vec![
            Node::Int(Int::U64),
            Node::Text(0),
            record(&[0, 1, 0]),
            Node::Choice(0, 3),
            Node::Array(0, 3, 2),
        ];
        let postcard = Plan::new::<Postcard>(nodes.clone(), 4).unwrap();
        assert_eq!(*postcard.least, [1, 1, 3, 1, 9]);
        let bincode = Plan::new::<Bincode>(nodes, 4).unwrap();
        assert_eq!(*bincode.least, [8, 8, 24, 4, 72]);
    }

    #[test]
    fn a_type_may_contain_itself_where_that_can_end() {
        // struct List { item: u8, next: Option<List> }
        let list = vec![Node::Int(Int::U8), Node::Option(2), record(&[0, 1])];
        assert_eq!(*Plan::new::<Postcard>(list, 2).unwrap().least, [1, 1, 2]);
        // enum Tree { Leaf(u8), Pair(Tree, Tree) }
        let tree = vec![
            Node::Enum(0, Box::new([(0, 1), (1, 2)])),
            record(&[3]),
            record(&[0, 0]),
            Node::Int(Int::U8),
        ];
        assert_eq!(*Plan::new::<Postcard>(tree, 0).unwrap().least, [2, 1, 4, 1]);
    }

    #[test]
    fn what_has_no_value_is_refused() {
        for nodes in [
            vec![record(&[0])],
            vec![Node::Array(0, 1, 0)],
            vec![Node::Enum(0, Box::new([(0, 1), (3, 1)])), record(&[0])],
        ] {
            assert_eq!(
                Plan::new::<Postcard>(nodes, 0).unwrap_err(),
                PlanError::Endless(0)
            );
        }
        // An array without items ends at once.
        assert!(Plan::new::<Postcard>(vec![Node::Array(0, 0, 0)], 0).is_ok());
    }

    #[test]
    fn what_refers_to_nothing_is_refused() {
        let error = |nodes, root| Plan::new::<Postcard>(nodes, root).unwrap_err();
        assert_eq!(error(vec![Node::Unit], 1), PlanError::Missing(1));
        assert_eq!(error(vec![Node::Seq(0, 7)], 0), PlanError::Missing(0));
        let variants = |tags: &[u32], content| {
            let variants = tags.iter().map(|tag| (*tag, 1)).collect();
            vec![Node::Enum(0, variants), content]
        };
        assert_eq!(
            error(variants(&[1, 1], Node::Unit), 0),
            PlanError::Variants(0)
        );
        assert_eq!(
            error(variants(&[2, 1], Node::Unit), 0),
            PlanError::Variants(0)
        );
        assert_eq!(error(variants(&[], Node::Unit), 0), PlanError::Variants(0));
        assert_eq!(
            error(variants(&[0], Node::Option(1)), 0),
            PlanError::Variants(0)
        );
        assert_eq!(
            error(variants(&[0], Node::Enum(0, Box::new([(0, 0)]))), 0),
            PlanError::Variants(0)
        );
        assert_eq!(error(vec![Node::Choice(0, 0)], 0), PlanError::Variants(0));
    }

    #[test]
    fn sizes_beyond_all_memory_do_not_overflow() {
        let nodes = vec![
            Node::Int(Int::U64),
            Node::Array(0, usize::MAX / 2, 0),
            record(&[1, 1, 1]),
        ];
        let plan = Plan::new::<Bincode>(nodes, 2).unwrap();
        assert_eq!(plan.least(2), usize::MAX - 1);
        let nodes = vec![
            Node::Unit,
            Node::Array(0, usize::MAX, 0),
            Node::Array(0, usize::MAX, 1),
        ];
        assert_eq!(*weights(&nodes, &[0; 3]), [1, u64::MAX, u64::MAX]);
        assert_eq!(
            Plan::new::<Bincode>(nodes, 0).unwrap_err(),
            PlanError::Free(1)
        );
    }

    #[test]
    fn an_array_without_bytes_may_have_as_many_items_as_a_message() {
        let array = |len| vec![Node::Unit, Node::Array(0, len, 0)];
        let most = FREE_VALUES as usize;
        assert_eq!(
            Plan::new::<Postcard>(array(most), 1).unwrap().weight(1),
            FREE_VALUES
        );
        assert_eq!(
            Plan::new::<Postcard>(array(most + 1), 1).unwrap_err(),
            PlanError::Free(1)
        );
    }
}
