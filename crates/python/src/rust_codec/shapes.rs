//! What Python has to know about the nodes of a plan, besides what serde has to.

use std::collections::HashMap;
use std::ffi::c_int;

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};
use serde_plan::plan::{Int, Node, NodeId};

/// How the values of one node look in Python.
pub enum Shape {
    /// There is but one way.
    Plain,
    /// `pathlib.Path`.
    Path(Py<PyType>),
    /// A str as Python's `os` module has it: undecodable bytes as surrogates.
    OsString,
    /// `bytes`.
    Bytes,
    /// `bytearray`.
    ByteArray,
    /// An object of a class that is made of bytes and has them as `packed`: an IP address.
    Packed(Py<PyType>),
    /// `list`.
    List,
    /// A tuple of equal items.
    Row,
    /// `set`.
    Set,
    /// `frozenset`.
    FrozenSet,
    /// A tuple of fields.
    Tuple(usize),
    /// An object with named fields.
    Object(Object),
    /// A union of classes.
    Union(Union),
    /// An `enum.Enum`.
    Choice(Choice),
    /// An end or a region.
    Handle(Handle),
}

/// A class with named fields.
pub struct Object {
    pub class: Py<PyType>,
    pub names: Vec<Py<PyString>>,
    /// Whether the constructor takes the fields by name.
    pub keywords: bool,
    /// For an object of exactly this class, how each field is read without looking its name up.
    pub slots: Vec<Slot>,
}

/// A data descriptor of a class: what an attribute's access ends in, whatever the object's own dictionary holds.
pub struct Slot {
    pub descriptor: Py<PyAny>,
    pub get: ffi::descrgetfunc,
}

impl Object {
    fn new(
        class: Py<PyType>,
        names: Vec<Py<PyString>>,
        keywords: bool,
        descriptors: Option<Vec<Bound<'_, PyAny>>>,
        py: Python<'_>,
    ) -> Object {
        let slots = descriptors
            .filter(|_| has_generic_access(class.bind(py)))
            .and_then(|all| all.into_iter().map(Slot::new).collect::<Option<Vec<_>>>())
            .unwrap_or_default();
        Object {
            class,
            names,
            keywords,
            slots,
        }
    }
}

impl Slot {
    /// None if it is no data descriptor.
    fn new(descriptor: Bound<'_, PyAny>) -> Option<Slot> {
        let kind = descriptor.get_type();
        slot(&kind, ffi::Py_tp_descr_set)?;
        let get = slot(&kind, ffi::Py_tp_descr_get)?;
        #[allow(unsafe_code)]
        // SAFETY: that is the type of what is in this slot.
        let get = unsafe { std::mem::transmute::<*mut std::ffi::c_void, ffi::descrgetfunc>(get) };
        Some(Slot {
            descriptor: descriptor.unbind(),
            get,
        })
    }
}

/// What is in a slot of a type.
fn slot(kind: &Bound<'_, PyType>, number: c_int) -> Option<*mut std::ffi::c_void> {
    #[allow(unsafe_code)]
    // SAFETY: it is a type, the number is one of CPython's, and the function only reads.
    let found = unsafe { ffi::PyType_GetSlot(kind.as_type_ptr(), number) };
    (!found.is_null()).then_some(found)
}

/// Whether attributes of the class's objects are found as `object` finds them.
fn has_generic_access(class: &Bound<'_, PyType>) -> bool {
    let generic = ffi::PyObject_GenericGetAttr as *const () as *mut std::ffi::c_void;
    slot(class, ffi::Py_tp_getattro) == Some(generic)
}

/// Classes of which each stands for a variant, in the order of the plan's variants.
pub struct Union {
    pub name: String,
    pub classes: Vec<Py<PyType>>,
}

/// The members of an `enum.Enum`, in their order.
pub struct Choice {
    pub class: Py<PyType>,
    pub members: Vec<Py<PyAny>>,
    /// By address: members are singletons, and this object keeps them alive.
    pub places: HashMap<usize, u32>,
}

/// What a handle's annotation says.
pub struct Handle {
    /// Raises if an object must not travel here.
    pub admit: Py<PyAny>,
    /// Makes the object out of what arrived.
    pub make: Py<PyAny>,
}

impl Shape {
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Shape::Path(class) | Shape::Packed(class) => visit.call(class),
            Shape::Object(object) => {
                visit.call(&object.class)?;
                let mut slots = object.slots.iter();
                slots.try_for_each(|slot| visit.call(&slot.descriptor))
            }
            Shape::Union(union) => {
                let mut classes = union.classes.iter();
                classes.try_for_each(|class| visit.call(class))
            }
            Shape::Choice(choice) => {
                visit.call(&choice.class)?;
                let mut members = choice.members.iter();
                members.try_for_each(|member| visit.call(member))
            }
            Shape::Handle(handle) => {
                visit.call(&handle.admit)?;
                visit.call(&handle.make)
            }
            _ => Ok(()),
        }
    }
}

