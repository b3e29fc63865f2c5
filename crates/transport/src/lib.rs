//! Bytes and handles between processes: unidirectional, FIFO, with ends that travel inside messages.
//!
//! This crate knows nothing of Python and nothing of codecs: a message is a payload, some out-of-band
//! buffers and some handles. Dependencies inside it point down:
//! ends and sets → ways → routes and intakes → lanes and wire → os. Every system call is in [`os`].

#![deny(unsafe_code)]

pub mod deadline;
pub mod door;
pub mod end;
pub mod envelope;
pub mod error;
pub mod fd_chain;
pub mod fd_link;
pub mod frames;
pub mod intake;
pub mod lane;
pub mod message;
pub mod one_shot;
pub mod receiver;
pub mod receiver_set;
pub mod route;
pub mod sender;
pub mod shared_memory;
pub mod spin;
pub mod sync;
pub mod way;
pub mod wire;

#[allow(unsafe_code)] // The one folder that speaks to the kernel; each block has its argument.
pub mod os;

pub use deadline::Deadline;
pub use end::{End, Gone, Hint, Readiness, close_inherited};
pub use error::{ConnectFailure, Error, Result};
pub use intake::{Plain, Taken};
pub use message::{Body, Handle, HandleRef, Message, Parcel, Placed, Received, RegionView};
pub use one_shot::{Connecting, Listener};
pub use receiver::{Moving, Receiver, Vain};
pub use receiver_set::{Event, ReceiverSet};
pub use sender::{Outgoing, Sender, channel, channel_of_frames};
pub use shared_memory::{Copies, SharedMemory};
