//! What the product plugs into an end: how its messages become bytes and back.

use ipc_channel_transport::Message;
use ipc_channel_transport::wire::rust::Version;
use pyo3::exceptions::{PyBufferError, PyException, PyMemoryError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple, PyType};

use crate::call;
use crate::delivery::{Delivery, View, bytes_object, payload_of};
use crate::errors;
use crate::literals;
use crate::parcel::Encoded;
use crate::rust_codec::RustPlan;
use crate::scratch::Scratch;

pub const LABEL_BYTES: u8 = 0;
pub const LABEL_TYPED: u8 = 1;
pub const LABEL_PICKLED: u8 = 2;
pub const LABEL_RUST: u8 = 3;
pub const LABEL_RUST_0_21: u8 = 4;
pub const LABEL_RUST_0_20: u8 = 5;

/// The version of the crate whose ends have that label.
pub fn version(label: u8) -> PyResult<Version> {
    match label {
        LABEL_RUST => Ok(Version::Current),
        LABEL_RUST_0_21 => Ok(Version::V0_21),
        LABEL_RUST_0_20 => Ok(Version::V0_20),
        other => Err(PyValueError::new_err(format!(
            "{other} is not the label of a version of the crate"
        ))),
    }
}

/// The label of that version.
pub fn label_of(version: Version) -> u8 {
    match version {
        Version::Current => LABEL_RUST,
        Version::V0_21 => LABEL_RUST_0_21,
        Version::V0_20 => LABEL_RUST_0_20,
    }
}

/// "A or B" for the types that `isinstance` takes.
fn names(types: &Bound<'_, PyAny>) -> PyResult<String> {
    let one = |one: &Bound<'_, PyAny>| -> PyResult<String> {
        Ok(one.cast::<PyType>()?.qualname()?.to_string())
    };
    let Ok(several) = types.cast::<PyTuple>() else {
        return one(types);
    };
    let names: Vec<String> = several
        .iter()
        .map(|each| one(&each))
        .collect::<PyResult<_>>()?;
    Ok(names.join(" or "))
}

/// An encoder that may meet handles, for which it looks on its thread's stack of frames: the steps of
/// `ipc_channel.codecs.frames.Encoding.encode`.
struct Encoding {
    /// Stands for the frame of a message without handles.
    marker: Py<PyAny>,
    encoder: Py<PyAny>,
    /// Makes a parcel of a payload and the frame that was found in the marker's place.
    finish: Py<PyAny>,
}

impl Encoding {
    fn new(encoding: Bound<'_, PyAny>) -> PyResult<Encoding> {
        let py = encoding.py();
        Ok(Encoding {
            encoder: encoding.getattr(intern!(py, "encoder"))?.unbind(),
            finish: encoding.getattr(intern!(py, "finish"))?.unbind(),
            marker: encoding.unbind(),
        })
    }

    fn encode<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = message.py();
        let stack = stack_of_this_thread(py)?;
        let marker = self.marker.bind(py);
        stack.append(marker)?;
        let payload = call::with_one(self.encoder.bind(py), message);
        let last = stack.len() - 1;
        let frame = stack.get_item(last);
        stack.del_item(last)?;
        let (payload, frame) = (payload?, frame?);
        if frame.is(marker) {
            return Ok(payload);
        }
        self.finish.bind(py).call1((payload, frame))
    }
}

/// The list of frames of the calling thread. Asked anew each time: what a thread is, Python says.
fn stack_of_this_thread(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    static STACK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let stack = STACK.get_or_try_init(py, || -> PyResult<Py<PyAny>> {
        let frames = PyModule::import(py, intern!(py, "ipc_channel.codecs.frames"))?;
        Ok(frames.getattr(intern!(py, "stack"))?.unbind())
    })?;
    let frames = stack.bind(py).getattr(intern!(py, "frames"))?;
    Ok(frames.cast_into::<PyList>()?)
}

/// What a message consists of that has neither handles nor buffers.
pub enum Payload<'a> {
    Object(Py<PyBytes>),
    /// Python does not need to see it: the plan decodes it.
    Planned(Scratch, &'a RustPlan),
}

impl Payload<'_> {
    #[inline]
    pub fn len(&self, py: Python<'_>) -> usize {
        match self {
            Payload::Object(object) => object.as_bytes(py).len(),
            Payload::Planned(bytes, _) => bytes.len(),
        }
    }
}

/// The parts of a codec object, looked up once.
pub struct Plug {
    /// Small trees of builtin values go by [`literals`].
    pickles: bool,
    accepts: Option<Py<PyAny>>,
    encode: Option<Py<PyAny>>,
    encoding: Option<Encoding>,
    decode: Option<Py<PyAny>>,
    /// What `encode` and `decode` call and nothing else, if that is in this module: then they need not be called by way
    /// of Python.
    plan: Option<Py<RustPlan>>,
    decode_delivery: Option<Py<PyAny>>,
}