/// A node and its shape, of a tuple: the name of its kind, and what the kind needs.
pub fn parse(id: NodeId, description: &Bound<'_, PyTuple>) -> PyResult<(Node, Shape)> {
    let py = description.py();
    let rest = description.get_slice(1, description.len());
    let kind: String = description.get_item(0)?.extract()?;
    let int = |int| Ok((Node::Int(int), Shape::Plain));
    match kind.as_str() {
        "unit" => Ok((Node::Unit, Shape::Plain)),
        "bool" => Ok((Node::Bool, Shape::Plain)),
        "u8" => int(Int::U8),
        "u16" => int(Int::U16),
        "u32" => int(Int::U32),
        "u64" => int(Int::U64),
        "u128" => int(Int::U128),
        "i8" => int(Int::I8),
        "i16" => int(Int::I16),
        "i32" => int(Int::I32),
        "i64" => int(Int::I64),
        "i128" => int(Int::I128),
        "f32" => Ok((Node::F32, Shape::Plain)),
        "f64" => Ok((Node::F64, Shape::Plain)),
        "char" => Ok((Node::Char, Shape::Plain)),
        "str" => Ok((Node::Text(id), Shape::Plain)),
        "path" => {
            let (class,) = rest.extract()?;
            Ok((Node::Text(id), Shape::Path(class)))
        }
        "os_string" => Ok((Node::Bytes(id), Shape::OsString)),
        "bytes" => Ok((Node::Bytes(id), Shape::Bytes)),
        "bytearray" => Ok((Node::Bytes(id), Shape::ByteArray)),
        "fixed_bytes" => {
            let (len,) = rest.extract()?;
            Ok((Node::FixedBytes(id, len), Shape::Bytes))
        }
        "packed" => {
            let (len, class) = rest.extract()?;
            Ok((Node::FixedBytes(id, len), Shape::Packed(class)))
        }
        "option" => {
            let (inner,) = rest.extract()?;
            Ok((Node::Option(inner), Shape::Plain))
        }
        "list" | "row" | "set" | "frozenset" => {
            let (item,) = rest.extract()?;
            let shape = match kind.as_str() {
                "list" => Shape::List,
                "row" => Shape::Row,
                "set" => Shape::Set,
                _ => Shape::FrozenSet,
            };
            Ok((Node::Seq(id, item), shape))
        }
        "array" => {
            let (len, item) = rest.extract()?;
            Ok((Node::Array(id, len, item), Shape::Row))
        }
        "dict" => {
            let (key, value) = rest.extract()?;
            Ok((Node::Map(id, key, value), Shape::Plain))
        }
        "tuple" => {
            let (fields,): (Vec<NodeId>,) = rest.extract()?;
            let shape = Shape::Tuple(fields.len());
            Ok((Node::Record(id, fields.into()), shape))
        }
        "object" => {
            let (class, names, fields, keywords, descriptors): (_, _, Vec<NodeId>, _, _) =
                rest.extract()?;
            let object = Object::new(class, names, keywords, descriptors, py);
            if object.names.len() != fields.len() {
                return Err(PyValueError::new_err("as many names as fields"));
            }
            Ok((Node::Record(id, fields.into()), Shape::Object(object)))
        }
        "union" => {
            let (name, variants): (_, Vec<(u32, Py<PyType>, NodeId)>) = rest.extract()?;
            let nodes = variants
                .iter()
                .map(|(tag, _, node)| (*tag, *node))
                .collect();
            let classes = variants.into_iter().map(|(_, class, _)| class).collect();
            Ok((Node::Enum(id, nodes), Shape::Union(Union { name, classes })))
        }
        "choice" => {
            let (class, members): (_, Vec<Py<PyAny>>) = rest.extract()?;
            let places = members.iter().map(|member| member.as_ptr() as usize);
            let choice = Choice {
                class,
                places: places.zip(0..).collect(),
                members,
            };
            let variants = choice.members.len() as u32;
            Ok((Node::Choice(id, variants), Shape::Choice(choice)))
        }
        "end" | "memory" => {
            let (admit, make) = rest.extract()?;
            let node = if kind == "end" {
                Node::End(id)
            } else {
                Node::Memory(id)
            };
            Ok((node, Shape::Handle(Handle { admit, make })))
        }
        other => Err(PyValueError::new_err(format!("no kind of node {other:?}"))),
    }
}
