//! The extension module `ipc_channel._core`: the transport as Python objects.
//!
//! A file a class. This crate converts arguments, releases the GIL around every wait, checks signals, and
//! maps errors (in `errors.rs`); what channels do is the transport's.

#![deny(unsafe_code)]

use pyo3::prelude::*;

mod buffer;
mod call;
mod codec;
mod delivery;
mod errors;
mod file;
mod foreign;
mod handle;
mod listener;
mod literals;
mod memory;
mod parcel;
mod process;
mod receiver_end;
mod receiver_set;
mod rust_codec;
mod scratch;
mod sender_end;
mod texts;
mod timeout;
mod waiter;

/// The transport of ipc_channel as Python objects. Private.
#[pymodule]
mod _core {
    use super::*;

    #[pymodule_export]
    use codec::decode;
    #[pymodule_export]
    use delivery::{Delivery, View};
    #[pymodule_export]
    use file::File;
    #[pymodule_export]
    use foreign::Foreign;
    #[pymodule_export]
    use handle::close_handles;
    #[pymodule_export]
    use listener::{Listener, connect};
    #[pymodule_export]
    use memory::Memory;
    #[pymodule_export]
    use parcel::{Parcel, Prepared};
    #[pymodule_export]
    use process::{
        adopt_file, adopt_memory, adopt_receiver, adopt_sender, close_inherited, generation,
        native_max_inline, open_envelope, rust_max_packet, unwritten, wait_until_written,
    };
    #[pymodule_export]
    use receiver_end::{Departure, ReceiverEnd, Receiving};
    #[pymodule_export]
    use receiver_set::ReceiverSetCore;
    #[pymodule_export]
    use rust_codec::RustPlan;
    #[pymodule_export]
    use sender_end::{SenderEnd, Sending, channel};
    #[pymodule_export]
    use waiter::Waiter;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        process::refuse_subinterpreters(module.py())?;
        // Now, and not at the first use: a fork in the middle of that would leave the child waiting for it.
        ipc_channel_transport::os::fork::prepare_process();
        ipc_channel_transport::os::process::signals_are_noted();
        Ok(())
    }

    #[pymodule_export]
    const LABEL_BYTES: u8 = codec::LABEL_BYTES;
    #[pymodule_export]
    const LABEL_TYPED: u8 = codec::LABEL_TYPED;
    #[pymodule_export]
    const LABEL_PICKLED: u8 = codec::LABEL_PICKLED;
    #[pymodule_export]
    const LABEL_RUST: u8 = codec::LABEL_RUST;
    #[pymodule_export]
    const LABEL_RUST_0_21: u8 = codec::LABEL_RUST_0_21;
    #[pymodule_export]
    const LABEL_RUST_0_20: u8 = codec::LABEL_RUST_0_20;
}
