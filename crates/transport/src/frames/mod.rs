//! Channels whose other end is a program with Rust's `ipc-channel` crate: nothing but a socket, and the packets of
//! [`crate::wire::rust`] on it.
//!
//! The socket holds a few hundred small messages, and there is nothing else between two such programs. What does
//! not fit is kept by the [`writer::Writer`] of its channel, and a thread of the process sends it when there is room:
//! so a send never waits here either. What a [`reader::Reader`] has of a large message is kept until the rest has come.

mod backlog;
pub mod meeting;
mod outlook;
pub mod reader;
mod service;
pub mod writer;

pub use service::{Held, Unwritten, held};