impl Plug {
    pub fn new(codec: &Bound<'_, PyAny>) -> PyResult<Plug> {
        let py = codec.py();
        let part = |name: &Bound<'_, PyString>| -> PyResult<Option<Py<PyAny>>> {
            let part = codec.getattr(name)?;
            Ok((!part.is_none()).then(|| part.unbind()))
        };
        let encoding = codec.getattr_opt(intern!(py, "encoding"))?;
        let label: u8 = codec.getattr(intern!(py, "label"))?.extract()?;
        let decode = part(intern!(py, "decode"))?;
        Ok(Plug {
            pickles: label == LABEL_PICKLED && decode.is_some(),
            accepts: part(intern!(py, "accepts"))?,
            encode: part(intern!(py, "encode"))?,
            encoding: encoding
                .filter(|encoding| !encoding.is_none())
                .map(Encoding::new)
                .transpose()?,
            decode,
            plan: match codec.getattr_opt(intern!(py, "plan"))? {
                Some(plan) => plan.extract()?,
                None => None,
            },
            decode_delivery: part(intern!(py, "decode_delivery"))?,
        })
    }

    /// Whether messages are bytes, sent as they are.
    #[inline]
    pub fn is_raw(&self) -> bool {
        self.encode.is_none() && self.accepts.is_none()
    }

    /// Whether a message that is its payload and nothing else is given out as it is.
    #[inline]
    pub fn gives_payloads(&self) -> bool {
        self.decode.is_none()
    }

    /// What is to be sent for `message`.
    pub fn encode(&self, message: &Bound<'_, PyAny>) -> PyResult<Encoded> {
        let py = message.py();
        if let Some(accepts) = &self.accepts
            && !message.is_instance(accepts.bind(py))?
        {
            let class = errors::class(py, intern!(py, "EncodeError"))?;
            return Err(PyErr::from_type(
                class,
                format!(
                    "this channel carries {}, and the message is of type {}",
                    names(accepts.bind(py))?,
                    message.get_type().qualname()?
                ),
            ));
        }
        if self.pickles
            && let Some(written) = literals::write(message)
        {
            return Ok(Encoded::Written(written));
        }
        let encoded = match (&self.encoding, &self.plan, &self.encode) {
            (Some(encoding), _, _) => encoding.encode(message).and_then(Encoded::new),
            (None, Some(plan), _) => plan.get().write(message),
            (None, None, Some(encode)) => {
                call::with_one(encode.bind(py), message).and_then(Encoded::new)
            }
            (None, None, None) => Encoded::from_buffer(message),
        };
        encoded.map_err(|error| {
            if error.is_instance_of::<PyBufferError>(py) {
                return error;
            }
            let name = intern!(py, "EncodeError");
            errors::from_codec(py, error, name, "the message cannot be encoded")
        })
    }

    /// The object that `message` stands for.
    pub fn decode(&self, py: Python<'_>, message: Message) -> PyResult<Py<PyAny>> {
        let decoded = match (message.is_plain(), &self.decode, &self.decode_delivery) {
            (true, None, _) => payload_of(py, &message).map(Bound::into_any),
            (true, Some(decode), _) => View::to_decode(py, message)
                .and_then(|payload| self.read(decode.bind(py), &payload)),
            (false, _, Some(decode)) => {
                Bound::new(py, Delivery::new(message)).and_then(|delivery| {
                    let decoded = decode.bind(py).call1((&delivery,));
                    delivery.get().discard();
                    decoded
                })
            }
            (false, _, None) => {
                let class = errors::class(py, intern!(py, "DecodeError"))?;
                Err(PyErr::from_type(
                    class,
                    "the message carries handles, and messages of this channel's type have none; \
                     they were closed",
                ))
            }
        };
        decoded
            .map(Bound::unbind)
            .map_err(|error| undecodable(py, error))
    }

    /// A copy of a payload, to be decoded. Raises MemoryError.
    #[inline]
    pub fn payload_of(&self, py: Python<'_>, bytes: &[u8]) -> PyResult<Payload<'_>> {
        match &self.plan {
            None => bytes_object(py, bytes).map(|object| Payload::Object(object.unbind())),
            Some(plan) => Scratch::copy_of(bytes)
                .map(|copy| Payload::Planned(copy, plan.get()))
                .ok_or_else(|| PyMemoryError::new_err(())),
        }
    }

    /// The object that a message stands for which is `payload` and nothing else.
    #[inline]
    pub fn decode_payload(&self, py: Python<'_>, payload: Payload<'_>) -> PyResult<Py<PyAny>> {
        let decoded = match (payload, &self.decode) {
            (Payload::Object(payload), None) => return Ok(payload.into_any()),
            (Payload::Object(payload), Some(decode)) => {
                self.read(decode.bind(py), payload.bind(py).as_any())
            }
            (Payload::Planned(bytes, plan), _) => plan.read(py, &bytes, None),
        };
        decoded
            .map(Bound::unbind)
            .map_err(|error| undecodable(py, error))
    }

    /// What a payload without handles and buffers says.
    #[inline]
    fn read<'py>(
        &self,
        decode: &Bound<'py, PyAny>,
        payload: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if let Ok(payload) = payload.cast_exact::<PyBytes>() {
            let bytes = payload.as_bytes();
            if let Some(plan) = &self.plan {
                return plan.get().read(payload.py(), bytes, None);
            }
            if self.pickles && literals::are_in(bytes) {
                return literals::read(payload.py(), bytes);
            }
        }
        call::with_one(decode, payload)
    }
}

fn undecodable(py: Python<'_>, error: PyErr) -> PyErr {
    let name = intern!(py, "DecodeError");
    errors::from_codec(py, error, name, "the message cannot be decoded")
}

/// Decodes a delivery as a receiver with that codec does.
#[pyfunction]
pub fn decode(
    py: Python<'_>,
    codec: &Bound<'_, PyAny>,
    delivery: &Bound<'_, Delivery>,
) -> PyResult<Py<PyAny>> {
    let plug = Plug::new(codec)?;
    let decoded = plug.decode(py, delivery.get().for_decoding()?);
    match &decoded {
        // Interrupted by Ctrl-C, say: without handles it can be decoded again.
        Err(error) if !error.is_instance_of::<PyException>(py) => {}
        _ => delivery.get().discard(),
    }
    decoded
}
