//! What Rust's serde makes of a value, without the Rust type: a plan says what the type looks like, and two
//! formats, postcard and bincode, say how that becomes bytes.
//!
//! The plan is data, made while the program runs. [`encode`](encode::encode) asks a [`Source`](encode::Source)
//! for the parts of a value, and [`decode`](decode::decode) has a [`Build`](decode::Build) put one together;
//! so this crate knows neither Python nor any other representation of values. Every limit on what a peer's
//! bytes may cost is here.

#![forbid(unsafe_code)]

pub mod bincode;
pub mod decode;
pub mod encode;
pub mod fault;
pub mod format;
pub mod plan;
pub mod postcard;
