//! What a packet looks like: native ones, and those of Rust programs.

pub mod control;
pub mod luggage;
pub mod native;
pub mod rust;
