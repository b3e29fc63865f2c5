//! The codec of channels to Rust programs: a plan made of Python annotations, run on Python objects.
//!
//! What a plan is, and what it makes of bytes, is the crate `serde_plan`'s. Here are the two things that it
//! needs to know of Python: how an object is taken apart (`source.rs`) and how one is put together (`build.rs`).

mod build;
mod shapes;
mod source;

use pyo3::exceptions::{PyException, PyMemoryError, PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PyString, PyTuple};
use serde_plan::bincode::Bincode;
use serde_plan::decode::decode;
use serde_plan::encode::encode;
use serde_plan::fault::{Cause, Fault};
use serde_plan::plan::{FREE_VALUES, Plan, PlanError};
use serde_plan::postcard::Postcard;

use crate::delivery::bytes_object;
use crate::errors;
use crate::parcel::{Encoded, Parcel};
use crate::scratch::Scratch;
use build::with_builder;
use shapes::Shape;
use source::Objects;

#[derive(Clone, Copy)]
enum Layout {
    Postcard,
    Bincode,
}

/// A type, as serde sees it, in one of the two formats: encodes and decodes its values.
#[pyclass(frozen, module = "ipc_channel._core")]
pub struct RustPlan {
    plan: Plan,
    layout: Layout,
    /// What Python has to know about each node of the plan, at the same place.
    shapes: Vec<Shape>,
    /// How errors call the whole message.
    root: String,
}

#[pymethods]
impl RustPlan {
    #[new]
    fn new(
        layout: &str,
        nodes: Vec<Bound<'_, PyTuple>>,
        places: Vec<String>,
        root: String,
    ) -> PyResult<RustPlan> {
        let mut shapes = Vec::with_capacity(nodes.len());
        let mut plain = Vec::with_capacity(nodes.len());
        for (id, node) in (0..).zip(&nodes) {
            let (node, shape) = shapes::parse(id, node)?;
            plain.push(node);
            shapes.push(shape);
        }
        let (plan, layout) = match layout {
            "postcard" => (Plan::new::<Postcard>(plain, 0), Layout::Postcard),
            "bincode" => (Plan::new::<Bincode>(plain, 0), Layout::Bincode),
            other => return Err(PyValueError::new_err(format!("no layout {other:?}"))),
        };
        let plan = plan.map_err(|error| {
            let (node, text) = match error {
                PlanError::Endless(node) => (
                    node,
                    "every value of it would contain another one".to_owned(),
                ),
                PlanError::Free(node) => {
                    let text = format!("it has more than {FREE_VALUES} items that take no bytes");
                    (node, text)
                }
                PlanError::Variants(node) => (
                    node,
                    "its variants are in no order, or are enums themselves".to_owned(),
                ),
                PlanError::Missing(node) => (node, "a part of it is missing".to_owned()),
            };
            let place = places.get(node as usize).unwrap_or(&root);
            PyTypeError::new_err(format!("{place}: {text}"))
        })?;
        Ok(RustPlan {
            plan,
            layout,
            shapes,
            root,
        })
    }

    /// The bytes of a message, or a parcel of them and its handles. Raises EncodeError.
    #[pyo3(signature = (message, /))]
    fn encode<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.write(message)?.into_object(message.py())
    }

    /// The message that the bytes stand for; `handles` makes ends and regions of those that came beside them.
    /// Raises DecodeError.
    #[pyo3(signature = (payload, handles = None, /))]
    fn decode<'py>(
        &self,
        payload: &Bound<'py, PyAny>,
        handles: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = payload.py();
        let copy;
        let bytes = match payload.cast::<PyBytes>() {
            Ok(bytes) => bytes.as_bytes(),
            // A copy: Python code runs while a message is decoded, and might write to a buffer of its own.
            Err(_) => {
                let view = PyMemoryView::from(payload)?;
                copy = view
                    .call_method0(intern!(py, "tobytes"))?
                    .cast_into::<PyBytes>()?;
                copy.as_bytes()
            }
        };
        self.read(py, bytes, handles)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.shapes
            .iter()
            .try_for_each(|shape| shape.traverse(&visit))
    }
}

impl RustPlan {
    /// What `encode` gives.
    #[inline]
    pub fn write(&self, message: &Bound<'_, PyAny>) -> PyResult<Encoded> {
        let py = message.py();
        let mut source = Objects::new(py, &self.shapes);
        let mut out = Scratch::new();
        let outcome = match self.layout {
            Layout::Postcard => encode::<Postcard, _>(&self.plan, message, &mut source, &mut out),
            Layout::Bincode => encode::<Bincode, _>(&self.plan, message, &mut source, &mut out),
        };
        outcome.map_err(|fault| self.raise(py, *fault, intern!(py, "EncodeError")))?;
        let Some(handles) = source.handles() else {
            return Ok(Encoded::Written(out));
        };
        let payload = bytes_object(py, &out)?;
        let parcel = py.get_type::<Parcel>().call1((payload, handles))?;
        Ok(Encoded::Parcel(parcel.cast_into::<Parcel>()?.unbind()))
    }

    /// The message that the bytes stand for, as `decode` gives it.
    #[inline]
    pub fn read<'py>(
        &self,
        py: Python<'py>,
        bytes: &[u8],
        handles: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let outcome = with_builder(py, &self.shapes, handles, |builder| match self.layout {
            Layout::Postcard => decode::<Postcard, _>(&self.plan, bytes, builder),
            Layout::Bincode => decode::<Bincode, _>(&self.plan, bytes, builder),
        });
        outcome.map_err(|fault| self.raise(py, *fault, intern!(py, "DecodeError")))
    }

    /// An error that names the place. What is no fault of the message stays as it is: interrupts, the lack of
    /// memory or of descriptors.
    #[cold]
    fn raise(&self, py: Python<'_>, fault: Fault<PyErr>, name: &Bound<'_, PyString>) -> PyErr {
        let path = fault.path(&self.root);
        let class = match errors::class(py, name) {
            Ok(class) => class,
            Err(error) => return error,
        };
        let error = match fault.cause {
            Cause::Unfit(text) => return PyErr::from_type(class, format!("{path}: {text}")),
            Cause::Foreign(error) => error,
        };
        let same = error.is_instance(py, &class);
        let other = errors::class(py, intern!(py, "IpcError"))
            .is_ok_and(|base| !same && error.is_instance(py, &base));
        if other
            || !error.is_instance_of::<PyException>(py)
            || error.is_instance_of::<PyMemoryError>(py)
        {
            return error;
        }
        let raised = PyErr::from_type(class, format!("{path}: {}", error.value(py)));
        raised.set_cause(py, if same { error.cause(py) } else { Some(error) });
        raised
    }
}
